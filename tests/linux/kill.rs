//! `holdline serve --state` under checked echo traffic, killed by SIGKILL again and again.
//!
//! 200 kernel sockets, half of them over IPv6, send streams of their own to an echo service and compare what comes
//! back, while the process is killed at random moments and, through its fault switch, in the middle of a commit.
//! Afterwards no connection may be lost, no byte wrong, missing or doubled, and none may have seen a RST. The same with
//! two workers on two queues, and with three shards, which one worker drives at every third start. `cargo test`
//! kills a few times; `cargo bench --bench kill -- 50` as often as is asked for.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::support::{PATIENCE, Served, add_ipv6, make_tap_of, stream_byte};

/// How often and by what the process was killed, and what its next start found.
#[derive(Clone, Copy, Default, Debug)]
pub struct Kills {
    /// At random moments, from outside.
    pub random: u32,
    /// By the fault switch, in the middle of a commit.
    pub switched: u32,
    /// Starts that discarded an incomplete record.
    pub found_incomplete: u32,
    /// Starts that applied a complete record again.
    pub found_unapplied: u32,
    /// Bytes that went out and came back.
    pub echoed_bytes: u64,
    /// The longest time from the kill to the next `ready`.
    pub away_max: Duration,
}

/// Runs the whole course over a TAP of so many queues in the calling thread's namespace: `kills` kills of a server with
/// `clients` connections, every second one by the fault switch. `None`: this machine has no TAP, which was said.
pub fn kill_again_and_again(kills: u32, clients: usize, seed: u64, queues: usize) -> Option<Kills> {
    let is_made = make_tap_of(queues, "killed", "10.79.0.1", 24);
    is_made.then(|| kill_over("tap:killed", "killed", kills, clients, seed, queues))
}

/// The same over a link whose other end is an interface with the address 10.79.0.1/24.
pub fn kill_over(link: &str, interface: &str, kills: u32, clients: usize, seed: u64, queues: usize) -> Kills {
    let servers: &'static [&str] =
        if add_ipv6(interface, "fd79::1") { &["10.79.0.2", "fd79::2"] } else { &["10.79.0.2"] };
    let state = std::env::temp_dir().join(format!("holdline-kill-{}-{interface}-{seed}", std::process::id()));
    let _ = std::fs::remove_dir_all(&state);
    let mut course = Course::begin(link, &state, servers, clients, seed, queues);
    for number in 0..kills {
        course.kill_once(number);
    }
    course.finish();
    let figures = course.figures;
    drop(course);
    std::fs::remove_dir_all(&state).expect("the state is ours");
    figures
}

#[test]
fn kills_lose_no_connection_and_no_byte() {
    crate::support::in_namespace("kills_lose_no_connection_and_no_byte", || {
        let Some(kills) = kill_again_and_again(8, 200, 1, 1) else {
            return;
        };
        eprintln!("{kills:?}");
        assert_eq!((kills.random, kills.switched), (4, 4));
        assert!(kills.found_incomplete > 0 && kills.found_unapplied > 0, "{kills:?}");
    });
}

#[test]
fn kills_of_two_workers_lose_no_connection_and_no_byte() {
    crate::support::in_namespace("kills_of_two_workers_lose_no_connection_and_no_byte", || {
        let Some(kills) = kill_again_and_again(8, 200, 2, 2) else {
            return;
        };
        eprintln!("{kills:?}");
        assert_eq!((kills.random, kills.switched), (4, 4));
        assert!(kills.found_incomplete > 0 && kills.found_unapplied > 0, "{kills:?}");
    });
}

/// One client with what it has sent and got back.
struct Client {
    stream: TcpStream,
    index: usize,
    sent: u64,
    received: u64,
}

struct Course {
    link: String,
    state: String,
    /// Of the TAP.
    queues: usize,
    starts: usize,
    served: Option<Served>,
    clients: Vec<Client>,
    random: Xoshiro256PlusPlus,
    figures: Kills,
}

impl Course {
    fn begin(link: &str, state: &Path, servers: &[&str], clients: usize, seed: u64, queues: usize) -> Course {
        let state = state.to_str().expect("a temporary path is text").to_owned();
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut course = Course {
            link: link.to_owned(),
            state,
            queues,
            starts: 0,
            served: None,
            clients: Vec::new(),
            random,
            figures: Kills::default(),
        };
        course.start(None);
        for index in 0..clients {
            let stream = TcpStream::connect((servers[index % servers.len()], 7000)).expect("holdline listens");
            stream.set_nonblocking(true).expect("a socket can");
            course.clients.push(Client { stream, index, sent: 0, received: 0 });
        }
        course
    }

