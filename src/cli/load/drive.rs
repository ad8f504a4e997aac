//! The drive: one thread that opens connections, has clients send, and closes what it opened.
//!
//! ```text
//! open, at a rate -> stay, messages in turns -> wait for what is under way -> close, at the rate -> the account
//! ```
//!
//! Messages begin with the first connection. What the shard has no room for is tried again; what is late is sent late,
//! and waits are reckoned from when it was due.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use holdline::link::{Link, wait_readable};
use holdline::server::Clock;
use holdline::shard::{CloseHow, Config, ConnectError, Notice, Push, Rule, Shard, Storage, Ticket, Time};

use super::super::memory::Memory;
use super::Arguments;
use super::clients::{Clients, Schedule, Tally};

/// Ports that a client may have.
pub const PORTS: Range<u16> = 1_536..65_535;
/// Of each kind of work so much is done before frames are looked after again.
const AT_ONCE: usize = 64;
/// How long answers are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How long a connection is waited for where none is opened and none fails: its SYN goes five times in this time.
const OPENING_PATIENCE: Duration = Duration::from_secs(40);
/// Connections that are being opened, at most: what a server has room for, and each of ours has an active block.
const OPENING_MAX: u32 = 4_096;
const NAP_MAX: Duration = Duration::from_millis(1);

/// What a run came to.
pub struct Figures {
    pub tally: Tally,
    /// From the first one asked for until the last one was open or had failed.
    pub opening: Duration,
    /// By how much this process grew meanwhile, for each that was opened.
    pub bytes_per_client: f64,
    /// Of those still open at the end, connections that were closed.
    pub told_to_close: u32,
    /// Messages that never came back, though their connections stayed.
    pub missing: u64,
    /// Time-outs after which something was sent again.
    pub time_outs: u64,
    /// Frames that the link lost.
    pub frames_lost: u64,
}

/// See the module.
pub struct Drive {
    /// What this process held before there was anything of the clients.
    before: Memory,
    shard: Shard<Clients>,
    link: Box<dyn Link>,
    clock: Clock,
    addresses: Vec<IpAddr>,
    to: SocketAddr,
    clients: u32,
    rate: u32,
    stay: Duration,
    asked: u32,
    /// The next turn.
    round: u32,
    slot: u32,
    messages: Vec<u8>,
}

impl Drive {
    /// Of clients with these addresses, over a link and an empty storage, nothing opened.
    pub fn new(
        arguments: &Arguments,
        addresses: Vec<IpAddr>,
        config: Config,
        mut storage: Storage,
        link: Box<dyn Link>,
    ) -> Result<Drive, Box<dyn std::error::Error>> {
        let before = Memory::now()?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let clock = Clock::start(std::slice::from_mut(&mut storage));
        let schedule = Schedule {
            begun: clock.now(),
            every: Duration::from_secs(arguments.every.into()),
            clients: arguments.clients,
            bytes: arguments.echo.unwrap_or(0) as usize,
        };
        let mut shard = Shard::new(config, storage, Clients::new(schedule), secret, clock.now())?;
        shard.refuse_new();
        Ok(Drive {
            before,
            shard,
            link,
            clock,
            addresses,
            to: arguments.to,
            clients: arguments.clients,
            rate: arguments.rate,
            stay: Duration::from_secs(arguments.seconds.into()),
            asked: 0,
            round: 0,
            slot: 0,
            messages: Vec::new(),
        })
    }

    /// Runs from the first connection to the last close.
    pub fn run(&mut self) -> Result<Figures, Box<dyn std::error::Error>> {
        let begun = Instant::now();
        let (mut settled, mut settled_at) = (0, begun);
        while self.asked < self.clients || self.opening() > 0 {
            if self.asked - self.opening() != settled {
                (settled, settled_at) = (self.asked - self.opening(), Instant::now());
            } else if settled_at.elapsed() > OPENING_PATIENCE {
                break;
            }
            let due = ((begun.elapsed().as_secs_f64() * f64::from(self.rate)) as u32).saturating_add(1);
            self.connect(due.min(self.clients))?;
            self.send_due();
            self.pass()?;
        }
        let opening = begun.elapsed();
        let opened = self.shard.service().tally.opened;
        let (bytes_per_client, _) = Memory::now()?.growth_per(self.before, opened.into());
        let until = Instant::now() + self.stay;
        while Instant::now() < until {
            self.send_due();
            self.pass()?;
        }
        let until = Instant::now() + LAST_ANSWERS;
        while Instant::now() < until && self.shard.service().under_way() > 0 {
            self.pass()?;
        }
        let missing = self.shard.service().under_way();
        let told_to_close = self.close_all()?;
        Ok(Figures {
            tally: self.shard.service().tally.clone(),
            opening,
            bytes_per_client,
            told_to_close,
            missing,
            time_outs: self.shard.rule_count(Rule::RetransmissionTimeout),
            frames_lost: self.link.frames_lost(),
        })
    }

