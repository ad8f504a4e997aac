//! The crowd: as many clients of a shard as there are tuples, none of which is kept.
//!
//! What a client says next follows from its number and from the frame that it answers: it never sends a byte of its
//! own, so its sequence number is always the same, and what it acknowledges stands in the frame. Comes in: phases of
//! the life of a crowd (`open`, `push`, `stay`, `leave`). Goes out: what the shard's steps took, as `meter` has it.
//!
//! Invariant: nothing in here grows with the number of clients, so that the memory of the process is the shard's.

pub mod meter;
pub mod order;

use std::net::Ipv4Addr;

use holdline::server::Populator;
use holdline::service::Hold;
use holdline::shard::{
    Ahead, Broadcast, Capacity, CloseHow, Config, FlowId, Notice, Push, Rule, Shard, Storage, Ticket, Time,
};
use holdline::tcp::{Control, Outgoing, SeqNum};
use holdline::wire::{Addressing, Packet, TcpPacket, emit_tcp, parse};

use meter::Meter;

/// Frames, or pushes, in one step.
pub const BATCH: usize = 64;
/// What is pushed is made of.
const FILLER: u8 = 0x5a;
const PAYLOAD: [u8; 64] = [FILLER; 64];
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 7_000;
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const FIRST_ADDRESS: u32 = 0x0a01_0000;
const FIRST_PORT: u16 = 1_024;
const PORTS_PER_ADDRESS: u32 = 50_000;
const FIRST_SEQ: u32 = 1_000;
/// A broadcast is looked at once in so many rounds.
const LOOK_EVERY: u32 = 256;
/// By so much the shard's clock moves with each step.
const STEP_US: u64 = 50;

/// What has come back from the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    pub opened: u64,
    pub delivered: u64,
    pub probed: u64,
    pub closed: u64,
    pub payload_bytes: u64,
    /// Frames that one step let out, at most.
    pub burst_max: usize,
}

/// An empty buffer whose memory is there from the start, so that it is not taken for the shard's.
fn touched<T: Clone>(room: usize, filler: T) -> Vec<T> {
    let mut buffer = vec![filler; room];
    buffer.clear();
    buffer
}

/// A shard and its crowd.
pub struct Crowd {
    pub shard: Shard<Hold>,
    pub meter: Meter,
    pub account: Account,
    pub now: Time,
    populator: Populator,
    ahead: Ahead,
    mac: [u8; 6],
    keepalive_s: u32,
    /// Frames of the crowd that the shard has not seen, back to back, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Those of the shard that the crowd has not.
    sent: Vec<u8>,
    sent_ends: Vec<usize>,
}

impl Crowd {
    /// A shard with room for so many connections, none open. Silent ones are probed after `keepalive_s`.
    pub fn new(clients: u32, keepalive_s: u32) -> Crowd {
        let mut config = Config::new(OURS, 8, &[PORT]);
        (config.delayed_ack_ms, config.keepalive_s) = (0, keepalive_s);
        // Room for more: at the end of a table nothing would be kept ahead, and less counted than a server takes.
        let capacity = Capacity::for_connections(clients.saturating_add(1 << 18));
        let storage = Storage::in_memory(capacity).expect("address space");
        let mac = config.mac;
        let mut shard = Shard::new(config, storage, Hold, [7; 32], Time(1)).expect("shard");
        let ahead = shard.ahead();
        let populator = Populator::start(vec![ahead.clone()]).expect("a thread");
        Crowd {
            shard,
            meter: Meter::default(),
            account: Account::default(),
            now: Time(1),
            populator,
            ahead,
            mac,
            keepalive_s,
            bytes: touched(1 << 23, 1),
            ends: touched(1 << 17, 1),
            sent: touched(1 << 24, 1),
            sent_ends: touched(1 << 17, 1),
        }
    }

    /// Opens the connections of these clients, and answers what else the shard says meanwhile.
    pub fn open(&mut self, clients: impl Iterator<Item = u32>) {
        self.in_batches(clients, |crowd, client| crowd.say(client, SeqNum(FIRST_SEQ), Control::SYN));
    }

