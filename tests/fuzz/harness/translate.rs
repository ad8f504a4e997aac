//! Translation: tests speak IPv4, and where the wire is IPv6 what goes in and comes out is translated on the way.
//!
//! ```text
//! 10.0.0.X <-> fd00::10.0.0.X     ARP <-> neighbour discovery     ICMP <-> ICMPv6     TCP with another pseudo header
//! ```
//!
//! So all that tests know holds of both families. A checksum that was wrong stays wrong; what is no sound IPv4 goes in
//! as it is. The fuzz harness and the reference tests share this; it uses nothing of either.

use std::net::{IpAddr, Ipv6Addr};

/// What is on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Ipv4,
    Ipv6,
}

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const PREFIX: [u8; 12] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

impl Family {
    /// An address of the harness on this wire.
    pub fn on_wire(self, address: [u8; 4]) -> IpAddr {
        match self {
            Family::Ipv4 => address.into(),
            Family::Ipv6 => Ipv6Addr::from(six(&address)).into(),
        }
    }
}

impl Family {
    /// A frame as it goes in on this wire.
    pub fn going(self, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Family::Ipv4 => out.extend_from_slice(frame),
            Family::Ipv6 => going(frame, &mut out),
        }
        out
    }

    /// A frame that came out on this wire, as one of IPv4; `None` for what only IPv6 has. One that is wrong is a
    /// failure of the stack that sent it.
    pub fn coming(self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Family::Ipv4 => out.extend_from_slice(frame),
            Family::Ipv6 => coming(frame, &mut out).unwrap_or_else(|what| panic!("{what}: {frame:02x?}"))?,
        }
        Some(out)
    }
}

/// An address on the wire as the harness knows it.
pub fn off_wire(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => address.octets()[12..].try_into().expect("four bytes"),
    }
}

fn six(address: &[u8]) -> [u8; 16] {
    let mut six = [0; 16];
    six[..12].copy_from_slice(&PREFIX);
    six[12..].copy_from_slice(address);
    six
}

/// Appends `frame`, which is one of IPv4 or ARP if it is sound, as one of IPv6.
pub fn going(frame: &[u8], out: &mut Vec<u8>) {
    let packet = frame.get(ETHERNET_BYTES..).unwrap_or_default();
    let is_done = match frame.get(12..14) {
        Some([8, 0]) => packet_going(frame, packet, out),
        Some([8, 6]) if packet.len() >= 28 => {
            neighbor_going(frame, packet, out);
            true
        }
        _ => false,
    };
    if !is_done {
        out.extend_from_slice(frame);
    }
}

fn packet_going(frame: &[u8], packet: &[u8], out: &mut Vec<u8>) -> bool {
    if packet.len() < IPV4_BYTES {
        return false;
    }
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    let total_bytes = usize::from(word_at(packet, 2));
    let is_sound = packet[0] >> 4 == 4
        && (IPV4_BYTES..=total_bytes).contains(&header_bytes)
        && total_bytes <= packet.len()
        && folded(sum(&packet[..header_bytes])) == 0
        && word_at(packet, 6) & 0x3fff == 0;
    if !is_sound {
        return false;
    }
    let start = out.len();
    out.extend_from_slice(&frame[..12]);
    out.extend_from_slice(&[0x86, 0xdd, 0x60 | packet[1] >> 4, packet[1] << 4, 0, 0]);
    out.extend_from_slice(&((total_bytes - header_bytes) as u16).to_be_bytes());
    let protocol = if packet[9] == 1 { ICMPV6 } else { packet[9] };
    out.extend_from_slice(&[protocol, packet[8]]);
    out.extend_from_slice(&six(&packet[12..16]));
    out.extend_from_slice(&six(&packet[16..20]));
    let body = &packet[header_bytes..total_bytes];
    let pseudo = sum(&packet[12..20]) + u32::from(packet[9]) + body.len() as u32;
    let is_right = folded(sum(body) + if packet[9] == 6 { pseudo } else { 0 }) == 0;
    match packet[9] {
        1 if body.len() >= 8 => icmp_going(body, out),
        _ => out.extend_from_slice(body),
    }
    out.extend_from_slice(&packet[total_bytes..]);
    set_checksum(&mut out[start..], if is_right { 0 } else { 0x55 });
    true
}

