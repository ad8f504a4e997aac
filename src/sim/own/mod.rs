//! A client machine whose TCP is our own: a second shard that opens its connections.
//!
//! It sends selective acknowledgments and timestamps and finds losses as the node does, so that recovery is played from
//! both sides. Its initial sequence numbers are its shard's; its clock begins where the first connection that wants so
//! has them near the wrap.
//!
//! Invariant: an application judges nothing, and knows nothing of the node but its address.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use strum::{EnumCount, IntoEnumIterator};

use crate::shard::{
    Capacity, CloseHow, CloseReason, Config, CongestionControl, Ecn, FlowId, Notice, Push, PushError, Rule, Shard,
    State, Storage, Ticket, Time,
};

use super::application::tag;
use super::client::{Progress, Sight, address, ends, prefix, server};
use super::clock::Clock;
use super::invariants::Invariants;
use super::network::Port;
use super::node::{not_started, panicked};
use super::pattern::{self, Stream};
use super::profile::{ClientParameters, ConnectionParameters, Ending};
use super::report::Breach;
use guest::{Event, Guest, Heard};

mod guest;

/// The machine.
pub(super) struct OwnClient {
    shard: Shard<Guest>,
    clock: Clock,
    heard: Rc<RefCell<Heard>>,
    seats: Vec<Seat>,
    inbox: Vec<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
    invariants: Invariants,
    /// When the shard wants to be called.
    deadline_us: Option<u64>,
}

/// One connection's application.
struct Seat {
    progress: Progress,
    parameters: ConnectionParameters,
    is_successor: bool,
    seed: u64,
    flow: Option<FlowId>,
    has_ended: bool,
    write_from_us: u64,
    read_from_us: u64,
}

/// A client waits for as long as a world takes.
const PATIENCE_S: u32 = 20_000;
/// How long it waits where its shard has no room for a write.
const NO_ROOM_US: u64 = 10_000;
const US_PER_NUMBER: u64 = 4;

impl OwnClient {
    /// The client of this index; its connections are numbered from `first_number` on.
    pub(super) fn new(
        index: usize,
        parameters: &ClientParameters,
        seed: u64,
        first_number: usize,
    ) -> Result<OwnClient, Breach> {
        let ends = ends(index, parameters, first_number);
        let seats: Vec<Seat> = (first_number..)
            .zip(ends)
            .zip(&parameters.connections)
            .map(|((number, (local, is_successor)), connection)| Seat {
                progress: Progress::new(number, local),
                parameters: connection.clone(),
                is_successor,
                seed,
                flow: None,
                has_ended: false,
                write_from_us: connection.start_us,
                read_from_us: connection.start_us,
            })
            .collect();
        let heard = Rc::new(RefCell::new(Heard::default()));
        let capacity = Capacity { flows: 16, actives: 16, spans: 1 << 14, blocks: 1 << 12 };
        let storage = Storage::in_memory(capacity).map_err(|error| not_started(&error))?;
        let mut secret = [0xc3; 32];
        secret[..8].copy_from_slice(&parameters.isn_seed.to_le_bytes());
        let guest = Guest { heard: Rc::clone(&heard) };
        let shard = Shard::new(config(index, parameters), storage, guest, secret, Time(0));
        let shard = shard.map_err(|error| not_started(&error))?;
        let clock = Clock::new(clock_offset_us(&shard, &seats, parameters.isn_seed), &[]);
        Ok(OwnClient {
            shard,
            clock,
            heard,
            seats,
            inbox: Vec::new(),
            outbox: Vec::new(),
            invariants: Invariants::default(),
            deadline_us: None,
        })
    }

    /// A frame has arrived.
    pub(super) fn arrive(&mut self, frame: Vec<u8>) {
        self.inbox.push(frame);
    }