    /// Starts the process, with the fault switch set where there is one; checks what it says of its state.
    fn start(&mut self, kill_at: Option<&str>) {
        let arguments = [
            ["--link", &self.link],
            ["--address", "10.79.0.2/24"],
            ["--address", "fd79::2/64"],
            ["--listen", "7000"],
            ["--service", "echo"],
            ["--max-connections", "1000"],
            ["--state", &self.state],
        ]
        .concat();
        // The number of shards stays, whoever drives them.
        let several = match self.starts % 3 {
            // A queue of AF_XDP that nobody drives is deaf.
            _ if self.link.starts_with("af-xdp:") => ["--workers", "2", "--shards", "3"],
            0 => ["--workers", "2", "--shards", "3"],
            1 => ["--workers", "1", "--shards", "3"],
            _ => ["--workers", "2", "--drain-rate", "1"],
        };
        self.starts += 1;
        let several: &[&str] = if self.queues > 1 { &several } else { &[] };
        let arguments = [&arguments, several].concat();
        let environment: Vec<_> = kill_at.map(|at| ("HOLDLINE_KILL_AT", at)).into_iter().collect();
        let served = Served::start(&arguments, &environment).expect("it starts on its state");
        if let Some(line) = served.before_ready.iter().find(|line| line.starts_with("resumed ")) {
            let numbers: Vec<usize> = line
                .split(|character: char| !character.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            let &[connections, incomplete, unapplied] = numbers.as_slice() else {
                panic!("three numbers are told: {line}");
            };
            assert_eq!(connections, self.clients.len(), "{line}");
            self.figures.found_incomplete += u32::from(incomplete > 0);
            self.figures.found_unapplied += u32::from(unapplied > 0);
        } else {
            assert!(self.clients.is_empty(), "a start on a state says what it resumed");
        }
        self.served = Some(served);
    }

    /// Traffic, a death in the middle of it, a new start at once.
    fn kill_once(&mut self, number: u32) {
        let mut served = self.served.take().expect("it runs");
        let is_switched = number % 2 == 1;
        if is_switched {
            let until = Instant::now() + PATIENCE;
            while served.has_ended().is_none() {
                self.exchange();
                assert!(Instant::now() < until, "the fault switch was never reached");
            }
            self.figures.switched += 1;
        } else {
            let until = Instant::now() + Duration::from_millis(self.random.random_range(1..400));
            while Instant::now() < until {
                self.exchange();
            }
            served.signal(Signal::SIGKILL);
            served.wait();
            self.figures.random += 1;
        }
        let killed_at = Instant::now();
        let point = ["WithinRecord", "BeforeApply", "WithinApply", "WithinRecord"][(number / 2 % 4) as usize];
        let kill_at = (!is_switched).then(|| format!("{point}:{}", self.random.random_range(20..3_000)));
        self.start(kill_at.as_deref());
        self.figures.away_max = self.figures.away_max.max(killed_at.elapsed());
    }

    /// Moves what can be moved, and waits a moment where nothing can.
    fn exchange(&mut self) {
        let wanted = |client: &Client| match client.sent - client.received < UNANSWERED_MAX {
            true => PollFlags::POLLIN | PollFlags::POLLOUT,
            false => PollFlags::POLLIN,
        };
        let mut polled: Vec<PollFd> =
            self.clients.iter().map(|client| PollFd::new(client.stream.as_fd(), wanted(client))).collect();
        poll(&mut polled, PollTimeout::from(5u8)).expect("poll works");
        let ready: Vec<PollFlags> =
            polled.iter().map(|polled| polled.revents().unwrap_or(PollFlags::empty())).collect();
        for (client, ready) in self.clients.iter_mut().zip(ready) {
            if ready.intersects(PollFlags::POLLIN | PollFlags::POLLERR | PollFlags::POLLHUP) {
                self.figures.echoed_bytes += client.receive();
            }
            if ready.contains(PollFlags::POLLOUT) {
                client.send(self.random.random_range(1..=UNANSWERED_MAX));
            }
        }
    }

    /// Lets every echo arrive, then closes and sees every connection end in order.
    fn finish(&mut self) {
        let until = Instant::now() + PATIENCE * 2;
        while self.clients.iter().any(|client| client.received < client.sent) {
            let mut polled: Vec<PollFd> =
                self.clients.iter().map(|client| PollFd::new(client.stream.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut polled, PollTimeout::from(20u8)).expect("poll works");
            for client in &mut self.clients {
                self.figures.echoed_bytes += client.receive();
            }
            let behind = self.clients.iter().filter(|client| client.received < client.sent).count();
            assert!(Instant::now() < until, "the echo of {behind} clients is missing");
        }
        for client in &mut self.clients {
            client.stream.set_nonblocking(false).expect("a socket can");
            client.stream.set_read_timeout(Some(PATIENCE)).expect("a time");
            client.stream.shutdown(Shutdown::Write).expect("connected");
            let mut rest = Vec::new();
            client.stream.read_to_end(&mut rest).expect("a FIN, and no RST");
            assert!(rest.is_empty(), "client {}: bytes that were never sent", client.index);
            assert!(client.received > 0, "client {}: no traffic at all", client.index);
        }
    }
}

impl Client {
    /// Sends up to `count` bytes of its stream, as far as few enough are unanswered.
    fn send(&mut self, count: u64) {
        let count = count.min(UNANSWERED_MAX - (self.sent - self.received).min(UNANSWERED_MAX));
        let bytes: Vec<u8> = (self.sent..self.sent + count).map(|offset| stream_byte(self.index, offset)).collect();
        match self.stream.write(&bytes) {
            Ok(written) => self.sent += written as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("client {} lost its connection while sending: {error}", self.index),
        }
    }

    /// Receives and checks what has come; returns how much.
    fn receive(&mut self) -> u64 {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("client {}: the server closed the connection", self.index),
            Ok(count) => {
                for byte in &buffer[..count] {
                    assert!(self.received < self.sent, "client {}: more came back than was sent", self.index);
                    let expected = stream_byte(self.index, self.received);
                    assert_eq!(*byte, expected, "client {}: byte {} is wrong", self.index, self.received);
                    self.received += 1;
                }
                count as u64
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("client {} lost its connection: {error}", self.index),
        }
    }
}

/// Bytes that a client sends ahead of the echo.
const UNANSWERED_MAX: u64 = 8_192;
