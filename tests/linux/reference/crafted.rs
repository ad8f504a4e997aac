//! Crafted segments: what the client's side puts on the wire, sound or damaged.
//!
//! A segment is written relative to what the stack under test has last said, so that the same one means the same to
//! two stacks with different initial sequence numbers and windows. [`View`] is what the client knows of one
//! conversation with one stack.

use std::fmt;
use std::net::Ipv4Addr;

use super::frame;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// The two ends of the wire.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub client_mac: [u8; 6],
    pub server_mac: [u8; 6],
    pub client: Ipv4Addr,
    pub server: Ipv4Addr,
    pub client_port: u16,
    pub server_port: u16,
}

/// Where a sequence number is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seq {
    /// RCV.NXT of the stack.
    Next(i32),
    /// The right edge of its window.
    Edge(i32),
    /// The client's initial sequence number.
    Start(i32),
}

/// Where an acknowledgment is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ack {
    /// SND.UNA of the stack.
    Una(i32),
    /// SND.NXT of the stack.
    Next(i32),
}

/// What is wrong with, or unusual about, the packet of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Bits of the TCP checksum are flipped.
    TcpChecksum(u16),
    /// The TCP header says it has so many words.
    DataOffset(u8),
    /// The reserved bits of the TCP header are set.
    Reserved(u8),
    /// ECE, CWR bits.
    Ecn(u8),
    /// Bits of the IPv4 header checksum are flipped.
    IpChecksum(u16),
    /// The version of the IPv4 header.
    Version(u8),
    /// The IPv4 header says it has so many words.
    HeaderWords(u8),
    /// The IPv4 total length is off by so much.
    TotalLength(i32),
    /// The frame ends so many bytes early.
    Truncate(usize),
    /// So many bytes of padding follow.
    Pad(usize),
    /// Flags and offset of a fragment.
    Fragment(u16),
    /// Options behind the IPv4 header, padded with zeros.
    IpOptions(Vec<u8>),
    /// Time to live.
    Ttl(u8),
    /// Type of service.
    Tos(u8),
    /// Another protocol.
    Protocol(u8),
    /// Another source address.
    From(Ipv4Addr),
    /// Another destination address.
    To(Ipv4Addr),
    /// Another destination Ethernet address.
    ToMac([u8; 6]),
}

/// A segment of the client's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub control: u8,
    pub seq: Seq,
    pub ack: Option<Ack>,
    pub payload_bytes: u16,
    pub window: u16,
    pub urgent: u16,
    /// A timestamps option whose value is so far from the client's clock; it echoes the stack's latest.
    pub stamp: Option<i32>,
    /// Option bytes, padded with zeros to whole words.
    pub options: Vec<u8>,
    pub damage: Vec<Damage>,
}

impl Segment {
    /// A segment without payload, options and damage; ACK is set where there is an acknowledgment.
    pub fn new(control: u8, seq: Seq, ack: Option<Ack>) -> Segment {
        Segment {
            control: control | if ack.is_some() { ACK } else { 0 },
            seq,
            ack,
            payload_bytes: 0,
            window: 60_000,
            urgent: 0,
            stamp: None,
            options: Vec::new(),
            damage: Vec::new(),
        }
    }

    pub fn payload(self, payload_bytes: u16) -> Segment {
        Segment { payload_bytes, ..self }
    }

    pub fn options(self, options: &[u8]) -> Segment {
        Segment { options: options.to_vec(), ..self }
    }

    pub fn window(self, window: u16) -> Segment {
        Segment { window, ..self }
    }

    pub fn damaged(mut self, damage: Damage) -> Segment {
        self.damage.push(damage);
        self
    }

    pub fn has(&self, control: u8) -> bool {
        self.control & control == control
    }

    /// Whether nothing is strange about its packet but the segment itself.
    pub fn is_sound_below_tcp(&self) -> bool {
        self.damage.iter().all(|damage| match damage {
            Damage::TcpChecksum(_) | Damage::DataOffset(_) | Damage::Reserved(_) | Damage::Ecn(_) => true,
            Damage::IpChecksum(_)
            | Damage::Version(_)
            | Damage::HeaderWords(_)
            | Damage::TotalLength(_)
            | Damage::Truncate(_)
            | Damage::Pad(_)
            | Damage::Fragment(_)
            | Damage::IpOptions(_)
            | Damage::Ttl(_)
            | Damage::Tos(_)
            | Damage::Protocol(_)
            | Damage::From(_)
            | Damage::To(_)
            | Damage::ToMac(_) => false,
        })
    }

    /// SEG.LEN.
    pub fn length(&self) -> u32 {
        u32::from(self.payload_bytes) + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (URG, "URG"), (ACK, "ACK")];
        let set: Vec<&str> = names.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name).collect();
        let control = if set.is_empty() { "null".to_owned() } else { set.join("+") };
        match self.seq {
            Seq::Next(by) => write!(f, "{control} seq RCV.NXT{by:+}")?,
            Seq::Edge(by) => write!(f, "{control} seq edge{by:+}")?,
            Seq::Start(by) => write!(f, "{control} seq IRS{by:+}")?,
        }
        match self.ack {
            Some(Ack::Una(by)) => write!(f, " ack SND.UNA{by:+}")?,
            Some(Ack::Next(by)) => write!(f, " ack SND.NXT{by:+}")?,
            None => {}
        }
        if self.payload_bytes > 0 {
            write!(f, " payload {}", self.payload_bytes)?;
        }
        if self.window != 60_000 {
            write!(f, " window {}", self.window)?;
        }
        if let Some(by) = self.stamp {
            write!(f, " timestamp {by:+}")?;
        }
        if !self.options.is_empty() {
            write!(f, " options {:02x?}", self.options)?;
        }
        if !self.damage.is_empty() {
            write!(f, " {:?}", self.damage)?;
        }
        Ok(())
    }
}

