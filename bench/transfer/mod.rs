//! One transfer over an impaired cable: a Linux client, and holdline or Linux as its server.
//!
//! In: a course, which says all of it. Out: how many bytes the receiving application had in order when the time was up,
//! and that every byte arrived whole afterwards. Each transfer has network namespaces, interfaces, a cable and a server
//! of its own, so that nothing is remembered from the one before.
//!
//! Invariant: both servers are measured at the same place, the receiving application, from the moment at which the
//! client is connected.

mod linux;
mod ours;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use holdline::link::{Link, Tap, complete_checksums, interface};
use nix::sched::{CloneFlags, unshare};

use crate::impaired::{Cable, Figures, Impairment};

/// Who serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    Holdline,
    Linux,
}

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the server to the client.
    Down,
    /// From the client to the server.
    Up,
}

/// One transfer.
#[derive(Clone, Debug)]
pub struct Course {
    pub server: Server,
    pub direction: Direction,
    /// What the client's frames meet, and the server's.
    pub impairments: [Impairment; 2],
    pub duration: Duration,
    pub bytes_max: u64,
    /// Bytes of each send buffer and of each receive window.
    pub buffer_bytes: usize,
    pub seed: u64,
    /// Where the server's frames are written, if anywhere.
    pub capture: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Bytes in order at the receiving application when the time was up.
    pub bytes: u64,
    /// The time.
    pub elapsed: Duration,
    /// All bytes, after the sender has closed.
    pub bytes_whole: u64,
    /// What the cable did to the client's frames, and to the server's.
    pub cable: [Figures; 2],
    /// Frames that the interfaces themselves lost.
    pub frames_lost: u64,
    /// What the server has to say of it.
    pub remarks: String,
}

impl Outcome {
    /// Megabits of payload a second.
    pub fn goodput(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.elapsed.as_secs_f64()
    }
}

/// What sender and receiver know of each other without the network.
pub struct Progress {
    pub direction: Direction,
    pub bytes_max: u64,
    /// Bytes the sending application has handed to its TCP.
    pub sent: AtomicU64,
    /// Bytes the receiving application has taken, all of them right.
    pub received: AtomicU64,
    /// The sender shall close.
    pub is_over: AtomicBool,
    /// The client has all that it wanted.
    pub is_done: AtomicBool,
    /// The stream repeats this.
    pattern: Vec<u8>,
}

impl Progress {
    fn new(course: &Course) -> Progress {
        let mut state = course.seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        Progress {
            direction: course.direction,
            bytes_max: course.bytes_max,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
            pattern: (0..PATTERN_BYTES).map(|_| next()).collect(),
        }
    }

    /// What is to be sent next: at most a chunk, empty at the end of the stream.
    pub fn next_to_send(&self) -> &[u8] {
        let sent = self.sent.load(Ordering::Relaxed);
        if self.is_over.load(Ordering::Relaxed) || sent >= self.bytes_max {
            return &[];
        }
        let start = (sent % PATTERN_BYTES as u64) as usize;
        &self.pattern[start..(start + CHUNK_BYTES).min(PATTERN_BYTES)]
    }

    pub fn note_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Compares what has arrived, byte by byte. Panics where it is not what was sent.
    pub fn note_received(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.received.load(Ordering::Relaxed);
            let start = (at % PATTERN_BYTES as u64) as usize;
            let count = bytes.len().min(PATTERN_BYTES - start);
            assert!(self.pattern[start..start + count] == bytes[..count], "what arrives from byte {at} on is wrong");
            self.received.fetch_add(count as u64, Ordering::Relaxed);
            bytes = &bytes[count..];
        }
    }
}

/// Makes the transfer.
pub fn run(course: &Course) -> Outcome {
    let progress = Arc::new(Progress::new(course));
    let is_cable_over = AtomicBool::new(false);
    let (give_client, client_end) = channel::<Tap>();
    let (give_server, server_end) = channel::<Tap>();
    let (connect, may_connect) = channel::<()>();
    let shared = &progress;
    thread::scope(|scope| {
        let client = scope.spawn(move || {
            let tap = enter_namespace(CLIENT);
            give_client.send(tap).expect("the cable waits for it");
            may_connect.recv().expect("the cable lies");
            let outcome = linux::client(course, shared);
            shared.is_done.store(true, Ordering::Relaxed);
            (outcome, interface_drops())
        });
        let (ours, server): (_, Box<dyn Link>) = match course.server {
            Server::Holdline => {
                let (started, end) = ours::start(course, &progress);
                (Some(started), Box::new(end))
            }
            Server::Linux => {
                scope.spawn(move || {
                    let tap = enter_namespace(SERVER);
                    let listener = linux::listen(course);
                    give_server.send(tap).expect("the cable waits for it");
                    linux::serve(&listener, shared);
                });
                (None, Box::new(server_end.recv().expect("the server has a TAP")))
            }
        };
        let client_end = Box::new(client_end.recv().expect("the client has a TAP"));
        let mut cable = Cable::new([client_end, server], course.impairments, course.seed);
        if let Some(path) = &course.capture {
            cable.record(path);
        }
        let cable = scope.spawn(|| cable.run(&is_cable_over));
        connect.send(()).expect("the client waits");
        let ((bytes, elapsed, remarks), drops) = client.join().expect("the client has not panicked");
        is_cable_over.store(true, Ordering::Relaxed);
        let cable = cable.join().expect("the cable has not panicked").expect("its ends stay");
        let remarks = ours.map_or(remarks, ours::Started::stop);
        let bytes_whole = progress.received.load(Ordering::Relaxed);
        assert_eq!(bytes_whole, progress.sent.load(Ordering::Relaxed), "what was sent has arrived");
        Outcome { bytes, elapsed, bytes_whole, cable, frames_lost: drops, remarks }
    })
}

/// Moves this thread into a network namespace of its own, with a TAP whose kernel side has the address.
fn enter_namespace(address: Ipv4Addr) -> Tap {
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root to make network namespaces");
    // Neighbour discovery would be noise on the cable. Where there is no IPv6 there is none.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let tap = Tap::open("goodput0").unwrap_or_else(|error| panic!("{error}"));
    // A wire carries segments that are cut, so the kernel is to cut them itself; it does where it completes checksums.
    complete_checksums("goodput0").expect("a TAP lets the kernel complete checksums");
    interface::set_address("goodput0", address.into(), 24).expect("the TAP takes an address");
    interface::bring_up("goodput0").expect("the TAP comes up");
    tap
}

/// Frames that the kernel had to drop at the TAP of this thread's namespace, either way.
fn interface_drops() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("/proc is mounted");
    let line = table.lines().find_map(|line| line.trim().strip_prefix("goodput0:")).expect("the TAP is there");
    let figures: Vec<u64> = line.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
    figures[3] + figures[11]
}

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const PORT: u16 = 7_000;

/// What is handed to a TCP at once.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// A prime, so that a repetition is never at the same place of a segment or a buffer.
const PATTERN_BYTES: usize = 1_048_573;
