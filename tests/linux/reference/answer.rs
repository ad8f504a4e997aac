//! Answers: what a stack has sent, relative to the conversation, so that two stacks can be compared.

use std::fmt;

use super::crafted::{ACK, CWR, ECE, FIN, RST, SYN, URG, View};
use super::frame::checksum;

/// A sequence number of the stack's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeqNumber {
    /// Relative to SND.NXT before the segment that is answered.
    Next(i32),
    /// The initial sequence number of this connection.
    Iss,
    /// Another one, on a SYN: a new connection's.
    NewIss,
    /// 0, as it stands in a reset that answers a segment without ACK.
    Zero,
}

/// One packet of a stack's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A TCP segment.
    Tcp {
        /// All but PSH.
        control: u8,
        seq: SeqNumber,
        /// With ACK only: relative to RCV.NXT before the segment that is answered; where SYN or RST is set, to that
        /// segment's sequence number.
        ack: Option<i32>,
        payload_bytes: u16,
        /// The window is closed; never said of a reset.
        is_closed: bool,
        /// Option kinds, in order of number, NOP and padding left out.
        options: Vec<u8>,
        /// The maximum segment size, where it is said.
        mss: Option<u16>,
    },
    /// An ICMP message.
    Icmp { kind: u8, code: u8 },
}

impl Answer {
    /// Whether it is a TCP segment with exactly these control bits and no payload.
    pub fn is_bare(&self, bits: u8) -> bool {
        matches!(self, Answer::Tcp { control, payload_bytes: 0, .. } if *control == bits)
    }

    /// The same without the options of these kinds.
    pub fn without(self, kinds: &[u8]) -> Answer {
        match self {
            Answer::Tcp { control, seq, ack, payload_bytes, is_closed, mut options, mss } => {
                options.retain(|kind| !kinds.contains(kind));
                Answer::Tcp { control, seq, ack, payload_bytes, is_closed, options, mss }
            }
            Answer::Icmp { .. } => self,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer::Tcp { control, seq, ack, payload_bytes, is_closed, options, mss } = self else {
            let Answer::Icmp { kind, code } = self else { return Ok(()) };
            return write!(f, "ICMP {kind}/{code}");
        };
        let names = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (URG, "URG"), (ACK, "ACK"), (ECE, "ECE"), (CWR, "CWR")];
        let set: Vec<&str> = names.iter().filter(|(bit, _)| control & bit != 0).map(|(_, name)| *name).collect();
        write!(f, "{}", set.join("+"))?;
        match seq {
            SeqNumber::Next(by) => write!(f, " seq SND.NXT{by:+}")?,
            SeqNumber::Iss => write!(f, " seq ISS")?,
            SeqNumber::NewIss => write!(f, " seq of a new connection")?,
            SeqNumber::Zero => write!(f, " seq 0")?,
        }
        if let Some(ack) = ack {
            let from = if control & (SYN | RST) == 0 { "RCV.NXT" } else { "SEG.SEQ" };
            write!(f, " ack {from}{ack:+}")?;
        }
        if *payload_bytes > 0 {
            write!(f, " payload {payload_bytes}")?;
        }
        if *is_closed {
            write!(f, " window 0")?;
        }
        if !options.is_empty() {
            write!(f, " options {options:?}")?;
        }
        mss.map_or(Ok(()), |mss| write!(f, " MSS {mss}"))
    }
}

/// A packet that came out and the client port that it is for.
pub struct Came {
    pub port: u16,
    packet: Packet,
}

enum Packet {
    Tcp(Vec<u8>),
    Icmp { kind: u8, code: u8 },
}

/// Takes a frame apart. `None`: no IPv4 packet for a client, such as ARP or an echo reply. A frame that is damaged is
/// a failure of the stack that sent it.
pub fn open(frame: &[u8]) -> Option<Came> {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return None;
    }
    let packet = &frame[14..];
    let header_bytes = usize::from(packet[0] & 15) * 4;
    let total_bytes = usize::from(u16_at(packet, 2));
    assert!(packet[0] >> 4 == 4 && checksum(&[&packet[..header_bytes]]) == 0, "an IPv4 header is wrong: {packet:02x?}");
    let body = &packet[header_bytes..total_bytes];
    match packet[9] {
        1 if body[0] == 0 => None,
        1 => {
            let quoted = &body[8..];
            let quoted_bytes = usize::from(quoted[0] & 15) * 4;
            Some(Came { port: u16_at(quoted, quoted_bytes), packet: Packet::Icmp { kind: body[0], code: body[1] } })
        }
        6 => {
            let pseudo = [&packet[12..20], &[0, 6], &(body.len() as u16).to_be_bytes()].concat();
            assert_eq!(checksum(&[&pseudo, body]), 0, "a TCP checksum is wrong: {packet:02x?}");
            Some(Came { port: u16_at(body, 2), packet: Packet::Tcp(body.to_vec()) })
        }
        protocol => panic!("a stack sent a packet of protocol {protocol}"),
    }
}

