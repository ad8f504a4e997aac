//! The demo's course: let clients connect, push to every one in each round, wait for receipts, compare.
//!
//! In: notices of the server, lines of the client processes. Out: pushes, progress, `Figures` and troubles.
//!
//! Invariant: every wait has an end. What is not there by then is a trouble, told with its number.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam::channel::select;
use holdline::server::{Histogram, Pusher, Server};
use holdline::shard::{FlowId, Notice, PushError};

use super::super::memory::Memory;
use super::super::progress::{Progress, grouped};
use super::crew::{Crew, Happening, Plan, Said};
use super::lines::Tally;
use super::payload::Payload;
use super::seats::{SeatState, Seats};

/// What the demo has measured.
pub struct Figures {
    /// Memory before any connection, with all of them idle, and after the pushes.
    pub memory: [Memory; 3],
    /// Connections that both ends know as established.
    pub connected: u32,
    /// Connections that could not be established, or ended before the demo did.
    pub failed: u32,
    /// Pushes that were handed over and not refused.
    pub pushes: u64,
    /// Pushes whose last byte the client's TCP has acknowledged.
    pub delivered: u64,
    /// Bytes that clients received, and how many of them were wrong.
    pub bytes: u64,
    /// See `bytes`.
    pub wrong_bytes: u64,
    /// How long it took to connect all.
    pub setup: Duration,
    /// How long the pushes took, without the pauses between the rounds.
    pub pushing: Duration,
    /// From the hand-over of a push to its receipt.
    pub latencies: Histogram,
}

/// The demo while it runs.
pub struct Drive<'a> {
    plan: Plan,
    server: &'a Server,
    pusher: Pusher,
    crew: &'a mut Crew,
    seats: Seats,
    progress: Progress,
    began: Instant,
    buffer: Vec<u8>,
    again: Vec<FlowId>,
    in_flight: usize,
    closed: u32,
    pushes: u64,
    delivered: u64,
    latencies: Histogram,
    troubles: Vec<String>,
    is_over: bool,
}

