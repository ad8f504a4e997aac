//! The client processes: started, told to begin and to end, listened to, and their deaths explained.
//!
//! Comes in: a plan (how many processes, connections and ports). Goes out: sums of what they see, and troubles as
//! sentences. One small thread for each process reads its pipe.
//!
//! Invariant: no process outlives the demo: each ends when its standard input does.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use nix::sys::signal::Signal;

use super::lines::{Line, Tally};

/// How many clients there are and how they are spread over processes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections in all.
    pub clients: u32,
    /// Rounds of pushes.
    pub rounds: u32,
    /// Bytes of one push.
    pub payload_bytes: usize,
    processes: u32,
}

impl Plan {
    /// A plan for processes that may have `descriptors_max` descriptors each.
    pub fn new(clients: u32, rounds: u32, payload_bytes: usize, descriptors_max: u64) -> Plan {
        let room = descriptors_max.saturating_sub(DESCRIPTORS_KEPT).clamp(1, u64::from(CLIENTS_PER_PROCESS_MAX));
        let needed = clients.div_ceil(u32::try_from(room).unwrap_or(CLIENTS_PER_PROCESS_MAX));
        Plan { clients, rounds, payload_bytes, processes: needed.max(clients.min(PROCESSES_MIN)) }
    }

    /// The server's ports: one for each process, so that each has all local ports to itself.
    pub fn ports(self) -> Vec<u16> {
        (FIRST_PORT..).take(self.processes as usize).collect()
    }

    /// How many connections the process `index` makes.
    fn share(self, index: u32) -> u32 {
        self.clients / self.processes + u32::from(index < self.clients % self.processes)
    }
}

/// All client processes.
pub struct Crew {
    processes: Vec<Process>,
    lines: Receiver<(usize, Said)>,
}

/// What a reader thread passes on.
pub enum Said {
    /// A line, or what was none.
    Line(Result<Line, String>),
    /// The pipe has ended, and so has the process.
    End,
}

/// What one line, or the end of one process, means for the demo.
pub enum Happening {
    /// Nothing to act on.
    Told,
    /// Something went wrong on a connection.
    Trouble(String),
    /// A process has died.
    Death(String),
}

struct Process {
    child: Child,
    standard_input: Option<ChildStdin>,
    tally: Tally,
    is_ready: bool,
    has_ended: bool,
}

impl Crew {
    /// Starts the processes; they wait for [`Crew::begin`].
    ///
    /// They connect to these addresses in turn.
    pub fn start(plan: Plan, addresses: &[(IpAddr, u8)]) -> io::Result<Crew> {
        let (sender, lines) = bounded(1024);
        let mut processes = Vec::new();
        let addresses = addresses.iter().cycle().map(|&(address, _)| address);
        for (index, (port, address)) in plan.ports().into_iter().zip(addresses).enumerate() {
            let mut child = Command::new("/proc/self/exe")
                .arg("demo-client")
                .arg(format!("--server={}", SocketAddr::new(address, port)))
                .arg(format!("--clients={}", plan.share(u32::try_from(index).unwrap_or(u32::MAX))))
                .arg(format!("--rounds={}", plan.rounds))
                .arg(format!("--payload={}", plan.payload_bytes))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let standard_input = child.stdin.take();
            let output = child.stdout.take().ok_or_else(|| io::Error::other("a client process has no output"))?;
            processes.push(Process {
                child,
                standard_input,
                tally: Tally::default(),
                is_ready: false,
                has_ended: false,
            });
            let sender = sender.clone();
            std::thread::Builder::new().name(format!("clients-{index}")).stack_size(READER_STACK_BYTES).spawn(
                move || {
                    let lines = BufReader::new(output).lines().map_while(Result::ok);
                    for said in lines.map(|line| Said::Line(line.parse())).chain([Said::End]) {
                        if sender.send((index, said)).is_err() {
                            return;
                        }
                    }
                },
            )?;
        }
        Ok(Crew { processes, lines })
    }

