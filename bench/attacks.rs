//! What does an attack cost, and whom?
//!
//! `cargo bench --bench attacks -- [NAME ...]`, by default all. Each attack puts a million frames into a shard that
//! holds 10,000 established connections, 64 frames to a batch, and a batch of pushes to these connections after every
//! fourth batch of the attack. Columns: nanoseconds of the shard for each frame of the attack; of each push with its
//! acknowledgment, before and meanwhile, and the first over the second; growth of resident memory in KiB; what the
//! attack left behind in connections; frames that were sent for each frame of the attack.

// Each benchmark uses a part of it.
#[allow(dead_code)]
mod generator;

use generator::{Bench, Forged, Shape};
use holdline::service::Hold;
use holdline::tcp::{Control, SeqNum};

const CONNECTIONS: u32 = 10_000;
const FRAMES: u32 = 1_000_000;
const BATCH: u32 = 64;
const PUSH_BATCHES: usize = 200;
const ROUNDS: usize = 15;

/// One attack: the frame with this number.
struct Attack {
    name: &'static str,
    what: &'static str,
    frame: fn(&Bench<Hold>, u32) -> Forged,
}

const ATTACKS: [Attack; 15] = [
    Attack { name: "syn", what: "SYNs from everywhere", frame: |_, at| scattered(at, Control::SYN) },
    Attack { name: "ack", what: "ACKs from everywhere", frame: |_, at| scattered(at, Control::ACK) },
    Attack {
        name: "syn-ack",
        what: "SYN-ACKs from everywhere",
        frame: |_, at| scattered(at, Control::SYN.with(Control::ACK)),
    },
    Attack { name: "rst", what: "RSTs from everywhere", frame: |_, at| scattered(at, Control::RST) },
    Attack { name: "fin", what: "FINs from everywhere", frame: |_, at| scattered(at, Control::FIN) },
    Attack {
        name: "collisions",
        what: "SYNs whose tuples have the same sum and the same bits xored",
        frame: |_, at| Forged { remote: 0x0b00_0000 | at << 4, port: !(at << 4) as u16, ..scattered(at, Control::SYN) },
    },
    Attack {
        name: "blind-rst",
        what: "RSTs that sweep the windows",
        frame: |bench, at| sweep(bench, at, Control::RST),
    },
    Attack {
        name: "blind-syn",
        what: "SYNs on connections",
        frame: |bench, at| Forged { seq: SeqNum(mixed(at)), ..of_connection(bench, at, Control::SYN) },
    },
    Attack {
        name: "blind-data",
        what: "data that sweeps the windows, with acknowledgments at random",
        frame: |bench, at| Forged { ack: SeqNum(mixed(at)), bytes: 64, ..sweep(bench, at, Control::ACK) },
    },
    Attack {
        name: "out-of-order",
        what: "one byte out of every two, on one connection",
        frame: |bench, at| {
            let first = bench.forge(CONNECTIONS as usize, Control::ACK);
            Forged { seq: first.seq.plus(1 + at % 100_000 * 2), bytes: 1, ..first }
        },
    },
    Attack {
        name: "optimistic",
        what: "acknowledgments of what was not sent",
        frame: |bench, at| {
            let forged = of_connection(bench, at, Control::ACK);
            Forged { ack: forged.ack.plus(1 + mixed(at) % 100_000), ..forged }
        },
    },
    Attack {
        name: "tiny",
        what: "in-order data of one byte",
        frame: |bench, at| {
            let first = bench.forge(CONNECTIONS as usize, Control::ACK);
            Forged { seq: first.seq.plus(at), bytes: 1, ..first }
        },
    },
    Attack {
        name: "fragments",
        what: "fragments of 1,480 bytes from everywhere, each of another packet",
        frame: |_, at| Forged { shape: Shape::Fragment(at as u16), ..scattered(at, Control::ACK) },
    },
    Attack {
        name: "one-source",
        what: "the same from one address",
        frame: |_, at| Forged { remote: 0x0b00_0000, shape: Shape::Fragment(at as u16), ..scattered(at, Control::ACK) },
    },
    Attack {
        name: "path-mtu",
        what: "messages that segments of connections were too large, at numbers that sweep the windows",
        frame: |bench, at| {
            let forged = of_connection(bench, at, Control::ACK);
            let ack = forged.ack.plus(at / CONNECTIONS * 700);
            Forged { ack, shape: Shape::TooBig(552 + (at % 900) as u16), ..forged }
        },
    },
];

/// Spreads numbers over 32 bits.
fn mixed(at: u32) -> u32 {
    let mut mixed = at.wrapping_mul(0x9e37_79b1);
    mixed ^= mixed >> 15;
    mixed.wrapping_mul(0x85eb_ca77)
}

fn scattered(at: u32, control: Control) -> Forged {
    let remote = 0x0b00_0000 | mixed(at) & 0x00ff_ffff;
    let port = 1_024 + (mixed(at + 7) % 60_000) as u16;
    Forged {
        remote,
        port,
        seq: SeqNum(mixed(at)),
        ack: SeqNum(mixed(at + 1)),
        control,
        bytes: 0,
        shape: Shape::Segment,
    }
}

