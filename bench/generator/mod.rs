//! The generator: plays the clients of a shard in the same thread.
//!
//! It makes their frames before, and reads the shard's frames after the clock runs. What is timed is the shard alone:
//! frames or pushes in, batches committed, frames handed out.

mod bomb;
mod ends;
mod shape;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

pub use ends::Family;
use ends::{OURS_IPV6, address, ends_of, index_of};
use holdline::shard::{Capacity, Config, FlowId, Notice, Push, Service, Shard, Storage, Ticket, Time};
use holdline::tcp::{Control, Outgoing, SeqNum};
use holdline::wire::{Addressing, Packet, emit_tcp, parse};
pub use shape::Shape;

/// Flows that are visited in one batch.
pub const BATCH: usize = 64;
const PAYLOAD: [u8; 64] = [0x5a; 64];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const FIRST_SEQ: u32 = 1_000;

/// One client of the generator: what it sends and acknowledges next.
#[derive(Clone, Copy)]
struct Client {
    seq: SeqNum,
    ack: SeqNum,
    flow: FlowId,
}

/// A segment of somebody who need not be a client.
#[derive(Clone, Copy)]
pub struct Forged {
    pub remote: u32,
    pub port: u16,
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub control: Control,
    pub bytes: u32,
    pub shape: Shape,
}

/// A shard and its clients.
pub struct Bench<S> {
    pub shard: Shard<S>,
    config: Config,
    clients: Vec<Client>,
    pub now: Time,
    random: u64,
    /// Frames of one batch, back to back, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    sent: Vec<u8>,
    sent_ends: Vec<usize>,
    timed_ns: u64,
    /// How many of the last clients are not pushed to at random.
    spared: usize,
}

fn config() -> Config {
    // ACKs at once: a bench has no time in which they could wait.
    Config { delayed_ack_ms: 0, ..Config::new(Ipv4Addr::new(10, 0, 0, 1), 8, &[7000]) }
}

impl<S: Service> Bench<S> {
    /// A shard with room for so many connections, none open.
    pub fn new(flows: u32, state: Option<&Path>, service: S) -> Bench<S> {
        Bench::over_family(Family::Ipv4, flows, state, service)
    }

    /// The same, over either family. The shard has an address of that one only.
    pub fn over_family(family: Family, flows: u32, state: Option<&Path>, service: S) -> Bench<S> {
        let mut config = Config { half_open_max: u32::MAX, ..config() };
        if family == Family::Ipv6 {
            config.addresses = vec![(OURS_IPV6.into(), 64)];
        }
        let capacity = Capacity::for_connections(flows);
        let storage = match state {
            Some(directory) => Storage::in_directory(directory, capacity),
            None => Storage::in_memory(capacity),
        };
        Bench::over(flows, config, storage.expect("storage"), service)
    }

    fn over(flows: u32, config: Config, storage: Storage, service: S) -> Bench<S> {
        let shard = Shard::new(config.clone(), storage, service, [7; 32], Time(1)).expect("shard");
        let client = Client { seq: SeqNum(FIRST_SEQ), ack: SeqNum(0), flow: FlowId::new(0, 0, 0) };
        Bench {
            shard,
            config,
            clients: vec![client; flows as usize],
            now: Time(1),
            random: 0x9e37_79b9_7f4a_7c15,
            bytes: Vec::new(),
            ends: Vec::new(),
            sent: Vec::with_capacity(1 << 18),
            sent_ends: Vec::with_capacity(1_024),
            timed_ns: 0,
            spared: 0,
        }
    }

    /// A shard as a server has it: the usual bound on half-open connections, and room for many more connections. One
    /// connection more is open, the last, which attacks may use up.
    pub fn attackable(flows: u32, service: S) -> Bench<S> {
        let storage = Storage::in_memory(Capacity::for_connections(1 << 20)).expect("storage");
        Bench { spared: 1, ..Bench::over(flows + 1, config(), storage, service) }
    }

    /// Every client says that its window is closed, and is pushed to all the same.
    pub fn push_to_closed_windows(&mut self) {
        for start in (0..self.clients.len()).step_by(BATCH) {
            let end = (start + BATCH).min(self.clients.len());
            for index in start..end {
                self.queue_with_window(index, Control::ACK, &[], 0);
            }
            self.exchange();
            let to_push = |client: &Client| Push::new(client.flow, Ticket(1), &PAYLOAD);
            let pushes: Vec<Push<'_>> = self.clients[start..end].iter().map(to_push).collect();
            self.shard.push(self.now, &pushes);
            self.shard.drain_notices(|_| ());
        }
    }

