//! What does a shard take for each of very many connections, and how long are its longest steps?
//!
//! `cargo bench --bench scale -- [--broadcast] [--twice] [CONNECTIONS ...]`, by default 1000000; 100000000 needs 9 GB
//! and some minutes. In memory: all are opened; a random tenth is pushed to and acknowledges, at most 64 at a time;
//! then all are, at most 65,536 at a time, and a minute passes; keepalive finds everybody silent once and everybody
//! answers; a random tenth is gone and opens again, so that the table does not grow; then the shard closes all of them
//! and they wait out their minute. With `--broadcast` all are opened, and then 1 KB is broadcast to them, a million
//! pushes a second; the memory at its peak is that of looks now and then. Before anything is said all of it is checked.
//!
//! Times are the shard's alone, by the clock on the wall; a step is one call, with 64 frames or pushes, or a tick, and
//! the frames that it lets out, and is told by the thread's own time, as others may work on the machine (see `meter`);
//! with `--twice` everything is done twice, and the lesser time of each step counts.
//!
//! Memory is what VmRSS and HugetlbPages of this process have grown by since the shard had no connection, for each
//! connection; the generator (`crowd`) keeps nothing of its clients. Memory is brought in ahead of need by a thread, as
//! in a server.

mod crowd;
#[path = "crowd/resident.rs"]
mod resident;

use std::time::Duration;

use crowd::meter::{Twice, machine};
use crowd::order::Order;
use crowd::{BATCH, Crowd};
use holdline::server::Histogram;
use holdline::shard::Effort;
use resident::resident_bytes;

/// What the README recommends for clients in mobile networks.
const KEEPALIVE_S: u32 = 240;
/// Pushes to all that are not acknowledged at a time.
const IN_FLIGHT: usize = 65_536;
/// Pushes of a broadcast in a second of the shard's clock.
const BROADCAST_PACE: u32 = 1_000_000;

fn us(duration: Option<Duration>) -> f64 {
    duration.map_or(0.0, |it| it.as_nanos() as f64 / 1_000.0)
}

/// A run with its memory before any connection.
struct Run {
    crowd: Crowd,
    connections: u32,
    before: f64,
}

impl Run {
    fn start(connections: u32, twice: Twice) -> Run {
        let empty = resident_bytes();
        let mut run = Run { crowd: Crowd::new(connections, KEEPALIVE_S), connections, before: 0.0 };
        run.before = resident_bytes();
        run.crowd.meter.twice = twice;
        println!(
            "{connections} connections; without any, 27 MB of buffers here counted: {:.1} MB",
            (run.before - empty) / 1e6
        );
        println!(
            "{:<30} {:>10} {:>7} {:>10} {:>8} {:>8} {:>8} {:>9} {:>9}",
            "phase", "count", "ns each", "per second", "B each", "p50 us", "p99 us", "p99.99 us", "longest"
        );
        run
    }

    fn phase(&mut self, name: &'static str, count: u32, go: impl FnOnce(&mut Crowd)) {
        let crowd = &mut self.crowd;
        crowd.meter.begin(name);
        go(crowd);
        let ns = crowd.meter.spent().as_nanos() as f64 / f64::from(count);
        let bytes = (resident_bytes() - self.before) / f64::from(self.connections);
        let steps = &crowd.meter.steps;
        let quantile = |share| us(steps.quantile(share));
        println!(
            "{:<30} {count:>10} {ns:>7.0} {:>10.0} {bytes:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>9.1}",
            name,
            1e9 / ns,
            quantile(0.5),
            quantile(0.99),
            quantile(0.9999),
            quantile(1.0),
        );
    }

    fn print_longest(&self) {
        let (meter, machine) = (&self.crowd.meter, machine(200_000));
        println!("steps, in us                count  own: p50  p99.99  longest  wall: p50  p99.99  longest");
        for (name, steps) in [("of the shard", &meter.all), ("of arithmetic alone", &machine)] {
            let of = |histogram: &Histogram, share| us(histogram.quantile(share));
            println!(
                "{name:<20} {:>12} {:>9.1} {:>7.1} {:>8.1} {:>10.1} {:>7.1} {:>8.1}",
                steps.own.count(),
                of(&steps.own, 0.5),
                of(&steps.own, 0.9999),
                of(&steps.own, 1.0),
                of(&steps.wall, 0.5),
                of(&steps.wall, 0.9999),
                of(&steps.wall, 1.0),
            );
        }
        println!("{} frames at most left in one step", self.crowd.account.burst_max);
        println!("longest: own us  wall us  phase, call: faults, timers, slots swept, entries moved, bytes released");
        for long in meter.longest() {
            let Effort { timers, swept, moved, released_bytes } = long.effort;
            println!(
                "{:>15.1} {:>8.1}  {}, {}: {}, {timers}, {swept}, {moved}, {released_bytes}",
                us(Some(long.own)),
                us(Some(long.wall)),
                long.phase,
                long.call,
                long.faults,
            );
        }
    }
}