    /// These clients are gone with a RST.
    pub fn reset(&mut self, clients: impl Iterator<Item = u32>) {
        self.in_batches(clients, |crowd, client| crowd.say(client, SeqNum(FIRST_SEQ + 1), Control::RST));
    }

    fn in_batches(&mut self, clients: impl Iterator<Item = u32>, mut say: impl FnMut(&mut Crowd, u32)) {
        for client in clients {
            say(self, client);
            if self.ends.len() == BATCH {
                self.settle();
            }
        }
        self.settle();
    }

    /// Pushes to the connections in these slots, which were not used before; at most `in_flight` at a time wait for
    /// their acknowledgments.
    pub fn push(&mut self, slots: impl Iterator<Item = u32>, in_flight: usize) {
        let mut slots = slots.peekable();
        while slots.peek().is_some() {
            let mut waiting = 0;
            while waiting < in_flight && slots.peek().is_some() {
                let to_push = |slot: u32| Push::new(FlowId::new(0, 0, slot), Ticket(1), &PAYLOAD);
                let pushes: Vec<Push<'_>> = slots.by_ref().take(BATCH).map(to_push).collect();
                let now = self.now;
                self.step("push", |shard| shard.push(now, &pushes));
                waiting += pushes.len();
            }
            self.settle();
        }
    }

    /// Broadcasts so many bytes at a pace, until everybody has acknowledged them. `look` is called now and then.
    pub fn broadcast(&mut self, bytes: usize, pace_per_s: u32, mut look: impl FnMut(&Crowd)) {
        let (now, clients) = (self.now, self.shard.stats().established);
        let payload = vec![FILLER; bytes];
        let (ticket, prefix, expires_in_s) = (Ticket(2), &[][..], 0);
        let broadcast = Broadcast { ticket, bytes: &payload, pace_per_s, prefix, expires_in_s };
        let job = self.shard.broadcast(now, &broadcast).expect("there is room for a job");
        let mut looks = 0;
        self.stay(|crowd| {
            looks += 1;
            if looks % LOOK_EVERY == 1 {
                look(crowd);
            }
            let job = crowd.shard.job(job).expect("it is not forgotten");
            assert_eq!((job.refused, job.lost), (0, 0), "nobody is left out");
            job.delivered == clients
        });
    }

    /// Time passes and the shard is called when it wants to be, until `is_over`.
    pub fn stay(&mut self, mut is_over: impl FnMut(&Crowd) -> bool) {
        while !is_over(self) {
            let next = self.shard.next_deadline().unwrap_or(self.now.plus_ms(1_000));
            self.now = Time(self.now.0 + STEP_US).max(next);
            self.settle();
        }
    }

    /// The shard closes every connection, the clients do so too, and everything is waited for until nothing is left.
    pub fn leave(&mut self) {
        let mut from = Some(0);
        while let Some(slot) = from {
            let mut flows = Vec::with_capacity(BATCH);
            from = self.shard.flows_within(self.now, slot, BATCH as u32, |view| {
                flows.push(view.id);
                true
            });
            let now = self.now;
            self.step("64 closes", |shard| {
                for &flow in &flows {
                    shard.close(now, flow, CloseHow::Fin).expect("it is open");
                }
            });
            self.settle();
        }
        self.stay(|crowd| crowd.shard.stats().flows == 0);
    }

    /// How many probes were sent.
    pub fn probes(&self) -> u64 {
        self.shard.rule_count(Rule::KeepaliveProbe)
    }

    /// For how long a peer may be silent.
    pub fn keepalive_s(&self) -> u32 {
        self.keepalive_s
    }

    /// What client number so-and-so says out of itself.
    fn say(&mut self, client: u32, seq: SeqNum, control: Control) {
        let address = Ipv4Addr::from_bits(FIRST_ADDRESS + client / PORTS_PER_ADDRESS);
        let ends = self.ends_of(address, FIRST_PORT + (client % PORTS_PER_ADDRESS) as u16);
        self.queue(&ends, &Outgoing::bare(seq, SeqNum(0), control, u16::MAX));
    }

    fn ends_of(&self, client: Ipv4Addr, local_port: u16) -> Addressing {
        Addressing {
            source_mac: CLIENT_MAC,
            destination_mac: self.mac,
            local: client.into(),
            remote: OURS.into(),
            local_port,
            remote_port: PORT,
            ttl: 64,
            dscp: 0,
        }
    }