impl<'a> Drive<'a> {
    /// For a server whose table has `slots`.
    pub fn new(plan: Plan, slots: u32, server: &'a Server, crew: &'a mut Crew) -> Drive<'a> {
        Drive {
            plan,
            server,
            pusher: server.pusher(),
            crew,
            seats: Seats::new(slots, plan.clients),
            progress: Progress::new(),
            began: Instant::now(),
            buffer: vec![0; plan.payload_bytes],
            again: Vec::with_capacity(IN_FLIGHT_MAX),
            in_flight: 0,
            closed: 0,
            pushes: 0,
            delivered: 0,
            latencies: Histogram::default(),
            troubles: Vec::new(),
            is_over: false,
        }
    }

    /// Runs the whole course, with a rest of `rest_s` seconds before the last reading of memory. Troubles are
    /// sentences, the gravest first; none: all is well.
    pub fn run(mut self, rest_s: u32) -> std::io::Result<(Figures, Vec<String>)> {
        self.wait_for(READY_MAX, Crew::is_ready, |_, _| "client processes are not ready".to_owned());
        let before = Memory::now()?;
        let setup = self.set_up();
        let idle = Memory::now()?;
        let mut pushing = Duration::ZERO;
        for round in 0..self.plan.rounds {
            if !self.is_over {
                pushing += self.push_round(round);
            }
        }
        self.settle();
        self.rest(rest_s);
        let after = Memory::now()?;
        let Tally { connected, failed, bytes, wrong_bytes, .. } = self.crew.tally();
        let opened = u32::try_from(self.seats.opened()).unwrap_or(u32::MAX);
        let connected = connected.min(opened);
        let missing = self.plan.clients - connected.min(self.plan.clients);
        let figures = Figures {
            memory: [before, idle, after],
            connected,
            failed: missing.max(failed) + self.closed,
            pushes: self.pushes,
            delivered: self.delivered,
            bytes,
            wrong_bytes,
            setup,
            pushing,
            latencies: self.latencies,
        };
        Ok((figures, self.troubles))
    }

    /// Lets the clients connect, and waits until each is known as connected at both ends or has failed.
    fn set_up(&mut self) -> Duration {
        let began = Instant::now();
        self.crew.begin();
        let clients = self.plan.clients;
        let bound = PATIENCE + Duration::from_millis(u64::from(clients) / 2);
        while !self.is_over {
            let tally = self.crew.tally();
            let established = tally.connected.min(u32::try_from(self.seats.opened()).unwrap_or(u32::MAX));
            if established + tally.failed >= clients {
                break;
            }
            if began.elapsed() >= bound {
                let missing = clients - established;
                self.give_up(format!(
                    "after {} s {missing} of {clients} connections were not established",
                    bound.as_secs()
                ));
                break;
            }
            self.progress.show(|| format!("connected {} of {}", grouped(established.into()), grouped(clients.into())));
            self.pump(GLANCE);
        }
        let took = began.elapsed();
        let opened = grouped(self.seats.opened() as u64);
        self.progress.finish(format!(
            "connected {opened} of {} in {:.2} s",
            grouped(clients.into()),
            took.as_secs_f64()
        ));
        took
    }

    /// Pushes to every connection once, and waits for every receipt.
    fn push_round(&mut self, round: u32) -> Duration {
        let began = Instant::now();
        let bound = PATIENCE + Duration::from_millis(self.seats.opened() as u64);
        let delivered_before = self.delivered;
        let (number, rounds) = (round + 1, self.plan.rounds);
        let mut next = 0;
        while !self.is_over {
            let has_pushed = self.push_some(round, &mut next);
            if !has_pushed && self.in_flight == 0 && self.again.is_empty() && next >= self.seats.opened() {
                break;
            }
            if began.elapsed() >= bound {
                let missing = self.in_flight + self.again.len() + self.seats.opened() - next;
                let of = self.seats.opened();
                self.give_up(format!(
                    "after {} s {missing} of {of} pushes of round {number} were not acknowledged",
                    bound.as_secs()
                ));
                break;
            }
            let delivered = self.delivered - delivered_before;
            let of = self.seats.opened() as u64;
            self.progress
                .show(|| format!("round {number} of {rounds}: {} of {} delivered", grouped(delivered), grouped(of)));
            self.pump(GLANCE);
        }
        let took = began.elapsed();
        let delivered = grouped(self.delivered - delivered_before);
        self.progress
            .finish(format!("round {number} of {rounds}: {delivered} delivered in {:.2} s", took.as_secs_f64()));
        took
    }

    /// Hands over pushes until enough are under way: first those that found no room before.
    fn push_some(&mut self, round: u32, next: &mut usize) -> bool {
        let mut has_pushed = false;
        while self.in_flight < IN_FLIGHT_MAX {
            let flow = match self.again.pop() {
                Some(flow) => flow,
                None if *next < self.seats.opened() => {
                    let seat = self.seats.nth(*next);
                    *next += 1;
                    let Some(seat) = seat else {
                        continue;
                    };
                    seat.flow
                }
                None => break,
            };
            let now_us = self.now_us();
            let Some(seat) = self.seats.seat(flow) else {
                continue;
            };
            seat.payload.fill(round, 0, &mut self.buffer);
            match self.pusher.push(flow, &self.buffer) {
                Ok(_) => {
                    seat.pushed_at_us = now_us;
                    seat.state = SeatState::Pushed;
                    self.in_flight += 1;
                    self.pushes += 1;
                    has_pushed = true;
                }
                Err(PushError::ShardFull) => {
                    self.again.push(flow);
                    break;
                }
                Err(error) => {
                    self.give_up(format!("a push was refused: {error}"));
                    break;
                }
            }
        }
        has_pushed
    }

    /// Waits until the clients have received everything that was acknowledged.
    fn settle(&mut self) {
        let expected = self.delivered * self.plan.payload_bytes as u64;
        self.wait_for(
            SETTLE_MAX,
            move |crew| crew.tally().bytes >= expected,
            move |crew, bound| {
                let received = crew.tally().bytes;
                format!("after {} s clients had received {received} of {expected} bytes", bound.as_secs())
            },
        );
        if self.closed > 0 && !self.is_over {
            // If a process has died, its end explains the closed connections.
            let until = Instant::now() + GLANCE * 4;
            while Instant::now() < until && !self.is_over {
                self.pump(GLANCE);
            }
        }
        let lost = self.server.notices_lost();
        if lost > 0 {
            self.troubles.push(format!("{lost} notices of the server were lost because the demo was too slow"));
        }
    }

    /// Leaves all connections alone for a while.
    fn rest(&mut self, rest_s: u32) {
        let began = Instant::now();
        while !self.is_over && began.elapsed() < Duration::from_secs(rest_s.into()) {
            self.progress.show(|| format!("rested {} of {rest_s} s", began.elapsed().as_secs()));
            self.pump(GLANCE);
        }
        if rest_s > 0 {
            self.progress.finish(format!("rested {rest_s} s"));
        }
    }

    fn wait_for(
        &mut self,
        bound: Duration,
        is_done: impl Fn(&Crew) -> bool,
        complaint: impl Fn(&Crew, Duration) -> String,
    ) {
        let began = Instant::now();
        while !self.is_over && !is_done(self.crew) {
            if began.elapsed() >= bound {
                let sentence = complaint(self.crew, bound);
                self.give_up(sentence);
                return;
            }
            self.pump(GLANCE);
        }
    }

    /// Takes in what has been said and noticed; waits up to `patience` where there is nothing.
    fn pump(&mut self, patience: Duration) {
        let (server, lines) = (self.server, self.crew.lines().clone());
        let notices = server.notices();
        let mut is_first = true;
        for notice in notices.try_iter().take(PUMP_MAX) {
            is_first = false;
            self.on_notice(notice);
        }
        for (index, said) in lines.try_iter().take(PUMP_MAX) {
            is_first = false;
            self.on_said(index, said);
        }
        if is_first {
            select! {
                recv(notices) -> notice => match notice {
                    Ok(notice) => self.on_notice(notice),
                    Err(_) => self.give_up("the server has stopped by itself".to_owned()),
                },
                recv(lines) -> line => if let Ok((index, said)) = line {
                    self.on_said(index, said);
                },
                default(patience) => {}
            }
        }
    }

    fn on_said(&mut self, index: usize, said: Said) {
        match self.crew.on_said(index, said) {
            Happening::Told => {}
            Happening::Trouble(sentence) => self.troubles.push(sentence),
            Happening::Death(sentence) => self.give_up(sentence),
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        let now_us = self.now_us();
        match notice {
            Notice::Opened { flow, local, remote } => self.on_opened(flow, local, remote),
            Notice::Delivered { flow, .. } => match self.seats.seat(flow) {
                Some(seat) if seat.state == SeatState::Pushed => {
                    seat.state = SeatState::Quiet;
                    self.latencies.record(Duration::from_micros(now_us.saturating_sub(seat.pushed_at_us)));
                    self.in_flight -= 1;
                    self.delivered += 1;
                }
                _ => self.troubles.push(format!("a receipt came for {flow}, which nothing was pushed to")),
            },
            Notice::Refused { flow, error, .. } => self.on_refused(flow, error),
            Notice::Closed { flow, reason } => {
                if let Some(seat) = self.seats.seat(flow) {
                    self.in_flight -= usize::from(seat.state == SeatState::Pushed);
                    seat.state = SeatState::Empty;
                    self.closed += 1;
                    if self.closed == 1 {
                        self.troubles.push(format!("connection {flow} ended before the demo did ({reason})"));
                    }
                }
            }
            // The clients check what they received; the demo waits for receipts only.
            _ => {}
        }
    }

    fn on_opened(&mut self, flow: FlowId, local: SocketAddr, remote: SocketAddr) {
        if !self.seats.open(flow, Payload::new(remote, local.port())) {
            self.give_up(format!("more connections than clients: {remote} to {local}"));
        }
    }

    /// A push found no room and is repeated, or its connection is gone.
    fn on_refused(&mut self, flow: FlowId, error: PushError) {
        let Some(seat) = self.seats.seat(flow).filter(|seat| seat.state == SeatState::Pushed) else {
            return;
        };
        seat.state = SeatState::Quiet;
        self.in_flight -= 1;
        self.pushes -= 1;
        match error {
            PushError::FlowFull | PushError::ShardFull => self.again.push(flow),
            PushError::Unknown | PushError::Gone | PushError::Empty | PushError::TooLarge => {
                self.troubles.push(format!("a push to {flow} was refused: {error}"));
            }
        }
    }

    /// Ends the course; what has led to it is told first.
    fn give_up(&mut self, sentence: String) {
        self.troubles.insert(0, sentence);
        self.is_over = true;
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Pushes under way at once: enough to keep every part busy, few enough that a receipt is not long in the queue.
const IN_FLIGHT_MAX: usize = 128;

/// Notices, and lines, that are taken in before pushes are handed over again.
const PUMP_MAX: usize = 256;

/// The longest wait before progress is looked at again.
const GLANCE: Duration = Duration::from_millis(50);

/// How long client processes may take to start.
const READY_MAX: Duration = Duration::from_secs(10);

/// How long connecting, or a round, may take beyond what the number of clients allows for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the last bytes may take to be read and told of.
const SETTLE_MAX: Duration = Duration::from_secs(10);