/// The message that says the same; what an error quotes is translated too.
fn icmp_going(body: &[u8], out: &mut Vec<u8>) {
    let (kind, code) = match (body[0], body[1]) {
        (0, code) => (129, code),
        (8, code) => (128, code),
        (3, 2) => (1, 1),
        (3, 3) => (1, 4),
        (3, 4) => (2, 0),
        (3, _) => (1, 0),
        (11, code) => (3, code),
        (12, code) => (4, code),
        (other, code) => (other | 0x60, code),
    };
    out.extend_from_slice(&[kind, code]);
    out.extend_from_slice(&body[2..8]);
    let quoted = &body[8..];
    if kind >= 128 || quoted.len() < IPV4_BYTES {
        return out.extend_from_slice(quoted);
    }
    let [length_high, length_low] = word_at(quoted, 2).saturating_sub(IPV4_BYTES as u16).to_be_bytes();
    out.extend_from_slice(&[quoted[0] >> 4 << 4 ^ 0x20, 0, 0, 0, length_high, length_low, quoted[9], quoted[8]]);
    out.extend_from_slice(&six(&quoted[12..16]));
    out.extend_from_slice(&six(&quoted[16..20]));
    out.extend_from_slice(quoted.get(usize::from(quoted[0] & 0x0f) * 4..).unwrap_or_default());
}

/// A neighbour's question or answer.
fn neighbor_going(frame: &[u8], arp: &[u8], out: &mut Vec<u8>) {
    let is_question = word_at(arp, 6) == 1;
    let (sender, target) = (six(&arp[14..18]), six(&arp[24..28]));
    let about = if is_question { target } else { sender };
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, about[13], about[14], about[15]];
    let start = out.len();
    if is_question {
        out.extend_from_slice(&[0x33, 0x33, 0xff, about[13], about[14], about[15]]);
    } else {
        out.extend_from_slice(&frame[..6]);
    }
    out.extend_from_slice(&frame[6..12]);
    out.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    out.extend_from_slice(&sender);
    out.extend_from_slice(if is_question { &group } else { &target });
    let (kind, flags, link) = if is_question { (SOLICITATION, 0, 1) } else { (ADVERTISEMENT, 0x60, 2) };
    out.extend_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
    out.extend_from_slice(&about);
    out.extend_from_slice(&[link, 1]);
    out.extend_from_slice(&arp[8..14]);
    set_checksum(&mut out[start..], 0);
}

/// Appends a frame of IPv6 to `server_mac` that is neither TCP nor anything that peers say: a header of some kind, or a
/// router's words.
pub fn strange(out: &mut Vec<u8>, [server_mac, mac]: [[u8; 6]; 2], (remote, local): ([u8; 4], [u8; 4]), byte: u8) {
    const PAD: [u8; 6] = [1, 4, 0, 0, 0, 0];
    // The kind of the first header, the bytes behind its next header and length, and what follows it.
    let (kind, extension, next): (u8, &[u8], u8) = match byte >> 3 & 15 {
        0 => (0, &PAD, 6),
        1 => (60, &[0x9e, 4, 0, 0, 0, 0], 6),
        2 => (60, &[0x5e, 4, 0, 0, 0, 0], 6),
        3 => (60, &PAD, 0),
        4 => (43, &[0, 1, 0, 0, 0, 0], 6),
        5 => (43, &[0, 0, 0, 0, 0, 0], 17),
        6 => (44, &[0, 1, 0, 0, 0, byte], 6),
        7 => (44, &[0, 0, 0, 0, 0, byte], 6),
        8 => (60, &[0x1e, 0, 0x1e, 0, 0x1e, 5], 6),
        9 => (60, &PAD, 59),
        _ => return router(out, mac, byte),
    };
    let start = out.len();
    out.extend_from_slice(&server_mac);
    out.extend_from_slice(&mac);
    out.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8 + 20, kind, 64]);
    out.extend_from_slice(&six(&remote));
    out.extend_from_slice(&six(&local));
    out.extend_from_slice(&[next, 0]);
    out.extend_from_slice(extension);
    // A segment that no connection takes.
    out.extend_from_slice(&[0, 7, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 4, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut out[start..], 0);
}