    /// Connections that are neither open nor given up.
    fn opening(&self) -> u32 {
        let tally = &self.shard.service().tally;
        let failed: u32 = tally.failed.iter().map(|(_, count)| count).sum();
        self.asked - tally.opened - failed
    }

    /// Asks for connections, up to so many in all.
    fn connect(&mut self, due: u32) -> Result<(), Box<dyn std::error::Error>> {
        for _ in 0..AT_ONCE {
            if self.asked >= due || self.opening() >= OPENING_MAX {
                return Ok(());
            }
            let local = self.addresses[self.asked as usize % self.addresses.len()];
            let port = PORTS.start + (self.asked as usize / self.addresses.len()) as u16;
            let now = self.now();
            match self.shard.connect(now, Some(local), port, self.to) {
                Ok(_) => self.asked += 1,
                Err(ConnectError::NoRoom) => return Ok(()),
                Err(error) => return Err(format!("cannot connect to {}: {error}", self.to).into()),
            }
        }
        Ok(())
    }

    /// Has those clients send whose turn has come.
    fn send_due(&mut self) {
        let schedule = self.shard.service().schedule;
        if schedule.bytes == 0 {
            return;
        }
        let now = self.now();
        self.messages.clear();
        let mut flows = Vec::with_capacity(AT_ONCE);
        while flows.len() < AT_ONCE && schedule.due(self.round, self.slot) <= now {
            let (round, slot) = (self.round, self.slot);
            (self.round, self.slot) = if slot + 1 < self.clients { (round, slot + 1) } else { (round + 1, 0) };
            if let Some(flow) = self.shard.service_mut().begin(round, slot) {
                schedule.write(round, slot, 0..schedule.bytes, &mut self.messages);
                flows.push(flow);
            }
        }
        let messages = self.messages.chunks(schedule.bytes);
        let pushes: Vec<Push<'_>> =
            flows.iter().zip(messages).map(|(&flow, message)| Push::new(flow, Ticket::NONE, message)).collect();
        self.shard.push(now, &pushes);
        let mut refused = Vec::new();
        self.shard.drain_notices(|notice| {
            if let Notice::Refused { flow, .. } = notice {
                refused.push(flow.slot());
            }
        });
        for slot in refused {
            self.shard.service_mut().take_back(slot);
        }
    }

    /// Closes what is open, and waits until the other end has closed too. Returns how many there were.
    fn close_all(&mut self) -> Result<u32, Box<dyn std::error::Error>> {
        self.shard.service_mut().is_closing = true;
        let begun = Instant::now();
        let mut told = 0;
        for slot in 0..self.clients {
            let Some(flow) = self.shard.service().flow(slot) else { continue };
            while f64::from(told) > begun.elapsed().as_secs_f64() * f64::from(self.rate) {
                self.pass()?;
            }
            let now = self.now();
            told += u32::from(self.shard.close(now, flow, CloseHow::Half).is_ok());
            if (told as usize).is_multiple_of(AT_ONCE) {
                self.pass()?;
            }
        }
        let until = Instant::now() + LAST_ANSWERS;
        while Instant::now() < until && self.shard.service().tally.closed < told {
            self.pass()?;
        }
        Ok(told)
    }

    /// The time, which the clients are told of.
    fn now(&mut self) -> Time {
        let now = self.clock.now();
        self.shard.service_mut().now = now;
        now
    }

    /// Takes in what has arrived and lets out what is ready; sleeps a little where there was neither.
    fn pass(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let now = self.now();
        let frames = self.link.receive()?;
        let is_quiet = frames.is_empty();
        self.shard.receive(now, &frames);
        if self.shard.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.shard.tick(now);
        }
        let (link, mut failure) = (&mut self.link, None);
        self.shard.transmit(|frame| {
            link.send(frame).unwrap_or_else(|error| {
                failure = Some(error);
                false
            })
        });
        self.shard.drain_notices(drop);
        if let Some(error) = failure.or(self.link.flush().err()) {
            return Err(format!("the link failed: {error}").into());
        }
        if is_quiet {
            match self.link.descriptor() {
                Some(descriptor) => {
                    wait_readable([descriptor], Some(NAP_MAX))?;
                }
                None => std::thread::sleep(NAP_MAX),
            }
        }
        Ok(())
    }
}