    /// The frames sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    /// From now on nobody reads or writes slowly.
    pub(super) fn heal(&mut self) {
        for seat in &mut self.seats {
            seat.parameters.read.1 = 0;
            seat.parameters.write.1 = 0;
            seat.read_from_us = 0;
            seat.write_from_us = 0;
        }
    }

    /// What the applications have done.
    pub(super) fn progress(&self) -> Vec<Progress> {
        self.seats.iter().map(|seat| seat.progress).collect()
    }

    /// How often each rule decided.
    pub(super) fn rules(&self) -> [u64; Rule::COUNT] {
        let mut rules = [0; Rule::COUNT];
        Rule::iter().zip(&mut rules).for_each(|(rule, count)| *count = self.shard.rule_count(rule));
        rules
    }

    /// When to call `step` next, if nothing arrives.
    pub(super) fn wake_us(&self, now_us: u64) -> Option<u64> {
        let seats_us = self.seats.iter().filter_map(|seat| self.seat_wake_us(seat, now_us));
        seats_us.chain(self.deadline_us).min()
    }

    fn seat_wake_us(&self, seat: &Seat, now_us: u64) -> Option<u64> {
        if seat.progress.is_over {
            return None;
        }
        if !seat.progress.is_begun {
            // Later than that it waits for its port, which it has when the connection before it has gone.
            return Some(seat.parameters.start_us).filter(|&at_us| at_us > now_us);
        }
        let write_us = (seat.unwritten_bytes() > 0 && seat.progress.is_established).then_some(seat.write_from_us);
        let end_us = match seat.parameters.ending {
            Ending::ClientReset(at_us) => Some(at_us),
            Ending::ClientFin(at_us) if !seat.progress.is_closed => Some(at_us),
            Ending::ClientFin(_) | Ending::ServerFin(_) | Ending::ServerReset(_) => None,
        };
        [write_us, Some(seat.read_from_us), end_us].into_iter().flatten().filter(|&at_us| at_us > now_us).min()
    }

