//! What does a shard cost for each handshake, push and echo?
//!
//! `cargo bench --bench shard -- [--state DIR] [--ipv6] [FLOWS ...]`, by default 1000, 100000 and 10000000 flows in
//! memory. With `--state` the arenas and the log are files in DIR, as with `holdline serve --state`.
//!
//! The shard's time alone (see `generator`); flows are visited at random, 64 to a batch. A figure is the median over
//! rounds of nanoseconds for each handshake (SYN to the completing ACK), push (with its acknowledgment), or echo (with
//! its acknowledgment).

// Each benchmark uses a part of it.
#[allow(dead_code)]
mod generator;

use std::path::{Path, PathBuf};

use generator::{Bench, Family};
use holdline::service::{Echo, Hold};

const ROUNDS: usize = 15;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn run(family: Family, flows: u32, state: Option<&Path>) {
    let batches = 2_000;
    let clear = || {
        if let Some(directory) = state {
            let _ = std::fs::remove_dir_all(directory.join("shard-0"));
        }
    };
    clear();
    let mut bench = Bench::over_family(family, flows, state, Hold);
    let openings = (200_000 / flows).clamp(1, ROUNDS as u32);
    let mut handshakes = vec![bench.open_all()];
    for _ in 1..openings {
        bench.reset_all();
        handshakes.push(bench.open_all());
    }
    let pushes = median((0..ROUNDS).map(|_| bench.push_batches(batches)).collect());
    drop(bench);
    clear();
    let mut bench = Bench::over_family(family, flows, state, Echo);
    bench.open_all();
    let echoes = median((0..ROUNDS).map(|_| bench.echo_batches(batches)).collect());
    drop(bench);
    clear();
    let handshakes = median(handshakes);
    let kept = if state.is_some() { "directory" } else { "memory" };
    println!("{flows:>10}  {kept:<9}  {handshakes:>9.0}  {pushes:>13.0}  {echoes:>13.0}");
}

fn main() {
    let (mut state, mut family) = (None, Family::Ipv4);
    let mut counts = Vec::new();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        if argument == "--state" {
            state = arguments.next().map(PathBuf::from);
        } else if argument == "--ipv6" {
            family = Family::Ipv6;
        } else {
            counts.push(
                argument.parse().expect("usage: cargo bench --bench shard -- [--state DIR] [--ipv6] [FLOWS ...]"),
            );
        }
    }
    if counts.is_empty() {
        counts = vec![1_000, 100_000, 10_000_000];
    }
    println!(
        "{:>10}  {:<9}  {:>9}  {:>13}  {:>13}",
        "flows", "state in", "handshake", "push with ACK", "echo with ACK"
    );
    println!("{:>10}  {:<9}  {:>9}  {:>13}  {:>13}", "", "", "ns", "ns", "ns");
    for flows in counts {
        run(family, flows, state.as_deref());
    }
}
