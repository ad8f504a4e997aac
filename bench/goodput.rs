//! How much of what Linux's own server gets through a lossy path does holdline get through it?
//!
//! `cargo bench --bench goodput -- [ROUNDS [SECONDS]] [ROW ...]`, as root: by default 5 rounds of 4 seconds of every
//! row. In each round a Linux client sends to, and receives from, holdline and a Linux server in turn, over an
//! impairing cable with the same seed. Every kernel socket has CUBIC by name and buffers of the same size as
//! holdline's. Goodput is what the receiving application has in order when the time is up; the sender then closes, and
//! every byte is compared. With `--bytes N` a transfer ends after so many bytes, with `--capture DIR` the frames at the
//! server's end are written there.

mod impaired;
mod transfer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use holdline::link::{Link, MemoryLink, memory_pair};
use impaired::{Cable, Figures, Impairment};
use transfer::{Course, Direction, Outcome, Server};

/// One kind of path.
struct Row {
    name: &'static str,
    lost_ppm: u32,
    late_ppm: u32,
}

const ROWS: [Row; 5] = [
    Row { name: "clean", lost_ppm: 0, late_ppm: 0 },
    Row { name: "loss-0.1", lost_ppm: 1_000, late_ppm: 0 },
    Row { name: "loss-1", lost_ppm: 10_000, late_ppm: 0 },
    Row { name: "loss-5", lost_ppm: 50_000, late_ppm: 0 },
    Row { name: "reorder-3", lost_ppm: 0, late_ppm: 30_000 },
];

/// Half of a round trip of 20 ms.
const DELAY: Duration = Duration::from_millis(10);
/// A frame that is held back comes later by up to half a round trip.
const LATE_MAX: Duration = Duration::from_millis(10);
const RATE_BITS: u64 = 100_000_000;
/// What such a path has in flight.
const QUEUE_BYTES: u64 = RATE_BITS / 8 / 50;
const BUFFER_BYTES: usize = 1 << 20;

struct Wanted {
    rounds: usize,
    duration: Duration,
    bytes_max: u64,
    capture: Option<PathBuf>,
    rows: Vec<&'static Row>,
    seed: u64,
    is_talkative: bool,
}

fn main() {
    let wanted = wanted();
    println!(
        "each way {} ms and {} Mbit/s with a queue of {QUEUE_BYTES} bytes; {} s; send buffers and receive windows of \
         {BUFFER_BYTES} bytes on every side; Linux with CUBIC; median of {}",
        DELAY.as_millis(),
        RATE_BITS / 1_000_000,
        wanted.duration.as_secs_f64(),
        wanted.rounds
    );
    check_cable();
    println!("path       way   holdline     Linux  Mbit/s   ratio   each round's ratio");
    for row in &wanted.rows {
        for direction in [Direction::Down, Direction::Up] {
            measure(&wanted, row, direction);
        }
    }
}