    /// Lets TCP and applications run.
    pub(super) fn step(&mut self, now_us: u64, sights: &mut Vec<(usize, Sight)>) -> Result<(), Breach> {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.run(now_us, sights)));
        stepped.map_err(|payload| panicked(&*payload))?;
        self.deadline_us = self.shard.next_deadline().map(|deadline| self.clock.world_us(deadline));
        // It is called several times in a step.
        self.invariants.check(&self.shard, self.clock.at(now_us), false, |_| None)
    }

    fn run(&mut self, now_us: u64, sights: &mut Vec<(usize, Sight)>) {
        let now = self.clock.at(now_us);
        let inbox = std::mem::take(&mut self.inbox);
        let frames: Vec<&[u8]> = inbox.iter().map(Vec::as_slice).collect();
        self.shard.receive(now, &frames);
        if self.shard.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.shard.tick(now);
        }
        loop {
            self.hear(sights);
            let mut has_acted = false;
            for index in 0..self.seats.len() {
                has_acted |= self.act(index, now_us, sights);
            }
            if !has_acted {
                break;
            }
        }
        let outbox = &mut self.outbox;
        self.shard.transmit(|frame| {
            outbox.push(frame.to_vec());
            true
        });
    }

    fn hear(&mut self, sights: &mut Vec<(usize, Sight)>) {
        let events = std::mem::take(&mut self.heard.borrow_mut().events);
        for (flow, event) in events {
            let Some(seat) = self.seats.iter_mut().find(|seat| seat.flow == Some(flow)) else { continue };
            sights.extend(seat.on_event(event).map(|sight| (seat.progress.number, sight)));
        }
        let seats = &self.seats;
        self.shard.drain_notices(|notice| {
            if let Notice::Delivered { flow, ticket } = notice
                && let Some(seat) = seats.iter().find(|seat| seat.flow == Some(flow))
            {
                sights.push((seat.progress.number, Sight::Delivered(ticket.0)));
            }
        });
    }

    /// Does one thing after the other as far as the time allows; true if there may be more to do.
    fn act(&mut self, index: usize, now_us: u64, sights: &mut Vec<(usize, Sight)>) -> bool {
        let now = self.clock.at(now_us);
        let seat = &self.seats[index];
        if seat.progress.is_over {
            return false;
        }
        let Some(flow) = seat.flow else { return self.begin(index, now_us) };
        if let Ending::ClientReset(at_us) = seat.parameters.ending
            && now_us >= at_us
        {
            let seat = &mut self.seats[index];
            seat.progress.is_aborted = true;
            seat.progress.is_over = true;
            let _ = self.shard.close(now, flow, CloseHow::Reset);
            return true;
        }
        if self.write(index, flow, now_us) || self.read(index, flow, now_us) || self.close(index, flow, now_us) {
            return true;
        }
        let seat = &mut self.seats[index];
        let is_waiting_out = self.shard.flow(now, flow).is_some_and(|view| view.state == State::TimeWait);
        if is_waiting_out && seat.has_ended && seat.progress.is_closed {
            seat.progress.is_over = true;
            sights.push((seat.progress.number, Sight::Finished));
        }
        false
    }

    fn begin(&mut self, index: usize, now_us: u64) -> bool {
        let seat = &self.seats[index];
        let is_port_free = !seat.is_successor || {
            let before = &self.seats[index - 1];
            let is_gone = before.flow.is_none_or(|flow| self.shard.flow(self.clock.at(now_us), flow).is_none());
            before.progress.is_over && is_gone
        };
        if now_us < seat.parameters.start_us || !is_port_free {
            return false;
        }
        let local = seat.progress.local;
        let connected = self.shard.connect(self.clock.at(now_us), Some(local.ip()), local.port(), server(local));
        let flow = connected.expect("there is room for a connection whose port is free");
        let seat = &mut self.seats[index];
        seat.progress.is_begun = true;
        seat.flow = Some(flow);
        self.heard.borrow_mut().appetites.insert(flow, seat.bytes_at_once());
        true
    }

    fn write(&mut self, index: usize, flow: FlowId, now_us: u64) -> bool {
        let now = self.clock.at(now_us);
        let seat = &mut self.seats[index];
        let (bytes_at_once, pause_us) = seat.parameters.write;
        let rest = seat.unwritten_bytes() as usize;
        if rest == 0 || now_us < seat.write_from_us || !seat.progress.is_established {
            return false;
        }
        let Some(view) = self.shard.flow(now, flow) else { return false };
        let room = seat.parameters.buffers_bytes.1.saturating_sub(view.unacked_bytes as usize);
        let count = bytes_at_once.min(rest).min(room);
        if count == 0 {
            return false;
        }
        let mut bytes = vec![0; count];
        let offset = seat.progress.written_bytes;
        pattern::fill(seat.seed, Stream::FromClient(seat.progress.number), offset, &mut bytes);
        if offset == 0 {
            bytes[0] = tag(seat.progress.number, seat.parameters.workload);
        }
        // A ticket is how much has been delivered when it is.
        let push = Push::new(flow, Ticket(offset + count as u64), &bytes);
        let mut refusal = None;
        self.shard.push(now, &[push]);
        self.shard.drain_notices(|notice| match notice {
            Notice::Refused { error, .. } => refusal = Some(error),
            Notice::Delivered { .. } => unreachable!("all notices were heard before the push"),
            _ => {}
        });
        match refusal {
            None => {
                seat.progress.written_bytes += count as u64;
                seat.write_from_us = now_us + pause_us;
            }
            Some(PushError::ShardFull) => seat.write_from_us = now_us + NO_ROOM_US,
            Some(_) => return false,
        }
        true
    }

    fn read(&mut self, index: usize, flow: FlowId, now_us: u64) -> bool {
        let seat = &mut self.seats[index];
        let is_full = self.heard.borrow().appetites.get(&flow).is_none_or(|&left| left > 0);
        if is_full || now_us < seat.read_from_us {
            return false;
        }
        seat.read_from_us = now_us + seat.parameters.read.1;
        self.heard.borrow_mut().appetites.insert(flow, seat.bytes_at_once());
        self.shard.offer(self.clock.at(now_us), flow);
        self.shard.drain_notices(|_| {});
        true
    }

    fn close(&mut self, index: usize, flow: FlowId, now_us: u64) -> bool {
        let seat = &mut self.seats[index];
        let is_time = seat.parameters.is_client_to_close(now_us);
        let wants_to_close = seat.has_ended || (is_time && seat.unwritten_bytes() == 0);
        if seat.progress.is_closed || !seat.progress.is_established || !wants_to_close {
            return false;
        }
        seat.progress.is_closed = true;
        let _ = self.shard.close(self.clock.at(now_us), flow, CloseHow::Half);
        true
    }
}

