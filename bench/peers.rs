//! What do a push and an idle connection cost in other TCP stacks in user space?
//!
//! `cargo bench --bench peers -- [CONNECTIONS ...]`, by default 1000 and 10000. The same clients open connections to a
//! shard, to smoltcp, and to lwIP (Debian's liblwip-dev, as it is packaged; without it its rows say so), all in memory,
//! 64 frames or pushes to a call; then connections at random are pushed 64 bytes and acknowledge them, in rounds that
//! take turns. Figures are the median of rounds of nanoseconds in the server alone, and how much VmRSS and HugetlbPages
//! of its process have grown with its connections open and idle. Each has a process of its own.

#[path = "crowd/order.rs"]
mod order;
mod servers;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use order::Order;
use servers::frames::Frames;
use servers::lwip::Lwip;
use servers::ours::Ours;
use servers::small::{BUFFER_BYTES, Small};
use servers::{BATCH, Server};

const ROUNDS: usize = 9;
/// Batches of pushes in a round.
const BATCHES: u32 = 40;

/// VmRSS + HugetlbPages of a process in bytes.
fn resident_bytes(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("/proc is mounted");
    let wanted = status.lines().filter(|line| line.starts_with("VmRSS:") || line.starts_with("HugetlbPages:"));
    let kilobytes = wanted.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.sum::<f64>() * 1_024.0
}

/// A server with its clients, in a process of its own.
struct Stage {
    server: Box<dyn Server>,
    frames: Frames,
    sent: Frames,
}

impl Stage {
    /// The frames that wait go in. Returns the nanoseconds.
    fn hand_over(&mut self) -> f64 {
        self.sent.clear();
        let took = self.server.receive(&self.frames, &mut self.sent);
        self.frames.clear();
        took.as_nanos() as f64
    }

    /// Opens all connections. Returns the nanoseconds of one.
    fn open(&mut self, connections: u32) -> f64 {
        self.frames.add_arp();
        self.hand_over();
        let mut ns = 0.0;
        for start in (0..connections).step_by(BATCH) {
            for client in start..connections.min(start + BATCH as u32) {
                self.frames.add_syn(client);
            }
            ns += self.hand_over();
            self.frames.add_answers(&self.sent);
            ns += self.hand_over();
        }
        ns / f64::from(connections)
    }

    /// Returns the nanoseconds of a push with its acknowledgment.
    fn push(&mut self, order: impl Iterator<Item = u32>) -> f64 {
        let order: Vec<u32> = order.collect();
        let mut ns = 0.0;
        for batch in order.chunks(BATCH) {
            self.sent.clear();
            ns += self.server.push(batch, &mut self.sent).as_nanos() as f64;
            assert_eq!(self.frames.add_answers(&self.sent), batch.len(), "every push is sent at once");
            ns += self.hand_over();
        }
        ns / order.len() as f64
    }
}

/// What a process of its own does: says what opening took, what a connection takes, and then, for each line that it is
/// sent, what a push takes.
fn play(name: &str, connections: u32) {
    let mut small = None;
    let server: Box<dyn Server> = match name {
        "holdline" => Box::new(Ours::start(connections)),
        "smoltcp" => {
            small = Some(Small::start(connections));
            Box::new(Ours::start(1))
        }
        _ => match Lwip::start() {
            Ok(server) => Box::new(server),
            Err(what) => {
                println!("missing {what}");
                return;
            }
        },
    };
    let mut stage = Stage { server, frames: Frames::default(), sent: Frames::default() };
    let before = resident_bytes(stage.server.process());
    if let Some(mut small) = small {
        small.listen(connections);
        stage.server = Box::new(small);
    }
    let handshake = stage.open(connections);
    let bytes = (resident_bytes(stage.server.process()) - before) / f64::from(connections);
    println!("{handshake} {bytes}");
    let mut first = 0;
    for _ in std::io::stdin().lock().lines() {
        let count = (BATCHES * BATCH as u32).min(connections);
        // Another part of a random order each time.
        let order = Order::below(connections).first(connections).cycle().skip(first).take(count as usize);
        println!("{}", stage.push(order));
        first = (first + count as usize) % connections as usize;
    }
}

/// A process that plays, as seen from the one that asks.
struct Player {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Player {
    fn start(name: &str, connections: u32) -> Player {
        let program = std::env::current_exe().expect("a benchmark knows where it is");
        let mut child = Command::new(program)
            .args(["--play", name, &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a benchmark can be run again");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Player { child, input, output }
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    fn push(&mut self) -> f64 {
        self.input.write_all(b"\n").expect("it listens");
        self.hear().parse().expect("a figure")
    }
}

fn compare(connections: u32) {
    let names = ["holdline", "smoltcp", "lwIP"];
    let mut players: Vec<(&str, Player, String, Vec<f64>)> = Vec::new();
    for name in names {
        let mut player = Player::start(name, connections);
        let first = player.hear();
        players.push((name, player, first, Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (_, player, first, pushes) in &mut players {
            if !first.starts_with("missing") {
                pushes.push(player.push());
            }
        }
    }
    for (name, player, first, mut pushes) in players {
        let Player { mut child, input, .. } = player;
        drop(input);
        let status = child.wait().expect("it ends");
        assert!(status.success(), "{name} ended badly");
        if let Some(what) = first.strip_prefix("missing") {
            println!("{name:<9} {connections:>11}  {}", what.trim());
            continue;
        }
        pushes.sort_by(f64::total_cmp);
        let figures: Vec<f64> = first.split(' ').filter_map(|figure| figure.parse().ok()).collect();
        let push = pushes[pushes.len() / 2];
        println!("{name:<9} {connections:>11}  {:>12.0}  {push:>16.0}  {:>10.0}", figures[0], figures[1]);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let usage = "usage: cargo bench --bench peers -- [CONNECTIONS ...], at most 60000 each";
    if let [flag, name, connections] = &arguments[..]
        && flag == "--play"
    {
        play(name, connections.parse().expect(usage));
        return;
    }
    let mut counts: Vec<u32> = arguments.iter().map(|argument| argument.parse().expect(usage)).collect();
    assert!(counts.iter().all(|&count| (1..=60_000).contains(&count)), "{usage}");
    if counts.is_empty() {
        counts = vec![1_000, 10_000];
    }
    println!("smoltcp's sockets have buffers of {BUFFER_BYTES} bytes for each direction");
    println!(
        "{:<9} {:>11}  {:>12}  {:>16}  {:>10}",
        "server", "connections", "handshake ns", "push with ACK ns", "bytes"
    );
    counts.into_iter().for_each(compare);
}