/// Sends as many frames as the cable takes through one without impairment. Panics where one is lost or overtaken.
fn check_cable() {
    const FRAMES: u64 = 200_000;
    let none = Impairment {
        lost_ppm: 0,
        late_ppm: 0,
        late_max: Duration::ZERO,
        delay: Duration::ZERO,
        rate: None,
        queue_bytes: 0,
    };
    let ((mut here, near), (far, mut there)) = (pair(), pair());
    let is_over = AtomicBool::new(false);
    let elapsed = thread::scope(|scope| {
        let cable = Cable::new([Box::new(near), Box::new(far)], [none; 2], 1);
        let is_cable_over = &is_over;
        let cable = scope.spawn(move || cable.run(is_cable_over));
        scope.spawn(move || {
            let mut frame = [0; 1_514];
            frame[12] = 8;
            for number in 0..FRAMES {
                frame[14..22].copy_from_slice(&number.to_le_bytes());
                while !here.send(&frame).expect("memory does not fail") {
                    thread::yield_now();
                }
            }
        });
        let (began, mut next) = (Instant::now(), 0);
        while next < FRAMES {
            let frames = there.receive().expect("memory does not fail");
            for frame in frames.iter() {
                assert_eq!(frame[14..22], next.to_le_bytes(), "a clean cable loses and reorders nothing");
                next += 1;
            }
            if frames.is_empty() {
                thread::yield_now();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let figures = cable.join().expect("the cable has not panicked").expect("its ends stay")[0];
        assert_eq!((figures.delivered, figures.overtaken), (FRAMES, 0), "{figures:?}");
        began.elapsed()
    });
    println!(
        "the cable itself passes {:.0} frames of 1,514 bytes a second, none lost or overtaken",
        FRAMES as f64 / elapsed.as_secs_f64()
    );
}

fn pair() -> (MemoryLink, MemoryLink) {
    memory_pair(1_500, 4_096).expect("there are descriptors")
}

fn measure(wanted: &Wanted, row: &Row, direction: Direction) {
    let mut goodputs = [Vec::new(), Vec::new()];
    for round in 0..wanted.rounds {
        // Who goes first alternates.
        let mut servers = [(0, Server::Holdline), (1, Server::Linux)];
        servers.rotate_left(round % 2);
        for (index, server) in servers {
            let outcome = transfer::run(&course(wanted, row, direction, server, round));
            goodputs[index].push(outcome.goodput());
            if wanted.is_talkative {
                tell(row, direction, server, &outcome);
            }
        }
    }
    let ratios: Vec<String> =
        goodputs[0].iter().zip(&goodputs[1]).map(|(ours, theirs)| format!("{:.2}", ours / theirs)).collect();
    let [ours, theirs] = goodputs.map(median);
    println!(
        "{:<10} {:<4} {ours:>9.2} {theirs:>9.2}         {:>7.3}   {}",
        row.name,
        format!("{direction:?}").to_lowercase(),
        ours / theirs,
        ratios.join(" ")
    );
}

fn course(wanted: &Wanted, row: &Row, direction: Direction, server: Server, round: usize) -> Course {
    let impairment = Impairment {
        lost_ppm: row.lost_ppm,
        late_ppm: row.late_ppm,
        late_max: LATE_MAX,
        delay: DELAY,
        rate: Some(RATE_BITS),
        queue_bytes: QUEUE_BYTES,
    };
    let name = format!("{}-{direction:?}-{server:?}-{round}.pcapng", row.name).to_lowercase();
    Course {
        server,
        direction,
        impairments: [impairment; 2],
        duration: wanted.duration,
        bytes_max: wanted.bytes_max,
        buffer_bytes: BUFFER_BYTES,
        seed: wanted.seed + round as u64,
        capture: wanted.capture.as_ref().map(|folder| folder.join(name)),
    }
}

fn tell(row: &Row, direction: Direction, server: Server, outcome: &Outcome) {
    let way = |figures: Figures| {
        format!(
            "{} in, {} lost, {} overflowed, {} late, {} out, {} overtaken, latest {} us, {} over 1 ms",
            figures.received,
            figures.lost,
            figures.overflowed,
            figures.late,
            figures.delivered,
            figures.overtaken,
            figures.latest_us,
            figures.over_1_ms
        )
    };
    println!(
        "  {} {direction:?} {server:?}: {:.2} Mbit/s, {} bytes whole; client's {}; server's {}; interfaces lost {}; {}",
        row.name,
        outcome.goodput(),
        outcome.bytes_whole,
        way(outcome.cable[0]),
        way(outcome.cable[1]),
        outcome.frames_lost,
        outcome.remarks
    );
}

fn wanted() -> Wanted {
    let mut wanted = Wanted {
        rounds: 5,
        duration: Duration::from_secs(4),
        bytes_max: 1 << 30,
        capture: None,
        rows: Vec::new(),
        seed: 1,
        is_talkative: false,
    };
    let mut numbers = 0;
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| refuse(&format!("{argument} needs a value")));
        match argument.as_str() {
            "--bytes" => wanted.bytes_max = number(&value()),
            "--seed" => wanted.seed = number(&value()),
            "--capture" => wanted.capture = Some(PathBuf::from(value())),
            "--talk" => wanted.is_talkative = true,
            _ => match ROWS.iter().find(|row| row.name == argument) {
                Some(row) => wanted.rows.push(row),
                None if numbers == 0 => (wanted.rounds, numbers) = (number(&argument).max(1) as usize, 1),
                None => wanted.duration = Duration::from_secs(number(&argument).max(1)),
            },
        }
    }
    if wanted.rows.is_empty() {
        wanted.rows = ROWS.iter().collect();
    }
    wanted
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| refuse(&format!("{text} is neither a number nor a row")))
}

fn refuse(sentence: &str) -> ! {
    let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    eprintln!("{sentence}; rows are {}", names.join(", "));
    std::process::exit(2);
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