impl Seat {
    fn unwritten_bytes(&self) -> u64 {
        let is_done = self.progress.is_closed || self.has_ended;
        if is_done { 0 } else { self.parameters.send_bytes - self.progress.written_bytes }
    }

    /// How much it reads until it is time to read again.
    fn bytes_at_once(&self) -> usize {
        let (bytes, pause_us) = self.parameters.read;
        if pause_us == 0 { usize::MAX } else { bytes }
    }

    fn on_event(&mut self, event: Event) -> Option<Sight> {
        match event {
            Event::Opened => {
                self.progress.is_established = true;
                Some(Sight::Established)
            }
            Event::Bytes(bytes) => Some(Sight::Bytes(bytes)),
            Event::End => {
                self.has_ended = true;
                Some(Sight::End)
            }
            Event::Closed(_) if self.progress.is_over => None,
            Event::Closed(reason) => {
                self.progress.is_over = true;
                let is_finished = self.has_ended && self.progress.is_closed;
                // As often as a SYN is repeated, all of them may be lost.
                let has_given_up = !self.progress.is_established && reason == CloseReason::TimedOut;
                (!has_given_up).then_some(if is_finished { Sight::Finished } else { Sight::Reset })
            }
        }
    }
}

fn config(index: usize, parameters: &ClientParameters) -> Config {
    const NOBODY_LISTENS: u16 = 1;
    let connections = &parameters.connections;
    let largest = |of: fn(&ConnectionParameters) -> usize| connections.iter().map(of).max().unwrap_or(0) as u32;
    let (address, first) = (address(index, parameters), &connections[0]);
    Config {
        mac: Port::Client(index).mac(),
        mtu: parameters.mtu,
        window_bytes: largest(|it| it.buffers_bytes.0),
        send_queue_bytes: largest(|it| it.buffers_bytes.1),
        nagle: first.is_nagle,
        delayed_ack_ms: if first.is_ack_delayed { 40 } else { 0 },
        congestion: if parameters.isn_seed.is_multiple_of(2) {
            CongestionControl::Cubic
        } else {
            CongestionControl::NewReno
        },
        ecn: if parameters.is_asking_ecn { Ecn::Asks } else { Ecn::Answers },
        user_timeout_s: PATIENCE_S,
        fin_wait_2_s: PATIENCE_S,
        time_wait_s: 10,
        ..Config::new(address, prefix(address), &[NOBODY_LISTENS])
    }
}

/// What the client's clock shows when the world begins.
fn clock_offset_us(shard: &Shard<Guest>, seats: &[Seat], isn_seed: u64) -> u64 {
    let wanted = seats.iter().find_map(|seat| Some((seat, seat.parameters.isn_before_wrap?)));
    let Some((seat, before)) = wanted else { return isn_seed >> 22 };
    let start = Time(seat.parameters.start_us);
    let isn = shard.initial_sequence_number(seat.progress.local, server(seat.progress.local), start);
    u64::from(before.wrapping_neg().wrapping_sub(isn)) * US_PER_NUMBER
}
