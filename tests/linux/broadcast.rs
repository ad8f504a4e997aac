//! A broadcast to kernel sockets, from a server that is killed in the middle of it, again and again.
//!
//! Client processes hold the sockets and check every byte: everybody must get the payload, and nobody anything else or
//! anything twice. The server is killed by SIGKILL from outside and, through its fault switch, in the middle of a
//! commit, and started again on its state; everything is asked of it by subcommands. The same with two workers on the
//! two queues of a TAP, where a broadcast is one job over two shards. `cargo test` has 2,000 clients;
//! `cargo bench --bench broadcast -- 100000` as many as are asked for.

// The clients use more of it.
#[allow(dead_code)]
#[path = "../../src/cli/demo/payload.rs"]
mod payload;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use holdline::link::{interface, veth};
use nix::sys::signal::Signal;
use serde_json::Value;

use self::payload::Payload;
use crate::support::{HOLDLINE, PATIENCE, Served, make_tap_of};

/// What such a course was.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Clients that got the payload, each once.
    pub reached: u64,
    /// How many it was pushed to when the server was killed, kill by kill.
    pub pushed_at_kills: Vec<u64>,
    /// Starts that discarded an incomplete record.
    pub found_incomplete: u32,
    /// The longest time from a kill to the next `ready`.
    pub away_max: Duration,
    /// From the call to the last receipt.
    pub took: Duration,
}

/// Runs the whole course in the calling thread's namespace; over a TAP where there is more than one worker. `None`:
/// there is none, which was said.
pub fn broadcast_through_kills(clients: u32, pace_per_s: u32, workers: usize) -> Option<Figures> {
    if workers > 1 && !make_tap_of(workers, "clients", "10.82.0.1", 16) {
        return None;
    } else if workers == 1 {
        veth::make_pair("clients", "ours").expect("root may make a veth pair");
        interface::set_address("clients", [10, 82, 0, 1].into(), 16).expect("it takes an address");
        interface::bring_up("clients").expect("it comes up");
        interface::bring_up("ours").expect("it comes up");
    }
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65535").expect("root may set it");
    let folder = tempfile::tempdir().expect("there is room");
    let mut course = Course::begin(folder.path(), clients, workers);
    course.connect();
    course.broadcast(pace_per_s);
    let figures = course.figures.clone();
    drop(course);
    Some(figures)
}

#[test]
fn a_broadcast_reaches_everybody_once_through_kills() {
    crate::support::in_namespace("a_broadcast_reaches_everybody_once_through_kills", || {
        let Some(figures) = broadcast_through_kills(2_000, 1_000, 1) else { return };
        eprintln!("{figures:?}");
        assert_eq!((figures.reached, figures.pushed_at_kills.len()), (2_000, 3));
        assert!(figures.found_incomplete > 0, "{figures:?}");
    });
}

#[test]
fn a_broadcast_of_two_workers_reaches_everybody_once_through_kills() {
    crate::support::in_namespace("a_broadcast_of_two_workers_reaches_everybody_once_through_kills", || {
        let Some(figures) = broadcast_through_kills(2_000, 1_000, 2) else { return };
        eprintln!("{figures:?}");
        assert_eq!((figures.reached, figures.pushed_at_kills.len()), (2_000, 3));
    });
}

/// What all client processes have seen together: connections established, failed and ended; bytes, and wrong ones.
type Tally = [u64; 5];

/// One process of clients. Its sockets end with its standard input.
struct Clients {
    child: Child,
    standard_input: Option<ChildStdin>,
    tally: Arc<Mutex<(Tally, Vec<String>)>>,
}

