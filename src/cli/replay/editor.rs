//! Editor: how a recorded segment is changed without hiding what was wrong with it.
//!
//! Changes in place carry every checksum along by its difference (RFC 1624), so that a checksum that was right stays
//! right and one that was wrong stays wrong.

use std::net::IpAddr;

use holdline::wire::Sum;
use holdline::wire::field::tcp::option;
use holdline::wire::field::{ipv4, ipv6, protocol, tcp, u16_in};

use super::packet::{IP, Negotiated, Segment, walk};

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
        self.segment.at + tcp::CHECKSUM
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
        let (source, destination) = (self.segment.source.ip(), self.segment.destination.ip());
        Sum::default().add_pseudo_header(source, destination, protocol::TCP, tcp_bytes)
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
        let recorded = u16_in(tcp, tcp::CHECKSUM).unwrap_or_default();
        let is_partial = [tcp.len(), 0].iter().any(|&bytes| recorded == !self.pseudo_header(bytes).finish());
        if is_partial { Checksum::Partial } else { Checksum::Wrong }
    }

    fn is_ipv4(&self) -> bool {
        self.segment.source.is_ipv4()
    }

    /// Whether the IP header's checksum is right; one of IPv6 has none.
    pub fn is_ip_checksum_right(&self) -> bool {
        !self.is_ipv4() || Sum::default().add_bytes(&self.frame[IP..self.segment.at]).finish() == 0
    }

    /// Makes the IP header's checksum right, and a length of 0 what it means.
    pub fn fix_ip_checksum(&mut self) {
        let end = self.segment.payload_at + self.segment.payload_bytes as usize;
        if !self.is_ipv4() {
            return self.put(IP + ipv6::PAYLOAD_BYTES, &((end - IP - ipv6::BYTES) as u16).to_be_bytes());
        }
        self.put(IP + ipv4::TOTAL_BYTES, &((end - IP) as u16).to_be_bytes());
        self.put(IP + ipv4::CHECKSUM, &[0, 0]);
        let sum = Sum::default().add_bytes(&self.frame[IP..self.segment.at]).finish();
        self.put(IP + ipv4::CHECKSUM, &sum.to_be_bytes());
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
        let at = if self.is_ipv4() { IP + ipv4::TOTAL_BYTES } else { IP + ipv6::PAYLOAD_BYTES };
        u16_in(self.frame, at) == Some(0)
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
        let before = u16_in(self.frame, checksum_at).unwrap_or_default();
        let without_old =
            Sum::default().add_words(&[u32::from(!before) << 16 | u32::from(Sum::default().add_bytes(old).finish())]);
        let after = without_old.add_bytes(new).finish();
        self.put(checksum_at, &after.to_be_bytes());
    }

    /// Acknowledges something else.
    pub fn set_ack(&mut self, ack: u32) {
        self.replace(self.segment.at + tcp::ACK, &ack.to_be_bytes());
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
    pub fn erase(&mut self, negotiated: Negotiated) {
        let (start, mut found) = (self.segment.at + tcp::BYTES, None);
        walk(&self.frame[start..self.segment.payload_at], |kind, value, at| {
            if kind == negotiated as u8 {
                found = Some((start + at - 2, value.len() + 2));
            }
        });
        if let Some((at, bytes)) = found {
            self.replace(at, &vec![option::NO_OPERATION; bytes]);
        }
    }

    /// Moves the packet to other addresses of its family.
    pub fn set_addresses(&mut self, source: IpAddr, destination: IpAddr) {
        let (at, new) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                (IP + ipv4::SOURCE, [source.octets(), destination.octets()].concat())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                (IP + ipv6::SOURCE, [source.octets(), destination.octets()].concat())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("both addresses of a packet are mapped within their family")
            }
        };
        let old = self.frame[at..at + new.len()].to_vec();
        self.put(at, &new);
        if self.is_ipv4() {
            self.carry(IP + ipv4::CHECKSUM, &old, &new);
        }
        self.carry(self.tcp_checksum_at(), &old, &new);
        self.segment.source.set_ip(source);
        self.segment.destination.set_ip(destination);
    }
}