    /// A second passes in ticks of 10 ms. Returns the nanoseconds that it took, and how many frames were sent.
    pub fn pass_a_second(&mut self) -> (f64, u64) {
        self.timed_ns = 0;
        let answered = self.answered();
        for _ in 0..100 {
            let began = Instant::now();
            self.finish(began);
            self.now = self.now.plus_ms(10);
        }
        (self.timed_ns as f64, self.answered() - answered)
    }

    /// How many frames the shard has sent.
    pub fn answered(&self) -> u64 {
        self.shard.stats().frames_out
    }

    /// A segment in the name of a client, at its next sequence number.
    pub fn forge(&self, index: usize, control: Control) -> Forged {
        let client = self.clients[index];
        let (remote, port) = ends_of(index);
        Forged { remote, port, seq: client.seq, ack: client.ack, control, bytes: 0, shape: Shape::Segment }
    }

    /// Puts one batch of forged segments into the shard. Returns the nanoseconds that it took.
    pub fn attack(&mut self, forged: &[Forged]) -> f64 {
        self.timed_ns = 0;
        for forged in forged {
            let local = address(Family::Ipv4, forged.remote);
            let ends = Addressing { local, local_port: forged.port, ..self.ends(0) };
            let mut outgoing = Outgoing::bare(forged.seq, forged.ack, forged.control, u16::MAX);
            outgoing.payload_bytes = forged.bytes;
            let payload = &PAYLOAD[..forged.bytes as usize];
            match forged.shape {
                Shape::Segment => {
                    emit_tcp(&mut self.bytes, &ends, &outgoing, |out| out.extend_from_slice(payload));
                }
                Shape::Fragment(number) => shape::write_fragment(&mut self.bytes, &ends, number),
                Shape::TooBig(mtu) => shape::write_too_big(&mut self.bytes, &ends, forged.ack.0, mtu),
            }
            self.ends.push(self.bytes.len());
        }
        self.exchange();
        self.shard.drain_notices(|_| ());
        self.timed_ns as f64
    }

    fn ends(&self, index: usize) -> Addressing {
        let (remote, family) = match self.config.addresses[0].0 {
            ours @ IpAddr::V4(_) => (ours, Family::Ipv4),
            ours @ IpAddr::V6(_) => (ours, Family::Ipv6),
        };
        let (client, local_port) = ends_of(index);
        let local = address(family, client);
        Addressing {
            source_mac: CLIENT_MAC,
            destination_mac: self.config.mac,
            local,
            remote,
            local_port,
            remote_port: 7000,
            ttl: 64,
            dscp: 0,
        }
    }

    fn queue(&mut self, index: usize, control: Control, payload: &[u8]) {
        self.queue_with_window(index, control, payload, u16::MAX);
    }

    fn queue_with_window(&mut self, index: usize, control: Control, payload: &[u8], window: u16) {
        let client = self.clients[index];
        let ends = self.ends(index);
        let mut outgoing = Outgoing::bare(client.seq, client.ack, control, window);
        outgoing.payload_bytes = payload.len() as u32;
        emit_tcp(&mut self.bytes, &ends, &outgoing, |out| out.extend_from_slice(payload));
        self.ends.push(self.bytes.len());
    }

    /// Hands the queued frames to the shard and takes its answers; timed.
    fn exchange(&mut self) {
        let mut frames: Vec<&[u8]> = Vec::with_capacity(BATCH);
        let mut start = 0;
        for &end in &self.ends {
            frames.push(&self.bytes[start..end]);
            start = end;
        }
        let began = Instant::now();
        self.shard.receive(self.now, &frames);
        self.finish(began);
        self.bytes.clear();
        self.ends.clear();
    }

    fn finish(&mut self, began: Instant) {
        self.shard.tick(self.now);
        let (sent, sent_ends) = (&mut self.sent, &mut self.sent_ends);
        sent.clear();
        sent_ends.clear();
        self.shard.transmit(|frame| {
            sent.extend_from_slice(frame);
            sent_ends.push(sent.len());
            true
        });
        self.timed_ns += began.elapsed().as_nanos() as u64;
        self.now = Time(self.now.0 + 50);
    }

    /// Reads the frames of the shard to clients: for each the client's index, acknowledgment for it and payload length.
    fn read_sent(&mut self) -> Vec<(usize, SeqNum, u32)> {
        let mut start = 0;
        let mut read = Vec::with_capacity(self.sent_ends.len());
        for &end in &self.sent_ends {
            let frame = &self.sent[start..end];
            start = end;
            // What goes to a group asks for routers.
            if frame[0] & 1 == 1 {
                continue;
            }
            let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { panic!("TCP is sent") };
            // What goes to somebody else answers an attack.
            let Some(index) = index_of(packet.addresses.local(), packet.local_port) else { continue };
            let segment = packet.segment;
            read.push((index, segment.seq.plus(segment.length()), segment.payload_bytes));
        }
        read
    }

