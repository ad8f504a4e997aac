//! Frames of attacks that are no segments: a fragment of one, and a message that one was too large.

use std::net::IpAddr;

use holdline::wire::{Addressing, Sum};

/// What a forged frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// The segment.
    Segment,
    /// A full fragment from the middle of the packet with this number, which the segment is taken to be in.
    Fragment(u16),
    /// An ICMP message that a segment of the shard's, which begins with what is acknowledged here, was larger than
    /// this.
    TooBig(u16),
}

const FRAGMENT_BYTES: usize = 1_480;
const TCP: u8 = 6;
const ICMP: u8 = 1;

/// Appends a fragment between the ends of a segment.
pub fn write_fragment(out: &mut Vec<u8>, ends: &Addressing, number: u16) {
    const MORE: u16 = 0x2000;
    let start = write_ethernet(out, ends);
    write_ipv4(out, (ends.local, ends.remote), TCP, FRAGMENT_BYTES, (number, MORE | (FRAGMENT_BYTES / 8) as u16));
    out.resize(start + 14 + 20 + FRAGMENT_BYTES, 0x5a);
}

/// Appends a message about a segment of full size from the other end.
pub fn write_too_big(out: &mut Vec<u8>, ends: &Addressing, seq: u32, mtu: u16) {
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend_from_slice(&mtu.to_be_bytes());
    write_ipv4(&mut icmp, (ends.remote, ends.local), TCP, 1_480, (0, 0x4000));
    icmp.extend_from_slice(&ends.remote_port.to_be_bytes());
    icmp.extend_from_slice(&ends.local_port.to_be_bytes());
    icmp.extend_from_slice(&seq.to_be_bytes());
    let checksum = Sum::default().add_bytes(&icmp).finish();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    write_ethernet(out, ends);
    write_ipv4(out, (ends.local, ends.remote), ICMP, icmp.len(), (0, 0x4000));
    out.extend_from_slice(&icmp);
}

fn write_ethernet(out: &mut Vec<u8>, ends: &Addressing) -> usize {
    let start = out.len();
    out.extend_from_slice(&ends.destination_mac);
    out.extend_from_slice(&ends.source_mac);
    out.extend_from_slice(&[8, 0]);
    start
}

fn write_ipv4(
    out: &mut Vec<u8>,
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    bytes: usize,
    (number, flags): (u16, u16),
) {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("attacks are over IPv4") };
    let start = out.len();
    out.extend_from_slice(&[0x45, 0]);
    out.extend_from_slice(&(20 + bytes as u16).to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[64, protocol, 0, 0]);
    out.extend_from_slice(&from.octets());
    out.extend_from_slice(&to.octets());
    let checksum = Sum::default().add_bytes(&out[start..]).finish();
    out[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
}
