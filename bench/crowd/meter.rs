//! The meter: what single calls of a shard took, and what the longest of them were doing.
//!
//! A step is timed by two clocks: the one on the wall, and that of the thread's own time on its core, which stands
//! still while the system, or the host that lends the machine, runs somebody else. Where others work on the machine
//! only the second says something about the shard; `machine` tells what the clocks make of steps that cannot be long.
//!
//! Not even the second clock stands still when the host takes the core away. But the same calls make the same steps: of
//! two runs the lesser time of each step is the shard's own (`Twice`), as what comes from outside hits others.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::time::{Duration, Instant};

use holdline::server::Histogram;
use holdline::service::Hold;
use holdline::shard::{Effort, Shard};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// Steps by both clocks.
#[derive(Default)]
pub struct Steps {
    pub wall: Histogram,
    pub own: Histogram,
}

/// The thread's own time.
fn own_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has its own time"))
}

/// What so many steps of nothing but arithmetic take, about as long as those of a shard.
pub fn machine(steps: u32) -> Steps {
    let mut histograms = Steps::default();
    let mut number = 1u64;
    for _ in 0..steps {
        let (own, began) = (own_time(), Instant::now());
        for _ in 0..40_000 {
            number = std::hint::black_box(number ^ number << 13);
        }
        histograms.wall.record(began.elapsed());
        histograms.own.record(own_time().saturating_sub(own));
    }
    histograms
}

/// So many of the longest steps are told of.
const LONGEST: usize = 6;

/// A step that took long by the thread's own time, and what went on in it.
#[derive(Clone, Copy)]
pub struct Long {
    pub own: Duration,
    pub wall: Duration,
    pub phase: &'static str,
    pub call: &'static str,
    pub faults: i64,
    pub effort: Effort,
}

/// What the steps of another run took, in a file, so that this process is not larger for it.
#[derive(Default)]
pub enum Twice {
    /// There is none.
    #[default]
    Once,
    /// This is the first of two.
    First(BufWriter<File>),
    /// This is the second.
    Second(BufReader<File>),
}

impl Twice {
    /// The first of two runs.
    pub fn first() -> Twice {
        Twice::First(BufWriter::new(tempfile::tempfile().expect("a place for a file")))
    }

    /// The second, after the first.
    pub fn second(self) -> Twice {
        let Twice::First(writer) = self else { panic!("the first run is over") };
        let mut file = writer.into_inner().expect("it is written");
        file.rewind().expect("it is a file");
        Twice::Second(BufReader::new(file))
    }

    /// What this step took, or the step of the same number in the first run, if that is less.
    fn lesser(&mut self, own: Duration) -> Duration {
        match self {
            Twice::Once => {}
            Twice::First(writer) => {
                let ns = u32::try_from(own.as_nanos()).unwrap_or(u32::MAX);
                writer.write_all(&ns.to_ne_bytes()).expect("there is room for a file");
            }
            Twice::Second(reader) => {
                let mut ns = [0; 4];
                reader.read_exact(&mut ns).expect("both runs have the same steps");
                return own.min(Duration::from_nanos(u32::from_ne_bytes(ns).into()));
            }
        }
        own
    }
}

/// See the module.
pub struct Meter {
    phase: &'static str,
    /// Of this phase: the time of all steps together, by the clock on the wall, and the steps.
    spent: Duration,
    pub steps: Histogram,
    /// Of all phases.
    pub all: Steps,
    longest: Vec<Long>,
    pub twice: Twice,
    usage: Usage,
    effort: Effort,
}

fn usage() -> Usage {
    getrusage(UsageWho::RUSAGE_THREAD).expect("a thread may ask for its own")
}

impl Default for Meter {
    fn default() -> Meter {
        Meter {
            phase: "",
            spent: Duration::ZERO,
            steps: Histogram::default(),
            all: Steps::default(),
            longest: Vec::new(),
            twice: Twice::default(),
            usage: usage(),
            effort: Effort::default(),
        }
    }
}

impl Meter {
    /// From here on another phase is measured.
    pub fn begin(&mut self, phase: &'static str) {
        self.phase = phase;
        self.spent = Duration::ZERO;
        self.steps = Histogram::default();
    }

    /// How long all steps of this phase took together.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// The longest steps, the longest first.
    pub fn longest(&self) -> &[Long] {
        &self.longest
    }

    /// Times one call.
    pub fn step(&mut self, shard: &mut Shard<Hold>, call: &'static str, run: impl FnOnce(&mut Shard<Hold>)) {
        let (own, began) = (own_time(), Instant::now());
        run(shard);
        let wall = began.elapsed();
        let own = self.twice.lesser(own_time().saturating_sub(own));
        self.spent += wall;
        self.steps.record(own);
        self.all.own.record(own);
        self.all.wall.record(wall);
        let (usage, effort) = (usage(), shard.effort());
        let faults = usage.minor_page_faults() - self.usage.minor_page_faults();
        self.note(Long { own, wall, phase: self.phase, call, faults, effort: effort.since(&self.effort) });
        (self.usage, self.effort) = (usage, effort);
    }

    fn note(&mut self, long: Long) {
        let place = self.longest.iter().position(|other| other.own < long.own).unwrap_or(self.longest.len());
        if place < LONGEST {
            self.longest.truncate(LONGEST - 1);
            self.longest.insert(place, long);
        }
    }
}
