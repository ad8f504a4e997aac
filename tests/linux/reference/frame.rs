//! Frames: a crafted segment as bytes, from its Ethernet header on.
//!
//! Written for these tests alone, so that a mistake of the stack's own `wire` cannot hide itself.

use std::net::Ipv4Addr;

use super::crafted::{Damage, Ends, Segment};

/// The frame of a segment.
pub fn build(segment: &Segment, ends: &Ends, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let mut ip = Ip { ends: *ends, first: 0x45, protocol: 6, ..Ip::default() };
    for damage in &segment.damage {
        ip.take(damage);
    }
    let mut tcp = Vec::new();
    tcp.extend(ends.client_port.to_be_bytes());
    tcp.extend(ends.server_port.to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    let options_bytes = segment.options.len().next_multiple_of(4);
    tcp.extend([((5 + options_bytes / 4) as u8) << 4, segment.control]);
    tcp.extend(segment.window.to_be_bytes());
    tcp.extend([0, 0]);
    tcp.extend(segment.urgent.to_be_bytes());
    tcp.extend(&segment.options);
    tcp.resize(20 + options_bytes, 0);
    tcp.extend(payload);
    let mut flipped = 0;
    for damage in &segment.damage {
        match damage {
            Damage::DataOffset(words) => tcp[12] = words << 4 | tcp[12] & 0x0f,
            Damage::Reserved(bits) => tcp[12] |= bits & 0x0f,
            Damage::Ecn(bits) => tcp[13] |= bits << 6,
            Damage::TcpChecksum(bits) => flipped = *bits,
            _ => {}
        }
    }
    let mut pseudo = Vec::new();
    pseudo.extend(ip.from().octets());
    pseudo.extend(ip.to().octets());
    pseudo.extend([0, 6]);
    pseudo.extend((tcp.len() as u16).to_be_bytes());
    let sum = checksum(&[&pseudo, &tcp]) ^ flipped;
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    ip.frame(&tcp)
}

/// An echo request, by which the client learns that everything before it was dealt with.
pub fn ping(ends: &Ends, id: u16) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0];
    icmp.extend(id.to_be_bytes());
    icmp.extend([0, 0]);
    let sum = checksum(&[&icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Ip { ends: *ends, first: 0x45, protocol: 1, ..Ip::default() }.frame(&icmp)
}

/// The answer to an ARP request for an address of the client's; `None` where the frame is none.
pub fn arp_answer(frame: &[u8], ends: &Ends) -> Option<Vec<u8>> {
    let is_request = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 1];
    let is_for_client = is_request && frame[38..42] == ends.client.octets();
    is_for_client.then(|| {
        let mut answer = Vec::new();
        answer.extend(&frame[6..12]);
        answer.extend(ends.client_mac);
        answer.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        answer.extend(ends.client_mac);
        answer.extend(&frame[38..42]);
        answer.extend(&frame[22..32]);
        answer
    })
}

/// The Internet checksum of `parts`, each of an even length but for the last (RFC 1071).
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The IPv4 header and what is around it.
#[derive(Clone, Debug, Default)]
struct Ip {
    ends: Ends,
    first: u8,
    protocol: u8,
    tos: u8,
    ttl: Option<u8>,
    fragment: Option<u16>,
    options: Vec<u8>,
    length_off: i32,
    flipped: u16,
    from: Option<Ipv4Addr>,
    to: Option<Ipv4Addr>,
    truncated: usize,
    padded: usize,
}

impl Ip {
    fn take(&mut self, damage: &Damage) {
        match damage {
            Damage::IpChecksum(bits) => self.flipped = *bits,
            Damage::Version(version) => self.first = version << 4 | self.first & 0x0f,
            Damage::HeaderWords(words) => self.first = self.first & 0xf0 | words,
            Damage::TotalLength(by) => self.length_off = *by,
            Damage::Truncate(bytes) => self.truncated = *bytes,
            Damage::Pad(bytes) => self.padded = *bytes,
            Damage::Fragment(field) => self.fragment = Some(*field),
            Damage::IpOptions(options) => {
                self.options = options.clone();
                self.options.resize(options.len().next_multiple_of(4), 0);
                self.first += (self.options.len() / 4) as u8;
            }
            Damage::Ttl(ttl) => self.ttl = Some(*ttl),
            Damage::Tos(tos) => self.tos = *tos,
            Damage::Protocol(protocol) => self.protocol = *protocol,
            Damage::From(address) => self.from = Some(*address),
            Damage::To(address) => self.to = Some(*address),
            Damage::ToMac(mac) => self.ends.server_mac = *mac,
            Damage::TcpChecksum(_) | Damage::DataOffset(_) | Damage::Reserved(_) | Damage::Ecn(_) => {}
        }
    }

    fn from(&self) -> Ipv4Addr {
        self.from.unwrap_or(self.ends.client)
    }

    fn to(&self) -> Ipv4Addr {
        self.to.unwrap_or(self.ends.server)
    }

    fn frame(&self, body: &[u8]) -> Vec<u8> {
        let total = (20 + self.options.len() + body.len()) as u16;
        let mut header = vec![self.first, self.tos];
        header.extend(total.wrapping_add_signed(self.length_off as i16).to_be_bytes());
        header.extend([0, 0]);
        header.extend(self.fragment.unwrap_or(0x4000).to_be_bytes());
        header.extend([self.ttl.unwrap_or(64), self.protocol, 0, 0]);
        header.extend(self.from().octets());
        header.extend(self.to().octets());
        header.extend(&self.options);
        let sum = checksum(&[&header]) ^ self.flipped;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [&self.ends.server_mac[..], &self.ends.client_mac, &[8, 0], &header, body].concat();
        frame.truncate(frame.len() - self.truncated);
        frame.resize(frame.len() + self.padded, 0);
        frame
    }
}