fn run(connections: u32, twice: Twice) -> Twice {
    let mut run = Run::start(connections, twice);
    let tenth = connections.div_ceil(10);
    let order = Order::below(connections);
    run.phase("handshakes, the table grows", connections, |crowd| crowd.open(0..connections));
    run.phase("pushes with ACK, at random", tenth, |crowd| crowd.push(order.first(tenth), BATCH));
    run.phase("pushes with ACK, to all", connections, |crowd| crowd.push(0..connections, IN_FLIGHT));
    run.phase("a minute", connections, |crowd| {
        let end = crowd.now.plus_ms(60_000);
        crowd.stay(|crowd| crowd.now >= end);
    });
    let account = run.crowd.account;
    assert_eq!(account.opened, u64::from(connections), "every handshake is completed once");
    let pushes = u64::from(connections) + u64::from(tenth);
    assert_eq!((account.delivered, account.payload_bytes), (pushes, pushes * 64), "every push arrives once");
    run.phase("keepalive probes with ACK", connections, |crowd| {
        let probed = crowd.account.probed;
        let patience = crowd.now.plus_ms(u64::from(crowd.keepalive_s()) * 2_000);
        crowd.stay(|crowd| crowd.account.probed - probed >= u64::from(connections) || crowd.now > patience);
        assert!(crowd.account.probed - probed >= u64::from(connections), "everybody is probed");
        assert_eq!(crowd.account.probed, crowd.probes(), "every probe is answered");
    });
    run.phase("resets, at random", tenth, |crowd| crowd.reset(order.first(tenth)));
    run.phase("handshakes, the table is full", tenth, |crowd| crowd.open(order.first(tenth)));
    assert_eq!(run.crowd.shard.stats().established, connections, "everybody is there again");
    run.phase("closed by both", connections, Crowd::leave);
    let closed = u64::from(connections) + u64::from(tenth);
    assert_eq!(run.crowd.account.closed, closed, "every connection ends once");
    run.phase("a minute later", connections, |crowd| {
        let end = crowd.now.plus_ms(60_000);
        crowd.stay(|crowd| crowd.now >= end);
    });
    run.print_longest();
    run.crowd.meter.twice
}

fn broadcast(connections: u32, twice: Twice) -> Twice {
    let mut run = Run::start(connections, twice);
    run.phase("handshakes, the table grows", connections, |crowd| crowd.open(0..connections));
    let idle = resident_bytes();
    let (mut peak, mut stored) = (idle, 0);
    let began = run.crowd.now;
    run.phase("1 KB to all, with ACK", connections, |crowd| {
        crowd.broadcast(1_024, BROADCAST_PACE, |crowd| {
            peak = peak.max(resident_bytes());
            let blocks = crowd.shard.memory().into_iter().find(|arena| arena.name == "blocks").expect("an arena");
            stored = stored.max(blocks.used * blocks.record_bytes);
        });
    });
    let account = run.crowd.account;
    assert_eq!(account.payload_bytes, u64::from(connections) * 1_024, "everybody has all of it once");
    println!(
        "by the shard's clock {:.1} s; at its peak {:.1} MB more than idle; {stored} bytes of payload stored at most",
        (run.crowd.now.0 - began.0) as f64 / 1e6,
        (peak - idle) / 1e6,
    );
    run.print_longest();
    run.crowd.meter.twice
}

fn main() {
    let usage = "usage: cargo bench --bench scale -- [--broadcast] [--twice] [CONNECTIONS ...]";
    let (flags, arguments): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .partition(|argument| argument.starts_with("--"));
    let mut counts: Vec<u32> = arguments.iter().map(|argument| argument.parse().expect(usage)).collect();
    if counts.is_empty() {
        counts = vec![1_000_000];
    }
    assert!(flags.iter().all(|flag| flag == "--broadcast" || flag == "--twice"), "{usage}");
    let has = |wanted: &str| flags.iter().any(|flag| flag == wanted);
    let measure = if has("--broadcast") { broadcast } else { run };
    for connections in counts {
        if has("--twice") {
            let first = measure(connections, Twice::first());
            measure(connections, first.second());
        } else {
            measure(connections, Twice::Once);
        }
    }
}
