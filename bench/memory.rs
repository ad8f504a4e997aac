//! How much memory does an idle connection cost?
//!
//! `cargo bench --bench memory -- [--ipv6] [CONNECTIONS ...]`, by default 100000 over IPv4. Prints by how much VmRSS
//! and HugetlbPages of this process grow over their values before any connection, divided by the number of connections:
//! with all of them idle, and 60 seconds of the stack's time after a push to all, when the blocks of the peak are given
//! back. The generator's own memory of its clients is allocated and touched before; the frames in flight are not
//! counted, they are the link's.

// Each benchmark uses a part of it.
#[allow(dead_code)]
mod generator;
#[path = "crowd/resident.rs"]
mod resident;

use generator::{Bench, Family};
use holdline::service::Hold;
use resident::resident_bytes;

fn run(family: Family, connections: u32) {
    let mut bench = Bench::over_family(family, connections, None, Hold);
    let before = resident_bytes();
    let each = |bytes: f64| (bytes - before) / f64::from(connections);
    bench.open_all();
    let idle = each(resident_bytes());
    bench.push_to_all(65_536);
    let peak = each(resident_bytes());
    let end = bench.now.plus_ms(60_000);
    while bench.now < end {
        let next = bench.shard.next_deadline().unwrap_or(end);
        bench.now = next.max(bench.now.plus_ms(1)).min(end);
        bench.shard.tick(bench.now);
    }
    let after = each(resident_bytes());
    println!("{connections:>11}  {idle:>6.1}  {peak:>20.1}  {after:>12.1}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let is_family = |argument: &&String| argument.as_str() == "--ipv6";
    let family = if arguments.iter().any(|argument| is_family(&argument)) { Family::Ipv6 } else { Family::Ipv4 };
    let usage = "usage: cargo bench --bench memory -- [--ipv6] [CONNECTIONS ...]";
    let counts = arguments.iter().filter(|argument| !is_family(argument));
    let mut counts: Vec<u32> = counts.map(|argument| argument.parse().expect(usage)).collect();
    if counts.is_empty() {
        counts = vec![100_000];
    }
    println!("connections    idle  right after the push  60 s later   bytes each");
    counts.into_iter().for_each(|count| run(family, count));
}
