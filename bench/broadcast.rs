//! How many clients does a broadcast miss, or reach twice, if the server is killed in the middle of it?
//!
//! `cargo bench --bench broadcast -- [CLIENTS [PACE]]`, as root: the course of tests/linux/broadcast.rs with 100,000
//! kernel sockets and 50,000 pushes a second (the defaults), and three kills. It ends with figures, or with a panic
//! that says what was missing or too much.

#[path = "../tests/linux/broadcast.rs"]
mod broadcast;
// The tests use more of it.
#[allow(dead_code)]
#[path = "../tests/linux/support.rs"]
mod support;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u32>().ok());
    let clients = numbers.next().unwrap_or(100_000);
    let pace_per_s = numbers.next().unwrap_or(50_000);
    support::in_namespace("broadcast", || {
        let figures = broadcast::broadcast_through_kills(clients, pace_per_s, 1).expect("a veth pair is to be had");
        println!("{clients} clients, {pace_per_s} pushes a second: everybody got it once, through three kills");
        println!("{figures:#?}");
    });
}