impl Clients {
    fn start(port: u32, count: u32) -> Clients {
        let mut child = Command::new(HOLDLINE)
            .args(["demo-client", "--shared", "--rounds", "1", &format!("--payload={PAYLOAD_BYTES}")])
            .args([format!("--server=10.82.0.2:{port}"), format!("--clients={count}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (standard_input, output) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let tally = Arc::new(Mutex::new(Default::default()));
        let shared = Arc::clone(&tally);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut shared: std::sync::MutexGuard<'_, (Tally, Vec<String>)> = shared.lock().expect("no panic");
                match line.strip_prefix("tally ") {
                    Some(numbers) => {
                        let numbers: Vec<u64> = numbers.split(' ').map_while(|number| number.parse().ok()).collect();
                        shared.0 = numbers.try_into().expect("a tally has five numbers");
                    }
                    None => shared.1.push(line),
                }
            }
        });
        Clients { child, standard_input, tally }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.standard_input = None;
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Course {
    folder: PathBuf,
    workers: usize,
    clients: u32,
    crew: Vec<Clients>,
    served: Option<Served>,
    figures: Figures,
}

impl Course {
    fn begin(folder: &Path, clients: u32, workers: usize) -> Course {
        let folder = folder.to_owned();
        let mut course =
            Course { folder, workers, clients, crew: Vec::new(), served: None, figures: Figures::default() };
        course.start(None);
        course
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("a temporary path is text").to_owned()
    }

    /// Starts the server, with the fault switch set where there is one; checks that it has resumed everybody.
    fn start(&mut self, kill_at: Option<&str>) {
        let (state, control) = (self.path("state"), self.path("control"));
        let ports = format!("7000-{}", 7000 + self.clients / CLIENTS_PER_PROCESS_MAX + 1);
        let most = (self.clients + 1_000).to_string();
        let (link, workers) = (if self.workers > 1 { "tap:clients" } else { "raw:ours" }, self.workers.to_string());
        let arguments = ["--link", link, "--address", "10.82.0.2/16", "--listen", &ports, "--service", "hold"];
        let more = ["--max-connections", &most, "--state", &state, "--control", &control, "--workers", &workers];
        let environment: Vec<_> = kill_at.map(|at| ("HOLDLINE_KILL_AT", at)).into_iter().collect();
        let served = Served::start(&[&arguments[..], &more].concat(), &environment).expect("it starts on its state");
        if !self.crew.is_empty() {
            let resumed = served.before_ready.iter().find(|line| line.starts_with("resumed ")).expect("it says so");
            assert!(resumed.starts_with(&format!("resumed {} connections;", self.clients)), "{resumed}");
            self.figures.found_incomplete += u32::from(!resumed.contains("records discarded: 0"));
        }
        self.served = Some(served);
    }

    /// What the subcommand `broadcast` prints with these arguments and `--json`.
    fn asked(&self, arguments: &[&str]) -> Value {
        let control = self.path("control");
        let mut command = Command::new(HOLDLINE);
        command.args(["broadcast", "--json", "--control", &control]).args(arguments);
        let outcome = command.output().expect("it starts");
        // A server that has just killed itself does not answer; then the next one is asked.
        serde_json::from_slice(&outcome.stdout).unwrap_or(Value::Null)
    }

    fn pushed(&self) -> Option<u64> {
        self.asked(&["--job", "1"])["pushed"].as_u64()
    }

    /// The sum over all client processes; a trouble of one of them ends the course.
    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for clients in &self.crew {
            let tally = clients.tally.lock().expect("no panic");
            let troubles: Vec<&String> = tally.1.iter().filter(|line| *line != "ready").collect();
            assert!(troubles.is_empty(), "{troubles:?}");
            sum.iter_mut().zip(tally.0).for_each(|(sum, more)| *sum += more);
        }
        sum
    }

    fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Course) -> bool) {
        let until = Instant::now() + PATIENCE + Duration::from_millis(self.clients.into());
        while !is_so(self) {
            assert!(Instant::now() < until, "{what} takes too long; clients have seen {:?}", self.tally());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn connect(&mut self) {
        let processes = self.clients.div_ceil(CLIENTS_PER_PROCESS_MAX).max(2);
        for index in 0..processes {
            let share = self.clients / processes + u32::from(index < self.clients % processes);
            self.crew.push(Clients::start(7000 + index, share));
        }
        for clients in &mut self.crew {
            clients.standard_input.as_mut().expect("piped").write_all(b"go\n").expect("it listens");
        }
        self.wait_until("connecting", |course| course.tally()[0] == u64::from(course.clients));
    }

    /// Three kills, one of them in the middle of a commit, while the payload goes out to everybody.
    fn broadcast(&mut self, pace_per_s: u32) {
        let mut bytes = vec![0; PAYLOAD_BYTES];
        Payload::shared().fill(0, 0, &mut bytes);
        let (file, pace) = (self.path("payload"), pace_per_s.to_string());
        fs::write(&file, bytes).expect("there is room");
        let began = Instant::now();
        assert_eq!(self.asked(&["--pace", &pace, "--file", &file])["job"], 1);
        let all = u64::from(self.clients);
        self.kill_when(all / 4, Some("WithinRecord:40"));
        self.kill_when(all, None);
        self.kill_when(all * 2 / 3, None);
        let everything = all * PAYLOAD_BYTES as u64;
        self.wait_until("the rest", |course| course.tally()[3] >= everything);
        let mut job = Value::Null;
        self.wait_until("the last receipt", |course| {
            job = course.asked(&["--job", "1"]);
            job["delivered"].as_u64() >= Some(all)
        });
        self.figures.took = began.elapsed();
        for (key, wanted) in [("pushed", all), ("delivered", all), ("refused", 0), ("lost", 0)] {
            assert_eq!(job[key], wanted, "{key} of {job}");
        }
        assert_eq!(job["state"], "done");
        self.end();
        assert_eq!(self.tally(), [all, 0, 0, everything, 0], "connected, failed, ended, bytes, wrong bytes");
        self.figures.reached = all;
    }

    /// Kills the server once so many were pushed to, or waits until its fault switch has; then starts the next.
    fn kill_when(&mut self, pushed: u64, next_kill_at: Option<&str>) {
        let mut last = 0;
        let mut served = self.served.take().expect("it runs");
        self.wait_until("the middle of the broadcast", |course| {
            last = course.pushed().unwrap_or(last);
            last >= pushed || served.has_ended().is_some()
        });
        if served.has_ended().is_none() {
            served.signal(Signal::SIGKILL);
            served.wait();
        }
        let killed_at = Instant::now();
        self.start(next_kill_at);
        self.figures.away_max = self.figures.away_max.max(killed_at.elapsed());
        let job = self.asked(&["--job", "1"]);
        assert!(job["state"] == "running", "that was not the middle: {job}");
        self.figures.pushed_at_kills.push(job["pushed"].as_u64().expect("a number"));
    }

    /// Sees that nothing is on its way any more, so that nobody can get it twice later.
    fn end(&self) {
        let control = self.path("control");
        self.wait_until("the end of what is on its way", |_| {
            let outcome = Command::new(HOLDLINE).args(["stats", "--json", "--control", &control]).output();
            let stats: Value = serde_json::from_slice(&outcome.expect("it starts").stdout).expect("it answers");
            stats["memory"]["actives"]["used"] == 0
        });
    }
}

/// Bytes of the payload.
const PAYLOAD_BYTES: usize = 100;

/// Sockets of one process: below the 20,000 descriptors that some systems allow.
const CLIENTS_PER_PROCESS_MAX: u32 = 19_000;
