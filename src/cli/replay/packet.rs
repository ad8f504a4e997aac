//! Recorded packets: where their fields stand, and how one is changed without hiding what was wrong with it.
//!
//! In: Ethernet frames of captures, which may be cut, broken or of another protocol. Out: a [`View`] of what is
//! IPv4 and can be told, and changes in place that carry every checksum along by its difference (RFC 1624), so that
//! a checksum that was right stays right and one that was wrong stays wrong.

use std::net::{Ipv4Addr, SocketAddrV4};

use holdline::tcp::Control;
use holdline::wire::Sum;

/// Offsets of fields, the IPv4 header's in a frame and the TCP header's in a segment.
mod field {
    pub const ETHERTYPE: usize = 12;
    pub const IP: usize = 14;
    pub const TOTAL_BYTES: usize = IP + 2;
    pub const FRAGMENT: usize = IP + 6;
    pub const PROTOCOL: usize = IP + 9;
    pub const IP_CHECKSUM: usize = IP + 10;
    pub const SOURCE: usize = IP + 12;
    pub const DESTINATION: usize = IP + 16;
    pub const TCP_ACK: usize = 8;
    pub const TCP_HEADER_WORDS: usize = 12;
    pub const TCP_CONTROL: usize = 13;
    pub const TCP_WINDOW: usize = 14;
    pub const TCP_CHECKSUM: usize = 16;
    pub const TCP_OPTIONS: usize = 20;
    pub const ARP_OPERATION: usize = 20;
    pub const ARP_TARGET: usize = 38;
}

/// ICMP's protocol number.
pub const ICMP: u8 = 1;
/// That of TCP.
pub const TCP: u8 = 6;

/// What a frame is, as far as it concerns a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// An ARP request for an address.
    ArpRequest(Ipv4Addr),
    /// An IPv4 packet that is no TCP, or a fragment of whatever.
    Ip { source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, is_fragment: bool },
    /// A TCP segment whose header is all there.
    Tcp(Segment),
}

/// A recorded TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    pub seq: u32,
    pub ack: u32,
    pub control: Control,
    pub window: u16,
    /// Of the payload as it was sent, whether the capture has it or not.
    pub payload_bytes: u32,
    pub options: Options,
    /// Where the TCP header begins in the frame.
    at: usize,
    /// Where the payload does.
    payload_at: usize,
}

/// The options of a segment, each with where its value stands in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub mss: Option<u16>,
    pub window_shift: Option<u8>,
    pub has_sack_permitted: bool,
    /// Value and echo.
    pub timestamps: Option<(u32, u32)>,
    /// Left and right edges, up to four pairs.
    pub sack: [Option<(u32, u32)>; 4],
    echo_at: usize,
    sack_at: usize,
}

/// A kind of option that both sides must offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Negotiated {
    WindowScale = 3,
    SackPermitted = 4,
    Timestamps = 8,
}

impl Segment {
    /// Sequence number behind the segment.
    pub fn end(&self) -> u32 {
        let controls = u32::from(self.control.has(Control::SYN)) + u32::from(self.control.has(Control::FIN));
        self.seq.wrapping_add(self.payload_bytes).wrapping_add(controls)
    }

    /// Whether it opens a connection.
    pub fn is_syn(&self) -> bool {
        self.control.has(Control::SYN) && !self.control.has(Control::ACK)
    }

    /// Whether it answers one that does.
    pub fn is_syn_ack(&self) -> bool {
        self.control.has(Control::SYN.with(Control::ACK))
    }