    /// Opens the connections of these clients.
    fn open(&mut self, indices: std::ops::Range<usize>) {
        for index in indices.clone() {
            self.clients[index].seq = SeqNum(FIRST_SEQ);
            self.queue(index, Control::SYN, &[]);
        }
        self.exchange();
        for (index, ack, _) in self.read_sent() {
            self.clients[index].ack = ack;
            self.clients[index].seq = SeqNum(FIRST_SEQ + 1);
            self.queue(index, Control::ACK, &[]);
        }
        self.exchange();
        let mut opened = indices;
        let clients = &mut self.clients;
        self.shard.drain_notices(|notice| {
            if let Notice::Opened { flow, .. } = notice {
                clients[opened.next().expect("as many as asked")].flow = flow;
            }
        });
        assert!(opened.is_empty(), "every handshake is completed");
    }

    /// Aborts the connections of all clients, not timed.
    pub fn reset_all(&mut self) {
        for start in (0..self.clients.len()).step_by(BATCH) {
            for index in start..(start + BATCH).min(self.clients.len()) {
                self.queue(index, Control::RST, &[]);
            }
            self.exchange();
            self.shard.drain_notices(|_| ());
        }
        assert_eq!(self.shard.stats().flows, 0, "every connection is reset");
    }

    /// Opens all connections. Returns the nanoseconds of one.
    pub fn open_all(&mut self) -> f64 {
        self.timed_ns = 0;
        for start in (0..self.clients.len()).step_by(BATCH) {
            self.open(start..(start + BATCH).min(self.clients.len()));
        }
        self.timed_ns as f64 / self.clients.len() as f64
    }

    /// So many different clients at random.
    fn pick(&mut self) -> Vec<usize> {
        let mut picked: Vec<usize> = Vec::with_capacity(BATCH);
        let among = self.clients.len() - self.spared;
        while picked.len() < BATCH.min(among) {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let index = (self.random >> 11) as usize % among;
            if !picked.contains(&index) {
                picked.push(index);
            }
        }
        picked
    }

    /// The clients acknowledge what they were sent.
    fn acknowledge(&mut self, expected: usize) {
        let read = self.read_sent();
        assert_eq!(read.iter().filter(|(_, _, bytes)| *bytes > 0).count(), expected, "each is sent its bytes");
        for (index, ack, _) in read {
            self.clients[index].ack = ack;
            self.queue(index, Control::ACK, &[]);
        }
        self.exchange();
        self.shard.drain_notices(|_| ());
    }

    /// Pushes to clients at random. Returns the nanoseconds of one push with its acknowledgment.
    pub fn push_batches(&mut self, batches: usize) -> f64 {
        self.timed_ns = 0;
        let mut count = 0;
        for _ in 0..batches {
            let picked = self.pick();
            let clients = &self.clients;
            let to_push = |&index: &usize| Push::new(clients[index].flow, Ticket(1), &PAYLOAD);
            let pushes: Vec<Push<'_>> = picked.iter().map(to_push).collect();
            let began = Instant::now();
            self.shard.push(self.now, &pushes);
            self.finish(began);
            self.acknowledge(picked.len());
            count += picked.len();
        }
        self.timed_ns as f64 / count as f64
    }

    /// Clients at random send and are answered. Returns the nanoseconds of one echo with its acknowledgment.
    pub fn echo_batches(&mut self, batches: usize) -> f64 {
        self.timed_ns = 0;
        let mut count = 0;
        for _ in 0..batches {
            let picked = self.pick();
            for &index in &picked {
                self.queue(index, Control::ACK.with(Control::PSH), &PAYLOAD);
                self.clients[index].seq = self.clients[index].seq.plus(PAYLOAD.len() as u32);
            }
            self.exchange();
            self.acknowledge(picked.len());
            count += picked.len();
        }
        self.timed_ns as f64 / count as f64
    }

    /// Pushes to every client, with at most `in_flight` pushes not acknowledged.
    pub fn push_to_all(&mut self, in_flight: usize) {
        for start in (0..self.clients.len()).step_by(in_flight) {
            let end = (start + in_flight).min(self.clients.len());
            let mut read = Vec::new();
            for first in (start..end).step_by(BATCH) {
                let clients = &self.clients[first..(first + BATCH).min(end)];
                let to_push = |client: &Client| Push::new(client.flow, Ticket(1), &PAYLOAD);
                let pushes: Vec<Push<'_>> = clients.iter().map(to_push).collect();
                let began = Instant::now();
                self.shard.push(self.now, &pushes);
                self.finish(began);
                read.extend(self.read_sent());
            }
            for chunk in read.chunks(BATCH) {
                for &(index, ack, _) in chunk {
                    self.clients[index].ack = ack;
                    self.queue(index, Control::ACK, &[]);
                }
                self.exchange();
                self.shard.drain_notices(|_| ());
            }
        }
    }
}
