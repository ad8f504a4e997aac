//! Recorded packets: where their fields stand.
//!
//! In: Ethernet frames of captures, which may be cut, broken or of another protocol. Out: a [`View`] of what is IP and
//! can be told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use holdline::tcp::Control;

/// Offsets of fields, the IP header's in a frame and the TCP header's in a segment.
pub(super) mod field {
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
    pub const IPV6_PAYLOAD_BYTES: usize = IP + 4;
    pub const IPV6_NEXT_HEADER: usize = IP + 6;
    pub const IPV6_SOURCE: usize = IP + 8;
    pub const IPV6_DESTINATION: usize = IP + 24;
    pub const IPV6_END: usize = IP + 40;
}

/// ICMP's protocol number.
pub const ICMP: u8 = 1;
/// That of ICMP over IPv6.
pub const ICMPV6: u8 = 58;
/// That of TCP.
pub const TCP: u8 = 6;
/// Extension headers that may stand before TCP: options for each hop, routing, a fragment, options for the destination.
const EXTENSIONS: [u8; 4] = [0, 43, FRAGMENT, 60];
const FRAGMENT: u8 = 44;
/// The message by which a neighbour asks for an address.
const SOLICITATION: u8 = 135;

/// What a frame is, as far as it concerns a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Somebody asks who has an address, by ARP or neighbour discovery.
    Question(IpAddr),
    /// An IP packet that is no TCP, or a fragment of whatever.
    Ip { source: IpAddr, destination: IpAddr, protocol: u8, is_fragment: bool },
    /// A TCP segment whose header is all there.
    Tcp(Segment),
}

/// A recorded TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub control: Control,
    pub window: u16,
    /// Of the payload as it was sent, whether the capture has it or not.
    pub payload_bytes: u32,
    pub options: Options,
    /// Where the TCP header begins in the frame.
    pub(super) at: usize,
    /// Where the payload does.
    pub(super) payload_at: usize,
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
    pub(super) echo_at: usize,
    pub(super) sack_at: usize,
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

/// A field of 16 bits.
pub(super) fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn long(frame: &[u8], at: usize) -> Option<u32> {
    frame.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Looks at a frame, of which the capture has cut `cut_bytes` off; `None` where it is of no concern.
pub fn view(frame: &[u8], cut_bytes: u32) -> Option<View> {
    match word(frame, field::ETHERTYPE)? {
        0x0806 if word(frame, field::ARP_OPERATION)? == 1 => {
            Some(View::Question(Ipv4Addr::from_bits(long(frame, field::ARP_TARGET)?).into()))
        }
        0x0800 => view_ipv4(frame, cut_bytes),
        0x86dd => view_ipv6(frame, cut_bytes),
        _ => None,
    }
}

fn view_ipv4(frame: &[u8], cut_bytes: u32) -> Option<View> {
    let first = *frame.get(field::IP)?;
    let source = Ipv4Addr::from_bits(long(frame, field::SOURCE)?).into();
    let destination = Ipv4Addr::from_bits(long(frame, field::DESTINATION)?).into();
    let protocol = frame[field::PROTOCOL];
    let is_fragment = word(frame, field::FRAGMENT)? & 0x3fff != 0;
    let header_bytes = usize::from(first & 0xf) * 4;
    let other = View::Ip { source, destination, protocol, is_fragment };
    if protocol != TCP || is_fragment || first >> 4 != 4 || header_bytes < 20 {
        return Some(other);
    }
    let stated_end = match usize::from(word(frame, field::TOTAL_BYTES)?) {
        0 => None,
        total_bytes => Some(field::IP + total_bytes),
    };
    let end = stated_end.unwrap_or_else(|| end_of_all(frame, cut_bytes));
    Some(view_tcp(frame, [source, destination], field::IP + header_bytes, end).unwrap_or(other))
}

fn view_ipv6(frame: &[u8], cut_bytes: u32) -> Option<View> {
    let source = ipv6_at(frame, field::IPV6_SOURCE)?;
    let destination = ipv6_at(frame, field::IPV6_DESTINATION)?;
    let (mut protocol, mut at, mut is_fragment) = (frame[field::IPV6_NEXT_HEADER], field::IPV6_END, false);
    while EXTENSIONS.contains(&protocol) {
        is_fragment |= protocol == FRAGMENT && word(frame, at + 2)? & 0xfff9 != 0;
        let bytes = if protocol == FRAGMENT { 8 } else { 8 + 8 * usize::from(*frame.get(at + 1)?) };
        (protocol, at) = (*frame.get(at)?, at + bytes);
    }
    let other = View::Ip { source, destination, protocol, is_fragment };
    if protocol == ICMPV6 && frame.get(at) == Some(&SOLICITATION) {
        return ipv6_at(frame, at + 8).map(View::Question);
    }
    if protocol != TCP || is_fragment || frame[field::IP] >> 4 != 6 {
        return Some(other);
    }
    let stated_end = match usize::from(word(frame, field::IPV6_PAYLOAD_BYTES)?) {
        0 => None,
        payload_bytes => Some(field::IPV6_END + payload_bytes),
    };
    let end = stated_end.unwrap_or_else(|| end_of_all(frame, cut_bytes));
    Some(view_tcp(frame, [source, destination], at, end).unwrap_or(other))
}

fn ipv6_at(frame: &[u8], at: usize) -> Option<IpAddr> {
    Some(Ipv6Addr::from(*frame.get(at..)?.first_chunk::<16>()?).into())
}

/// Where a packet ends that does not say so: a host that leaves cutting to its network device may write the length 0.
fn end_of_all(frame: &[u8], cut_bytes: u32) -> usize {
    let captured_bytes = frame.len() - field::IP + cut_bytes as usize;
    field::IP + captured_bytes.min(usize::from(u16::MAX))
}

/// The segment whose header begins at `at`, in a packet that ends at `end`; `None` where it is not all there.
fn view_tcp(frame: &[u8], [source, destination]: [IpAddr; 2], at: usize, end: usize) -> Option<View> {
    let payload_at = at + usize::from(frame.get(at + field::TCP_HEADER_WORDS)? >> 4) * 4;
    let options = frame.get(at + field::TCP_OPTIONS..payload_at)?;
    Some(View::Tcp(Segment {
        source: SocketAddr::new(source, word(frame, at)?),
        destination: SocketAddr::new(destination, word(frame, at + 2)?),
        seq: long(frame, at + 4)?,
        ack: long(frame, at + field::TCP_ACK)?,
        control: Control(frame[at + field::TCP_CONTROL] & 0x3f),
        window: word(frame, at + field::TCP_WINDOW)?,
        payload_bytes: end.saturating_sub(payload_at) as u32,
        options: read_options(options, at + field::TCP_OPTIONS),
        at,
        payload_at,
    }))
}

/// Calls `take` with the kind, the value and the offset of the value of each option.
pub(super) fn walk(options: &[u8], mut take: impl FnMut(u8, &[u8], usize)) {
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