/// The identifier of an echo reply.
pub fn pong(frame: &[u8]) -> Option<u16> {
    let is_reply = frame.len() >= 42 && frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 0;
    is_reply.then(|| u16_at(frame, 38))
}

impl Came {
    /// The answer, relative to what the client knew before the segment that it answers (`before`); what it knows now
    /// is brought up to date.
    pub fn answer(&self, before: &View, view: &mut View) -> Answer {
        let tcp = match &self.packet {
            Packet::Tcp(tcp) => tcp,
            Packet::Icmp { kind, code } => return Answer::Icmp { kind: *kind, code: *code },
        };
        let header_bytes = usize::from(tcp[12] >> 4) * 4;
        let (header, payload) = tcp.split_at(header_bytes);
        let control = header[13] & (SYN | FIN | RST | URG | ACK | ECE | CWR);
        let has = |bit: u8| control & bit != 0;
        let (seq, ack) = (u32_at(header, 4), u32_at(header, 8));
        let options = Options::read(&header[20..]);
        let number = if has(SYN) && view.iss == Some(seq) {
            SeqNumber::Iss
        } else if has(SYN) {
            SeqNumber::NewIss
        } else if has(RST) && has(ACK) && seq == 0 {
            SeqNumber::Zero
        } else {
            SeqNumber::Next(seq.wrapping_sub(before.snd_nxt) as i32)
        };
        let window = u16_at(header, 14);
        if !has(RST) {
            let end = seq.wrapping_add(payload.len() as u32 + u32::from(has(SYN)) + u32::from(has(FIN)));
            view.learn(seq, end, ack, window, has(SYN), &options);
        }
        Answer::Tcp {
            control,
            seq: number,
            ack: has(ACK)
                .then(|| ack.wrapping_sub(if has(SYN) || has(RST) { view.sent } else { before.rcv_nxt }) as i32),
            payload_bytes: payload.len() as u16,
            is_closed: window == 0 && !has(RST),
            options: options.kinds,
            mss: options.mss,
        }
    }
}

impl View {
    fn learn(&mut self, seq: u32, end: u32, ack: u32, window: u16, is_syn: bool, options: &Options) {
        if is_syn && self.iss != Some(seq) {
            self.iss = Some(seq);
            self.shift = options.shift.unwrap_or(0);
            (self.snd_una, self.snd_nxt) = (seq, end);
            (self.rcv_nxt, self.edge) = (ack, ack);
            self.start = self.sent;
        }
        if (end.wrapping_sub(self.snd_nxt) as i32) > 0 {
            self.snd_nxt = end;
        }
        if ack.wrapping_sub(self.rcv_nxt) as i32 >= 0 {
            self.rcv_nxt = ack;
            let shift = if is_syn { 0 } else { self.shift };
            // A window that is rounded down to the units of its scale takes nothing back.
            let edge = ack.wrapping_add(u32::from(window) << shift);
            if edge.wrapping_sub(self.edge) as i32 > 0 {
                self.edge = edge;
            }
        }
        self.timestamp = options.timestamp.unwrap_or(self.timestamp);
    }
}

#[derive(Default)]
struct Options {
    kinds: Vec<u8>,
    mss: Option<u16>,
    shift: Option<u8>,
    timestamp: Option<u32>,
}

impl Options {
    fn read(mut bytes: &[u8]) -> Options {
        let mut options = Options::default();
        while let Some(&kind) = bytes.first().filter(|kind| **kind != 0) {
            if kind == 1 {
                bytes = &bytes[1..];
                continue;
            }
            let length = usize::from(bytes[1]);
            match kind {
                2 => options.mss = Some(u16_at(bytes, 2)),
                3 => options.shift = Some(bytes[2]),
                8 => options.timestamp = Some(u32_at(bytes, 2)),
                _ => {}
            }
            options.kinds.push(kind);
            bytes = &bytes[length..];
        }
        options.kinds.sort_unstable();
        options
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
