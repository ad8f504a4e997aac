//! How much memory does an idle connection cost?
//!
//! `cargo bench --bench memory -- [CONNECTIONS ...]`, by default 100000. Prints the growth of VmRSS + HugetlbPages of
//! this process over its value before any connection, divided by the number of connections: with all of them idle, and
//! 60 seconds of the stack's time after a push to all, when the blocks of the peak are given back. The generator's own
//! memory of its clients is allocated and touched before; the frames in flight are not counted, they are the link's.

// Each benchmark uses a part of it.
#[allow(dead_code)]
mod generator;

use generator::Bench;
use holdline::service::Hold;

/// VmRSS + HugetlbPages of this process in bytes.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let kilobytes: f64 = status
        .lines()
        .filter(|line| line.starts_with("VmRSS:") || line.starts_with("HugetlbPages:"))
        .map(|line| {
            line.split_whitespace().nth(1).and_then(|figure| figure.parse::<f64>().ok()).expect("a number of kB")
        })
        .sum();
    kilobytes * 1_024.0
}

fn run(connections: u32) {
    let mut bench = Bench::new(connections, None, Hold);
    let before = resident_bytes();
    let each = |bytes: f64| (bytes - before) / f64::from(connections);
    bench.open_all();
    let idle = each(resident_bytes());
    bench.push_to_all(65_536);
    let peak = each(resident_bytes());
    for _ in 0..60 {
        bench.now = bench.now.plus_ms(1_000);
        bench.shard.tick(bench.now);
    }
    let after = each(resident_bytes());
    println!("{connections:>11}  {idle:>6.1}  {peak:>20.1}  {after:>12.1}");
}

fn main() {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let parse = |argument: String| argument.parse().expect("usage: cargo bench --bench memory -- [CONNECTIONS ...]");
    let mut counts: Vec<u32> = arguments.map(parse).collect();
    if counts.is_empty() {
        counts = vec![100_000];
    }
    println!("connections    idle  right after the push  60 s later   bytes each");
    counts.into_iter().for_each(run);
}
