//! Recorded packets: where their fields stand.
//!
//! In: Ethernet frames of captures, which may be cut, broken or of another protocol. Out: a [`View`] of what is IP and
//! can be told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use holdline::tcp::Control;
use holdline::wire::field::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMPV6, ROUTING, TCP};
use holdline::wire::field::tcp::option;
use holdline::wire::field::{ethernet, ipv4, ipv6, tcp, u16_in, u32_in};

/// Where the IP header begins in a frame, or an ARP message.
pub(super) const IP: usize = ethernet::BYTES;
const ARP_OPERATION: usize = IP + 6;
const ARP_TARGET: usize = IP + 24;
/// Extension headers that may stand before TCP.
const EXTENSIONS: [u8; 4] = [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS];
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
#[repr(u8)]
pub enum Negotiated {
    WindowScale = option::WINDOW_SCALE,
    SackPermitted = option::SACK_PERMITTED,
    Timestamps = option::TIMESTAMPS,
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

/// Looks at a frame, of which the capture has cut `cut_bytes` off; `None` where it is of no concern.
pub fn view(frame: &[u8], cut_bytes: u32) -> Option<View> {
    match u16_in(frame, ethernet::TYPE)? {
        ethernet::TYPE_ARP if u16_in(frame, ARP_OPERATION)? == 1 => {
            Some(View::Question(Ipv4Addr::from_bits(u32_in(frame, ARP_TARGET)?).into()))
        }
        ethernet::TYPE_IPV4 => view_ipv4(frame, cut_bytes),
        ethernet::TYPE_IPV6 => view_ipv6(frame, cut_bytes),
        _ => None,
    }
}

fn view_ipv4(frame: &[u8], cut_bytes: u32) -> Option<View> {
    let first = *frame.get(IP)?;
    let source = Ipv4Addr::from_bits(u32_in(frame, IP + ipv4::SOURCE)?).into();
    let destination = Ipv4Addr::from_bits(u32_in(frame, IP + ipv4::DESTINATION)?).into();
    let protocol = frame[IP + ipv4::PROTOCOL];
    let is_fragment = u16_in(frame, IP + ipv4::FRAGMENT)? & ipv4::FRAGMENT_BITS != 0;
    let header_bytes = usize::from(first & 0xf) * 4;
    let other = View::Ip { source, destination, protocol, is_fragment };
    if protocol != TCP || is_fragment || first >> 4 != 4 || header_bytes < ipv4::BYTES {
        return Some(other);
    }
    let stated_end = match usize::from(u16_in(frame, IP + ipv4::TOTAL_BYTES)?) {
        0 => None,
        total_bytes => Some(IP + total_bytes),
    };
    let end = stated_end.unwrap_or_else(|| end_of_all(frame, cut_bytes));
    Some(view_tcp(frame, [source, destination], IP + header_bytes, end).unwrap_or(other))
}

fn view_ipv6(frame: &[u8], cut_bytes: u32) -> Option<View> {
    let source = ipv6_at(frame, IP + ipv6::SOURCE)?;
    let destination = ipv6_at(frame, IP + ipv6::DESTINATION)?;
    let (mut protocol, mut at, mut is_fragment) = (frame[IP + ipv6::NEXT_HEADER], IP + ipv6::BYTES, false);
    while EXTENSIONS.contains(&protocol) {
        is_fragment |= protocol == FRAGMENT && u16_in(frame, at + 2)? & 0xfff9 != 0;
        let bytes = if protocol == FRAGMENT { 8 } else { 8 + 8 * usize::from(*frame.get(at + 1)?) };
        (protocol, at) = (*frame.get(at)?, at + bytes);
    }
    let other = View::Ip { source, destination, protocol, is_fragment };
    if protocol == ICMPV6 && frame.get(at) == Some(&SOLICITATION) {
        return ipv6_at(frame, at + 8).map(View::Question);
    }
    if protocol != TCP || is_fragment || frame[IP] >> 4 != 6 {
        return Some(other);
    }
    let stated_end = match usize::from(u16_in(frame, IP + ipv6::PAYLOAD_BYTES)?) {
        0 => None,
        payload_bytes => Some(IP + ipv6::BYTES + payload_bytes),
    };
    let end = stated_end.unwrap_or_else(|| end_of_all(frame, cut_bytes));
    Some(view_tcp(frame, [source, destination], at, end).unwrap_or(other))
}

fn ipv6_at(frame: &[u8], at: usize) -> Option<IpAddr> {
    Some(Ipv6Addr::from(*frame.get(at..)?.first_chunk::<16>()?).into())
}

/// Where a packet ends that does not say so: a host that leaves cutting to its network device may write the length 0.
fn end_of_all(frame: &[u8], cut_bytes: u32) -> usize {
    let captured_bytes = frame.len() - IP + cut_bytes as usize;
    IP + captured_bytes.min(usize::from(u16::MAX))
}

/// The segment whose header begins at `at`, in a packet that ends at `end`; `None` where it is not all there.
fn view_tcp(frame: &[u8], [source, destination]: [IpAddr; 2], at: usize, end: usize) -> Option<View> {
    let payload_at = at + usize::from(frame.get(at + tcp::DATA_OFFSET)? >> 4) * 4;
    let options = frame.get(at + tcp::BYTES..payload_at)?;
    Some(View::Tcp(Segment {
        source: SocketAddr::new(source, u16_in(frame, at + tcp::SOURCE_PORT)?),
        destination: SocketAddr::new(destination, u16_in(frame, at + tcp::DESTINATION_PORT)?),
        seq: u32_in(frame, at + tcp::SEQ)?,
        ack: u32_in(frame, at + tcp::ACK)?,
        control: Control(frame[at + tcp::CONTROL] & 0x3f),
        window: u16_in(frame, at + tcp::WINDOW)?,
        payload_bytes: end.saturating_sub(payload_at) as u32,
        options: read_options(options, at + tcp::BYTES),
        at,
        payload_at,
    }))
}

/// Calls `take` with the kind, the value and the offset of the value of each option.
pub(super) fn walk(options: &[u8], mut take: impl FnMut(u8, &[u8], usize)) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if kind == option::END {
            return;
        }
        if kind == option::NO_OPERATION {
            at += 1;
            continue;
        }
        let length = options.get(at + 1).map_or(0, |length| usize::from(*length));
        let Some(value) = options.get(at + 2..at + length) else { return };
        take(kind, value, at + 2);
        at += length;
    }
}

fn read_options(bytes: &[u8], start: usize) -> Options {
    let mut options = Options::default();
    walk(bytes, |kind, value, at| match (kind, value) {
        (option::MSS, &[high, low]) => options.mss = Some(u16::from_be_bytes([high, low])),
        (option::WINDOW_SCALE, &[shift]) => options.window_shift = Some(shift),
        (option::SACK_PERMITTED, []) => options.has_sack_permitted = true,
        (option::SACK, edges) => {
            let (pairs, _) = edges.as_chunks::<8>();
            for (place, pair) in options.sack.iter_mut().zip(pairs) {
                *place = u32_in(pair, 0).zip(u32_in(pair, 4));
            }
            options.sack_at = start + at;
        }
        (option::TIMESTAMPS, times) => {
            options.timestamps = u32_in(times, 0).zip(u32_in(times, 4)).filter(|_| times.len() == 8);
            options.echo_at = start + at + 4;
        }
        _ => {}
    });
    options
}
