//! What the tests of this folder share: namespaces, persistent TAPs, a served process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use holdline::link::{Persistence, Tap, interface};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program under test.
pub const HOLDLINE: &str = env!("CARGO_BIN_EXE_holdline");

/// The longest that anything here is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `test` in a thread that has a network namespace of its own; processes that it starts are in there, too. Says
/// that it was skipped where this user may not have one.
pub fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
                Ok(()) => {
                    interface::bring_up("lo").expect("lo of a new namespace comes up");
                    test();
                }
                Err(errno) => eprintln!("{name} skipped: needs root to make a network namespace ({errno})"),
            })
            .join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Makes a TAP that stays when nobody is attached, and gives the kernel's side an address. False: there is no
/// `/dev/net/tun` here, which was said.
pub fn make_tap(name: &str, address: &str) -> bool {
    make_tap_of(1, name, address, 24)
}

/// The same with so many queues.
pub fn make_tap_of(queues: usize, name: &str, address: &str, prefix: u8) -> bool {
    match Tap::open_queues(name, queues) {
        Ok(taps) => taps[0].set_persistent(Persistence::Kept).expect("root may keep a TAP"),
        Err(error) => {
            eprintln!("skipped: {error}");
            return false;
        }
    }
    interface::set_address(name, address.parse().expect("an address"), prefix).expect("the TAP takes an address");
    interface::bring_up(name).expect("the TAP comes up");
    true
}

/// Gives the kernel's side of a link an IPv6 address as well. False: the kernel has no IPv6, which is said.
pub fn add_ipv6(name: &str, address: &str) -> bool {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        eprintln!("IPv6 skipped: this kernel has none");
        return false;
    }
    interface::set_address(name, address.parse().expect("an address"), 64).expect("it takes an IPv6 address");
    true
}

/// A `holdline serve` that answers packets. It is killed when dropped.
pub struct Served {
    child: Child,
    lines: Receiver<String>,
    /// What it said before `ready`.
    pub before_ready: Vec<String>,
}

impl Served {
    /// Starts it and waits until it is ready. The error: all that it has said instead.
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Served, String> {
        let mut child = Command::new(HOLDLINE)
            .arg("serve")
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {HOLDLINE}: {error}"))?;
        let stderr = child.stderr.take().ok_or("the process has no standard error")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut served = Served { child, lines, before_ready: Vec::new() };
        loop {
            match served.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == "ready" => return Ok(served),
                Ok(line) => served.before_ready.push(line),
                Err(RecvTimeoutError::Disconnected) => return Err(served.before_ready.join("\n")),
                Err(RecvTimeoutError::Timeout) => return Err(format!("it is not ready after {PATIENCE:?}")),
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(id), signal).expect("the process is our child");
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the process is our child")
    }

    /// What it has said after it was ready, up to its end.
    pub fn said_until_end(&mut self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        wait_within(&mut self.child, PATIENCE).expect("the process ends in time")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process; kills it and answers `None` when that takes too long.
pub fn wait_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let id = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"));
    let (sender, ended) = channel();
    thread::scope(|scope| {
        // Nobody listens any more where it took too long.
        scope.spawn(move || sender.send(child.wait().expect("the process is our child")).ok());
        let status = ended.recv_timeout(patience).ok();
        if status.is_none() {
            kill(id, Signal::SIGKILL).expect("the process is our child");
        }
        status
    })
}

/// The byte at `offset` of the stream that the client `index` sends: no two clients' streams resemble each other.
pub fn stream_byte(index: usize, offset: u64) -> u8 {
    let value =
        (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (offset / 8).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let value = (value ^ value >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (value ^ value >> 29).to_le_bytes()[(offset % 8) as usize]
}