fn of_connection(bench: &Bench<Hold>, at: u32, control: Control) -> Forged {
    bench.forge((at % CONNECTIONS) as usize, control)
}

fn sweep(bench: &Bench<Hold>, at: u32, control: Control) -> Forged {
    const STEP: u32 = 20_000;
    let forged = of_connection(bench, at, control);
    Forged { seq: forged.seq.plus((at / CONNECTIONS + 1) * STEP), ..forged }
}

/// VmRSS of this process in KiB.
fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("there is one");
    line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).expect("a number of kB")
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn run(attack: &Attack) {
    let mut bench = Bench::attackable(CONNECTIONS, Hold);
    bench.open_all();
    let before = median((0..ROUNDS).map(|_| bench.push_batches(PUSH_BATCHES)).collect());
    let (mut attack_ns, mut meanwhile) = (0.0, Vec::new());
    let (resident, flows) = (resident_kib(), bench.shard.stats().flows);
    let mut answers = 0;
    let per_round = FRAMES / ROUNDS as u32;
    for round in 0..ROUNDS as u32 {
        let mut push_ns = Vec::new();
        for batch in 0..per_round / BATCH {
            let start = round * per_round + batch * BATCH;
            let forged: Vec<Forged> = (start..start + BATCH).map(|at| (attack.frame)(&bench, at)).collect();
            let answered = bench.answered();
            attack_ns += bench.attack(&forged);
            answers += bench.answered() - answered;
            if batch % 4 == 3 {
                push_ns.push(bench.push_batches(1));
            }
        }
        meanwhile.push(push_ns.iter().sum::<f64>() / push_ns.len() as f64);
    }
    let frames = f64::from(per_round / BATCH * BATCH * ROUNDS as u32);
    let meanwhile = median(meanwhile);
    println!(
        "{:<12} {:>8.0} {:>8.0} {:>10.0} {:>6.2} {:>9.0} {:>8} {:>7.2}  {}",
        attack.name,
        attack_ns / frames,
        before,
        meanwhile,
        before / meanwhile,
        resident_kib() - resident,
        bench.shard.stats().flows - flows,
        answers as f64 / frames,
        attack.what,
    );
}

/// Peers that complete the handshake, close their window and stay: what each holds, and what probing them costs.
fn run_closed_windows() {
    const PEERS: u32 = 100_000;
    const SECONDS: usize = 60;
    let mut bench = Bench::attackable(PEERS, Hold);
    bench.open_all();
    let resident = resident_kib();
    bench.push_to_closed_windows();
    let held = (resident_kib() - resident) * 1_024.0 / f64::from(PEERS);
    let seconds: Vec<(f64, u64)> = (0..SECONDS).map(|_| bench.pass_a_second()).collect();
    let (ns, probes) = seconds.iter().fold((0.0, 0), |(ns, probes), second| (ns + second.0, probes + second.1));
    println!(
        "closed-window: {PEERS} peers that close their windows and are pushed to hold {held:.0} bytes more each, and \
         cost {probes} probes in {SECONDS} s at {:.0} ns each",
        ns / probes as f64
    );
}

/// A peer that acknowledges every second of many small segments selectively.
fn run_sack_bomb() {
    let mut bench = Bench::attackable(CONNECTIONS, Hold);
    bench.open_all();
    let bomb = bench.begin_bomb();
    let (resident, answered) = (resident_kib(), bench.answered());
    let mut costs: Vec<f64> = (0..FRAMES / BATCH).map(|batch| bench.throw_bomb(&bomb, batch)).collect();
    costs.sort_by(f64::total_cmp);
    let batches = costs.len();
    println!(
        "sack-bomb: {} segments of 64 bytes in flight, every second acknowledged selectively, four a frame: {:.0} ns a \
         frame in the median batch, {:.0} in the worst but one of a thousand, {:.2} frames sent for each, {:.0} KiB \
         more",
        bomb.segments,
        costs[batches / 2] / f64::from(BATCH),
        costs[batches - 1 - batches / 1_000] / f64::from(BATCH),
        (bench.answered() - answered) as f64 / f64::from(FRAMES / BATCH * BATCH),
        resident_kib() - resident
    );
}

/// Attacks that take more than forged frames.
const APART: [(&str, fn()); 2] = [("closed-window", run_closed_windows), ("sack-bomb", run_sack_bomb)];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| it == name);
    let names = ATTACKS.iter().map(|attack| attack.name).chain(APART.iter().map(|(name, _)| *name));
    if let Some(name) = wanted.iter().find(|name| !names.clone().any(|it| it == name.as_str())) {
        eprintln!("there is no attack `{name}`");
        std::process::exit(2);
    }
    println!("attack       ns/frame  push ns  meanwhile  ratio  memory KiB    left answers");
    ATTACKS.iter().filter(|attack| is_wanted(attack.name)).for_each(run);
    APART.iter().filter(|(name, _)| is_wanted(name)).for_each(|(_, run)| run());
}