    /// The payload, as far as the capture has it.
    pub fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let end = frame.len().min(self.payload_at + self.payload_bytes as usize);
        frame.get(self.payload_at..end).unwrap_or_default()
    }
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn long(frame: &[u8], at: usize) -> Option<u32> {
    frame.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Looks at a frame, of which the capture has cut `cut_bytes` off; `None` where it is of no concern.
pub fn view(frame: &[u8], cut_bytes: u32) -> Option<View> {
    match word(frame, field::ETHERTYPE)? {
        0x0806 if word(frame, field::ARP_OPERATION)? == 1 => {
            Some(View::ArpRequest(Ipv4Addr::from_bits(long(frame, field::ARP_TARGET)?)))
        }
        0x0800 => view_ip(frame, cut_bytes),
        _ => None,
    }
}

fn view_ip(frame: &[u8], cut_bytes: u32) -> Option<View> {
    let first = *frame.get(field::IP)?;
    let source = Ipv4Addr::from_bits(long(frame, field::SOURCE)?);
    let destination = Ipv4Addr::from_bits(long(frame, field::DESTINATION)?);
    let protocol = frame[field::PROTOCOL];
    let is_fragment = word(frame, field::FRAGMENT)? & 0x3fff != 0;
    let header_bytes = usize::from(first & 0xf) * 4;
    if protocol != TCP || is_fragment || first >> 4 != 4 || header_bytes < 20 {
        return Some(View::Ip { source, destination, protocol, is_fragment });
    }
    let at = field::IP + header_bytes;
    let segment = || {
        let payload_at = at + usize::from(frame.get(at + field::TCP_HEADER_WORDS)? >> 4) * 4;
        let options = frame.get(at + field::TCP_OPTIONS..payload_at)?;
        let captured_bytes = frame.len() - field::IP + cut_bytes as usize;
        // Where a host leaves cutting to its network device, the length may be 0.
        let total_bytes = match usize::from(word(frame, field::TOTAL_BYTES)?) {
            0 => captured_bytes.min(usize::from(u16::MAX)),
            stated_bytes => stated_bytes,
        };
        Some(Segment {
            source: SocketAddrV4::new(source, word(frame, at)?),
            destination: SocketAddrV4::new(destination, word(frame, at + 2)?),
            seq: long(frame, at + 4)?,
            ack: long(frame, at + field::TCP_ACK)?,
            control: Control(frame[at + field::TCP_CONTROL] & 0x3f),
            window: word(frame, at + field::TCP_WINDOW)?,
            payload_bytes: (field::IP + total_bytes).saturating_sub(payload_at) as u32,
            options: read_options(options, at + field::TCP_OPTIONS),
            at,
            payload_at,
        })
    };
    Some(segment().map_or(View::Ip { source, destination, protocol, is_fragment }, View::Tcp))
}

/// Calls `take` with the kind, the value and the offset of the value of each option.
fn walk(options: &[u8], mut take: impl FnMut(u8, &[u8], usize)) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if kind == 0 {
            return;
        }
        let length = if kind == 1 { 1 } else { options.get(at + 1).map_or(0, |length| usize::from(*length)) };
        if kind != 1 {
            let Some(value) = options.get(at + 2..at + length) else { return };
            take(kind, value, at + 2);
        }
        at += length;
    }
}

fn read_options(bytes: &[u8], start: usize) -> Options {
    let mut options = Options::default();
    walk(bytes, |kind, value, at| match (kind, value) {
        (2, &[high, low]) => options.mss = Some(u16::from_be_bytes([high, low])),
        (3, &[shift]) => options.window_shift = Some(shift),
        (4, []) => options.has_sack_permitted = true,
        (5, edges) => {
            let (pairs, _) = edges.as_chunks::<8>();
            for (place, pair) in options.sack.iter_mut().zip(pairs) {
                *place = long(pair, 0).zip(long(pair, 4));
            }
            options.sack_at = start + at;
        }
        (8, times) => {
            options.timestamps = long(times, 0).zip(long(times, 4)).filter(|_| times.len() == 8);
            options.echo_at = start + at + 4;
        }
        _ => {}
    });
    options
}

/// What can be wrong with the checksum of a recorded segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    Right,
    /// Only the pseudo header is in it: the sender has left the rest to its network device.
    Partial,
    Wrong,
}

/// A frame that is changed on its way into a replay.
pub struct Editor<'a> {
    frame: &'a mut Vec<u8>,
    segment: Segment,
}