/// What the client knows of its conversation with one stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    /// The client's initial sequence number.
    pub start: u32,
    /// The highest acknowledgment of the stack's: its RCV.NXT.
    pub rcv_nxt: u32,
    /// Its right edge.
    pub edge: u32,
    /// Its initial sequence number, once it has spoken.
    pub iss: Option<u32>,
    /// The highest acknowledgment that the client has sent.
    pub snd_una: u32,
    /// Behind the last byte that the stack has sent.
    pub snd_nxt: u32,
    /// Shift of the window field of the stack's segments.
    pub shift: u8,
    /// Latest timestamp value of the stack's.
    pub timestamp: u32,
    /// Sequence number of the client's latest segment.
    pub sent: u32,
}

/// Where a segment lies, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// SEG.SEQ from RCV.NXT.
    pub seq: i32,
    /// SEG.LEN.
    pub length: i32,
    /// RCV.WND.
    pub window: i32,
    /// SEG.ACK from SND.UNA and from SND.NXT.
    pub ack_una: i32,
    pub ack_nxt: i32,
}

impl Place {
    /// SEG.SEQ + SEG.LEN from RCV.NXT.
    pub fn end(&self) -> i32 {
        self.seq.saturating_add(self.length)
    }

    /// Whether it is acceptable, or begins on the right edge.
    pub fn touches_window(&self) -> bool {
        self.is_acceptable() || self.seq == self.window
    }

    /// The test of RFC 9293 §3.10.7.4, first check.
    pub fn is_acceptable(&self) -> bool {
        let is_inside = |number: i32| (0..self.window).contains(&number);
        match (self.length, self.window) {
            (0, 0) => self.seq == 0,
            (0, _) => is_inside(self.seq),
            (_, 0) => false,
            (..) => is_inside(self.seq) || is_inside(self.end() - 1),
        }
    }
}

/// The client's timestamp clock, which stands still.
const CLOCK: u32 = 0x7fff_fff8;

/// A timestamps option, with what makes it whole words.
pub fn stamp(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
}

impl View {
    pub fn new(start: u32) -> View {
        let nothing = View::default();
        View { start, rcv_nxt: start, edge: start, ..nothing }
    }

    fn seq(&self, seq: Seq) -> u32 {
        let (from, by) = match seq {
            Seq::Next(by) => (self.rcv_nxt, by),
            Seq::Edge(by) => (self.edge, by),
            Seq::Start(by) => (self.start, by),
        };
        from.wrapping_add_signed(by)
    }

    fn ack(&self, ack: Ack) -> u32 {
        let (from, by) = match ack {
            Ack::Una(by) => (self.snd_una, by),
            Ack::Next(by) => (self.snd_nxt, by),
        };
        from.wrapping_add_signed(by)
    }

    /// Whether the other stack has sent and acknowledged as much.
    pub fn agrees(&self, other: &View) -> bool {
        let progress = |view: &View| {
            let sent = view.snd_nxt.wrapping_sub(view.iss.unwrap_or(view.snd_nxt));
            let acknowledged = view.snd_nxt.wrapping_sub(view.snd_una);
            (view.rcv_nxt.wrapping_sub(view.start), sent, acknowledged)
        };
        progress(self) == progress(other)
    }

    /// Where a segment would lie now.
    pub fn place(&self, segment: &Segment) -> Place {
        let ack = segment.ack.map_or(0, |ack| self.ack(ack));
        Place {
            seq: self.seq(segment.seq).wrapping_sub(self.rcv_nxt) as i32,
            length: segment.length() as i32,
            window: self.edge.wrapping_sub(self.rcv_nxt) as i32,
            ack_una: ack.wrapping_sub(self.snd_una) as i32,
            ack_nxt: ack.wrapping_sub(self.snd_nxt) as i32,
        }
    }

    /// The bytes of a segment, which counts as sent.
    pub fn frame(&mut self, segment: &Segment, ends: &Ends) -> Vec<u8> {
        let seq = self.seq(segment.seq);
        let ack = segment.ack.map_or(0, |ack| self.ack(ack));
        let is_advance = ack.wrapping_sub(self.snd_una) <= self.snd_nxt.wrapping_sub(self.snd_una);
        if segment.has(ACK) && is_advance {
            self.snd_una = ack;
        }
        let offset = seq.wrapping_sub(self.start.wrapping_add(1));
        let payload: Vec<u8> = (0..u32::from(segment.payload_bytes)).map(|at| byte(offset.wrapping_add(at))).collect();
        self.sent = seq;
        let stamp = segment.stamp.map(|by| stamp(CLOCK.wrapping_add_signed(by), self.timestamp)).unwrap_or_default();
        let segment = Segment { options: [&stamp[..], &segment.options].concat(), ..segment.clone() };
        frame::build(&segment, ends, seq, ack, &payload)
    }
}

/// The byte at an offset of every client's stream.
pub fn byte(offset: u32) -> u8 {
    (offset.wrapping_mul(13).wrapping_add(7) % 251) as u8
}

impl Default for Ends {
    fn default() -> Ends {
        let nowhere = Ipv4Addr::UNSPECIFIED;
        Ends {
            client_mac: [0; 6],
            server_mac: [0; 6],
            client: nowhere,
            server: nowhere,
            client_port: 0,
            server_port: 0,
        }
    }
}