    /// Where the processes' lines arrive; each is to be given to [`Crew::on_said`].
    pub fn lines(&self) -> &Receiver<(usize, Said)> {
        &self.lines
    }

    /// Whether every process waits for the word to begin.
    pub fn is_ready(&self) -> bool {
        self.processes.iter().all(|process| process.is_ready)
    }

    /// Lets them connect. A process that has died meanwhile is told of by its pipe.
    pub fn begin(&mut self) {
        for standard_input in self.processes.iter_mut().filter_map(|process| process.standard_input.as_mut()) {
            let _ = standard_input.write_all(b"go\n");
        }
    }

    /// Takes in one line.
    pub fn on_said(&mut self, index: usize, said: Said) -> Happening {
        let count = self.processes.len();
        let process = &mut self.processes[index];
        match said {
            Said::Line(Ok(Line::Ready)) => process.is_ready = true,
            Said::Line(Ok(Line::Tally(tally))) => process.tally = tally,
            Said::Line(Ok(Line::Trouble(sentence)) | Err(sentence)) => return Happening::Trouble(sentence),
            Said::End => {
                process.has_ended = true;
                let Tally { connected, closed, .. } = process.tally;
                let how = wait(&mut process.child).map_or("closed its output".to_owned(), death);
                return Happening::Death(format!(
                    "client process {} of {count} (process id {}) {how} while it held {} connections",
                    index + 1,
                    process.child.id(),
                    connected.saturating_sub(closed)
                ));
            }
        }
        Happening::Told
    }

    /// The sum over all processes.
    pub fn tally(&self) -> Tally {
        self.processes.iter().fold(Tally::default(), |sum, process| sum.plus(process.tally))
    }

    /// Ends all processes: by the end of their input, and by SIGKILL where that is not heard.
    pub fn end(mut self) {
        for process in &mut self.processes {
            process.standard_input = None;
        }
        for process in self.processes.iter_mut().filter(|process| !process.has_ended) {
            if wait(&mut process.child).is_none() {
                // Both fail only for a process that has ended.
                let _ = process.child.kill();
                let _ = process.child.wait();
            }
        }
    }
}

/// Waits a bounded time for a process that is about to end.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + END_MAX;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}

fn death(status: ExitStatus) -> String {
    match status.signal() {
        Some(number) => {
            let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
            format!("was killed by {name} (signal {number})")
        }
        None => format!("ended with exit status {}", status.code().unwrap_or(-1)),
    }
}

/// Sockets of one process at most: below the 20,000 descriptors that some systems allow.
const CLIENTS_PER_PROCESS_MAX: u32 = 19_000;

/// Descriptors of a process that are no connections.
const DESCRIPTORS_KEPT: u64 = 32;

/// Connections are spread over at least so many processes.
const PROCESSES_MIN: u32 = 4;

/// The first server port; the others follow.
const FIRST_PORT: u16 = 7_000;

/// A reader thread holds one line.
const READER_STACK_BYTES: usize = 128 * 1024;

/// How long a process may take to end.
const END_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_room_for_all() {
        for (clients, descriptors) in [(1, 1024), (200, 1024), (10_000, 20_000), (100_000, 20_000), (100_000, 1024)] {
            let plan = Plan::new(clients, 3, 64, descriptors);
            let shares: Vec<u32> = (0..plan.processes).map(|index| plan.share(index)).collect();
            assert_eq!(shares.iter().sum::<u32>(), clients);
            assert!(shares.iter().all(|share| u64::from(*share) + 16 < descriptors && *share <= 19_000 && *share > 0));
            assert_eq!(plan.ports().len(), shares.len());
        }
    }

    #[test]
    fn a_death_names_its_signal() {
        assert_eq!(death(ExitStatus::from_raw(9)), "was killed by SIGKILL (signal 9)");
        assert_eq!(death(ExitStatus::from_raw(1 << 8)), "ended with exit status 1");
    }
}
