//! How often can a server be killed without losing a connection or a byte?
//!
//! `cargo bench --bench kill -- 50 [SEED]`: the course of tests/linux/kill.rs with 50 kills (the default) and 200
//! clients, as root. It ends with figures, or with a panic that says what was lost.

#[path = "../tests/linux/kill.rs"]
mod kill;
// The tests use more of it.
#[allow(dead_code)]
#[path = "../tests/linux/support.rs"]
mod support;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let kills = u32::try_from(numbers.next().unwrap_or(50)).expect("fewer kills than 2^32");
    let seed = numbers.next().unwrap_or(1);
    support::in_namespace("kill", || {
        if let Some(figures) = kill::kill_again_and_again(kills, 200, seed, 1) {
            println!("{kills} kills of a server with 200 clients, seed {seed}: no connection lost, no byte wrong");
            println!("{figures:#?}");
        }
    });
}