impl<'a> Editor<'a> {
    /// Opens the frame that `segment` is a view of.
    pub fn new(frame: &'a mut Vec<u8>, segment: Segment) -> Editor<'a> {
        Editor { frame, segment }
    }

    fn tcp_checksum_at(&self) -> usize {
        self.segment.at + field::TCP_CHECKSUM
    }

    /// Whether the frame ends before the packet does.
    pub fn is_short(&self) -> bool {
        self.frame.len() < self.segment.payload_at + self.segment.payload_bytes as usize
    }

    /// Fills what is missing with zeros, and makes the TCP checksum right, as what it was of is lost.
    pub fn complete(&mut self) {
        self.frame.resize(self.segment.payload_at + self.segment.payload_bytes as usize, 0);
        self.fix_tcp_checksum();
    }

    fn pseudo_header(&self, tcp_bytes: usize) -> Sum {
        let (source, destination) = (*self.segment.source.ip(), *self.segment.destination.ip());
        Sum::default().add_pseudo_header(source.into(), destination.into(), 6, tcp_bytes)
    }

    fn tcp(&self) -> &[u8] {
        let end = self.segment.payload_at + self.segment.payload_bytes as usize;
        &self.frame[self.segment.at..end.min(self.frame.len())]
    }

    /// What is wrong with the TCP checksum.
    pub fn checksum(&self) -> Checksum {
        let tcp = self.tcp();
        if self.pseudo_header(tcp.len()).add_bytes(tcp).finish() == 0 {
            return Checksum::Right;
        }
        let recorded = word(tcp, field::TCP_CHECKSUM).unwrap_or_default();
        let is_partial = [tcp.len(), 0].iter().any(|&bytes| recorded == !self.pseudo_header(bytes).finish());
        if is_partial { Checksum::Partial } else { Checksum::Wrong }
    }

    /// Whether the IPv4 header's checksum is right.
    pub fn is_ip_checksum_right(&self) -> bool {
        Sum::default().add_bytes(&self.frame[field::IP..self.segment.at]).finish() == 0
    }

    /// Makes the IPv4 header's checksum right, and a length of 0 what it means.
    pub fn fix_ip_checksum(&mut self) {
        let total_bytes = self.segment.payload_at + self.segment.payload_bytes as usize - field::IP;
        self.put(field::TOTAL_BYTES, &(total_bytes as u16).to_be_bytes());
        self.put(field::IP_CHECKSUM, &[0, 0]);
        let sum = Sum::default().add_bytes(&self.frame[field::IP..self.segment.at]).finish();
        self.put(field::IP_CHECKSUM, &sum.to_be_bytes());
    }

    /// Makes the TCP checksum right.
    pub fn fix_tcp_checksum(&mut self) {
        let at = self.tcp_checksum_at();
        self.put(at, &[0, 0]);
        let sum = self.pseudo_header(self.tcp().len()).add_bytes(self.tcp()).finish();
        self.put(at, &sum.to_be_bytes());
    }

    /// Whether the packet leaves its length to the network device.
    pub fn has_no_length(&self) -> bool {
        word(self.frame, field::TOTAL_BYTES) == Some(0)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.frame[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Replaces bytes of the TCP header and carries its checksum along.
    fn replace(&mut self, at: usize, bytes: &[u8]) {
        let tcp_at = self.segment.at;
        // Words are counted from the beginning of the header, which is at an even place.
        let start = tcp_at + (at - tcp_at) / 2 * 2;
        let end = (at + bytes.len()).next_multiple_of(2).min(self.frame.len());
        let old = self.frame[start..end].to_vec();
        self.put(at, bytes);
        let new = self.frame[start..end].to_vec();
        self.carry(self.tcp_checksum_at(), &old, &new);
    }

    /// Changes a checksum by the difference of words that it covers.
    fn carry(&mut self, checksum_at: usize, old: &[u8], new: &[u8]) {
        let before = word(self.frame, checksum_at).unwrap_or_default();
        let without_old = Sum::default().add_words(&[!before, Sum::default().add_bytes(old).finish()]);
        let after = without_old.add_bytes(new).finish();
        self.put(checksum_at, &after.to_be_bytes());
    }

    /// Acknowledges something else.
    pub fn set_ack(&mut self, ack: u32) {
        self.replace(self.segment.at + field::TCP_ACK, &ack.to_be_bytes());
    }

    /// Echoes another timestamp.
    pub fn set_echo(&mut self, echo: u32) {
        if self.segment.options.timestamps.is_some() {
            self.replace(self.segment.options.echo_at, &echo.to_be_bytes());
        }
    }

    /// Moves all edges of selective acknowledgments.
    pub fn shift_sack(&mut self, delta: u32) {
        let pairs = self.segment.options.sack.into_iter().flatten().enumerate();
        for (index, (left, right)) in pairs {
            let edges = [left.wrapping_add(delta).to_be_bytes(), right.wrapping_add(delta).to_be_bytes()].concat();
            self.replace(self.segment.options.sack_at + index * 8, &edges);
        }
    }

    /// Overwrites an option by such of no meaning.
    pub fn erase(&mut self, option: Negotiated) {
        let (start, mut found) = (self.segment.at + field::TCP_OPTIONS, None);
        walk(&self.frame[start..self.segment.payload_at], |kind, value, at| {
            if kind == option as u8 {
                found = Some((start + at - 2, value.len() + 2));
            }
        });
        if let Some((at, bytes)) = found {
            self.replace(at, &vec![1; bytes]);
        }
    }

    /// Moves the packet to other addresses.
    pub fn set_addresses(&mut self, source: Ipv4Addr, destination: Ipv4Addr) {
        let old = self.frame[field::SOURCE..field::SOURCE + 8].to_vec();
        let new = [source.octets(), destination.octets()].concat();
        self.put(field::SOURCE, &new);
        self.carry(field::IP_CHECKSUM, &old, &new);
        self.carry(self.tcp_checksum_at(), &old, &new);
        self.segment.source.set_ip(source);
        self.segment.destination.set_ip(destination);
    }
}