/// A router's advertisement; its lifetime is 0 where the lowest bit of `byte` is not set.
fn router(out: &mut Vec<u8>, mac: [u8; 6], byte: u8) {
    let start = out.len();
    out.extend_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    out.extend_from_slice(&mac);
    out.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 56, ICMPV6, 255 - (byte >> 1 & 1)]);
    out.extend_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte >> 2 & 1]);
    out.extend_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    out.extend_from_slice(&[134, 0, 0, 0, 64, 0, 0, (byte & 1) * 90, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    out.extend_from_slice(&mac);
    out.extend_from_slice(&[3, 4, 64, 0x80, 0, 0, 0, byte, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, byte, 0, 0, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut out[start..], 0);
}

/// Where TCP or ICMPv6 begins in a frame of IPv6, and which of them, as far as its headers can be followed.
fn upper(frame: &[u8]) -> Option<(u8, usize)> {
    let (mut kind, mut at) = (*frame.get(ETHERNET_BYTES + 6)?, ETHERNET_BYTES + IPV6_BYTES);
    while matches!(kind, 0 | 43 | 44 | 60) {
        let length = if kind == 44 { 8 } else { 8 + 8 * usize::from(*frame.get(at + 1)?) };
        (kind, at) = (*frame.get(at)?, at + length);
    }
    Some((kind, at))
}

/// Writes the checksum that a frame of IPv6 ought to have, or one that is wrong by `error`.
pub fn set_checksum(frame: &mut [u8], error: u16) {
    let Some((kind, at)) = upper(frame) else { return };
    let end = (ETHERNET_BYTES + IPV6_BYTES + usize::from(word_at(frame, ETHERNET_BYTES + 4))).min(frame.len());
    let offset = match kind {
        6 => 16,
        ICMPV6 => 2,
        _ => return,
    };
    if at + offset + 2 > end {
        return;
    }
    frame[at + offset..at + offset + 2].fill(0);
    let pseudo = sum(&frame[ETHERNET_BYTES + 8..ETHERNET_BYTES + IPV6_BYTES]) + u32::from(kind) + (end - at) as u32;
    let checksum = folded(pseudo + sum(&frame[at..end])) ^ error;
    frame[at + offset..at + offset + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// A frame that came out over IPv6 as one of IPv4. `None` for what only IPv6 has. The error says what is wrong.
pub fn coming(frame: &[u8], out: &mut Vec<u8>) -> Result<Option<()>, &'static str> {
    let Some((header, body)) = frame.get(ETHERNET_BYTES..).and_then(|packet| packet.split_at_checked(IPV6_BYTES))
    else {
        return Err("a frame that is too short for IPv6");
    };
    if word_at(frame, 12) != 0x86dd || header[0] >> 4 != 6 || usize::from(word_at(header, 4)) != body.len() {
        return Err("an IPv6 header that does not fit");
    }
    if header[6] == 44 && body.len() > 8 && body[0] == ICMPV6 && frame.len() <= ETHERNET_BYTES + 1_280 {
        // A part of the answer to a large echo request.
        return Ok(None);
    }
    let pseudo = sum(&header[8..]) + u32::from(header[6]) + body.len() as u32;
    if folded(pseudo + sum(body)) != 0 {
        return Err("a wrong checksum over IPv6");
    }
    if header[6] == ICMPV6 && body.len() >= 8 {
        let is_discovery = (133..=137).contains(&body[0]);
        if is_discovery && header[7] != 255 {
            return Err("a wrong hop limit");
        }
        return Ok(icmp_coming(frame, header, body, out));
    }
    if header[6] == 0 {
        // Multicast listeners, of whom only a kernel tells.
        return Ok(None);
    }
    if header[6] == 6 && header[8..20] == PREFIX && header[24..36] != PREFIX {
        // To one of the many that IPv4 has no address for: nobody whose connection is looked at.
        return Ok(None);
    }
    if header[6] != 6 || header[8..20] != PREFIX || header[24..36] != PREFIX {
        return Err("neither TCP nor ICMPv6, or of strange addresses");
    }
    packet_coming(frame, header, (6, 16), body, out);
    Ok(Some(()))
}

/// Appends the packet, whose protocol has its checksum at that place, as one of IPv4.
fn packet_coming(frame: &[u8], header: &[u8], (protocol, checksum_at): (u8, usize), body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&frame[..12]);
    out.extend_from_slice(&[8, 0]);
    let at = out.len();
    out.extend_from_slice(&[0x45, header[0] << 4 | header[1] >> 4]);
    out.extend_from_slice(&((IPV4_BYTES + body.len()) as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0x40, 0, header[7], protocol, 0, 0]);
    out.extend_from_slice(&header[20..24]);
    out.extend_from_slice(&header[36..40]);
    let checksum = folded(sum(&out[at..])).to_be_bytes();
    out[at + 10..at + 12].copy_from_slice(&checksum);
    out.extend_from_slice(body);
    let (header, body) = out[at..].split_at_mut(IPV4_BYTES);
    body[checksum_at..checksum_at + 2].fill(0);
    let pseudo = sum(&header[12..20]) + u32::from(protocol) + body.len() as u32;
    let checksum = folded(sum(body) + if protocol == 6 { pseudo } else { 0 }).to_be_bytes();
    body[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
}

/// Appends a question for a neighbour as one by ARP, or the answer to an echo. `None` for anything else.
fn icmp_coming(frame: &[u8], header: &[u8], body: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match body[0] {
        129 => {
            let reply = [&[0, 0, 0, 0], &body[4..]].concat();
            packet_coming(frame, header, (1, 2), &reply, out);
        }
        SOLICITATION if body.len() >= 24 && header[8..20] == PREFIX && body[8..20] == PREFIX => {
            out.extend_from_slice(&[0xff; 6]);
            out.extend_from_slice(&frame[6..12]);
            out.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            out.extend_from_slice(&frame[6..12]);
            out.extend_from_slice(&header[20..24]);
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&body[20..24]);
        }
        _ => return None,
    }
    Some(())
}

/// Adds words of the Internet checksum (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let whole: u32 = pairs.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
    whole + rest.first().map_or(0, |&byte| u32::from(byte) << 8)
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn word_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