    fn queue(&mut self, ends: &Addressing, outgoing: &Outgoing) {
        emit_tcp(&mut self.bytes, ends, outgoing, |_| ());
        self.ends.push(self.bytes.len());
    }

    /// The shard and the crowd answer each other until both have nothing more to say now.
    fn settle(&mut self) {
        loop {
            if self.shard.next_deadline().is_some_and(|due| due <= self.now) {
                let now = self.now;
                self.step("tick", |shard| shard.tick(now));
            }
            self.answer();
            if self.ends.is_empty() {
                return;
            }
            self.hand_over();
        }
    }

    /// Everything that the crowd has said goes into the shard, a batch at a time.
    fn hand_over(&mut self) {
        let (bytes, ends) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.ends));
        let mut start = 0;
        for batch in ends.chunks(BATCH) {
            let mut frames: Vec<&[u8]> = Vec::with_capacity(BATCH);
            for &end in batch {
                frames.push(&bytes[start..end]);
                start = end;
            }
            let now = self.now;
            self.step("receive", |shard| shard.receive(now, &frames));
        }
        (self.bytes, self.ends) = (bytes, ends);
        self.bytes.clear();
        self.ends.clear();
    }

    /// One call of the shard, and what it lets out: the frames, and then, not timed, the notices.
    fn step(&mut self, call: &'static str, run: impl FnOnce(&mut Shard<Hold>)) {
        let (sent, sent_ends) = (&mut self.sent, &mut self.sent_ends);
        let before = sent_ends.len();
        self.meter.step(&mut self.shard, call, |shard| {
            run(shard);
            shard.transmit(|frame| {
                sent.extend_from_slice(frame);
                sent_ends.push(sent.len());
                true
            });
        });
        self.populator.nudge(&self.ahead);
        self.now = Time(self.now.0 + STEP_US);
        let account = &mut self.account;
        account.burst_max = account.burst_max.max(sent_ends.len() - before);
        self.shard.drain_notices(|notice| match notice {
            Notice::Opened { .. } => account.opened += 1,
            Notice::Delivered { .. } => account.delivered += 1,
            Notice::Closed { .. } => account.closed += 1,
            Notice::Queued { .. } | Notice::PeerClosed { .. } => {}
            other => panic!("nothing else happens: {other:?}"),
        });
    }

    /// Clients answer the frames that were taken.
    fn answer(&mut self) {
        let (sent, sent_ends) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.sent_ends));
        let mut start = 0;
        for &end in &sent_ends {
            match parse(&sent[start..end], &CLIENT_MAC) {
                Ok(Packet::Tcp(packet)) => self.answer_one(&packet),
                other => panic!("TCP is sent to clients: {other:?}"),
            }
            start = end;
        }
        (self.sent, self.sent_ends) = (sent, sent_ends);
        self.sent.clear();
        self.sent_ends.clear();
    }

    fn answer_one(&mut self, packet: &TcpPacket<'_>) {
        let segment = &packet.segment;
        let is_bare = segment.payload_bytes == 0 && segment.control == Control::ACK;
        let mut control = Control::ACK;
        let mut ack = segment.seq.plus(segment.length());
        if segment.control.has(Control::FIN) {
            control = control.with(Control::FIN);
        } else if is_bare && segment.ack == SeqNum(FIRST_SEQ + 2) {
            // Its own FIN is acknowledged.
            return;
        } else if is_bare {
            // It has sent nothing that could be acknowledged: a probe, one before what is next.
            self.account.probed += 1;
            ack = segment.seq.plus(1);
        }
        assert!(!segment.control.has(Control::RST), "nobody is reset");
        assert!(packet.payload.iter().all(|&byte| byte == FILLER), "what is pushed arrives");
        self.account.payload_bytes += u64::from(segment.payload_bytes);
        let std::net::IpAddr::V4(client) = packet.addresses.local() else { panic!("clients speak IPv4") };
        let ends = self.ends_of(client, packet.local_port);
        self.queue(&ends, &Outgoing::bare(SeqNum(FIRST_SEQ + 1), ack, control, u16::MAX));
    }
}
