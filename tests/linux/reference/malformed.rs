//! Malformed packets: what may be wrong with a header, or unusual about it.

use std::net::Ipv4Addr;

use super::crafted::Damage;
use super::stack::SERVER;

/// What is done to one packet; most are one thing.
pub fn damages() -> Vec<Vec<Damage>> {
    let mut damages: Vec<Vec<Damage>> = tcp_header().into_iter().map(|damage| vec![damage]).collect();
    damages.extend(ip_header().into_iter().map(|damage| vec![damage]));
    damages.extend(ip_options().into_iter().map(|options| vec![Damage::IpOptions(options)]));
    damages.extend(addresses().into_iter().map(|damage| vec![damage]));
    damages
}

fn tcp_header() -> Vec<Damage> {
    vec![
        Damage::TcpChecksum(0x0010),
        Damage::TcpChecksum(0x8000),
        Damage::TcpChecksum(0xffff),
        Damage::DataOffset(0),
        Damage::DataOffset(1),
        Damage::DataOffset(4),
        Damage::DataOffset(9),
        Damage::DataOffset(15),
        Damage::Reserved(0x0e),
        Damage::Reserved(0x01),
        Damage::Ecn(1),
        Damage::Ecn(3),
    ]
}

fn ip_header() -> Vec<Damage> {
    vec![
        Damage::IpChecksum(0x0001),
        Damage::IpChecksum(0xffff),
        Damage::Version(0),
        Damage::Version(5),
        Damage::Version(6),
        Damage::HeaderWords(0),
        Damage::HeaderWords(4),
        Damage::HeaderWords(6),
        Damage::HeaderWords(15),
        Damage::TotalLength(-1),
        Damage::TotalLength(-2),
        Damage::TotalLength(-12),
        Damage::TotalLength(-14),
        Damage::TotalLength(-30),
        Damage::TotalLength(1),
        Damage::TotalLength(1_000),
        Damage::Truncate(1),
        Damage::Truncate(12),
        Damage::Truncate(13),
        Damage::Truncate(25),
        Damage::Truncate(35),
        Damage::Pad(1),
        Damage::Pad(6),
        Damage::Pad(100),
        Damage::Fragment(0),
        Damage::Fragment(0x2000),
        Damage::Fragment(0x0001),
        Damage::Fragment(0x1fff),
        Damage::Fragment(0x8000),
        Damage::Ttl(0),
        Damage::Ttl(1),
        Damage::Ttl(255),
        Damage::Tos(0xff),
        Damage::Protocol(253),
    ]
}

fn ip_options() -> Vec<Vec<u8>> {
    let address = SERVER.octets();
    let [a, b, c, d] = address;
    vec![
        vec![1, 1, 1, 1],
        vec![0, 0, 0, 0],
        vec![0, 1, 2, 3],
        // Record route, with and without room; source routes, done and not done.
        vec![7, 7, 4, 0, 0, 0, 0],
        vec![7, 7, 8, 0, 0, 0, 0],
        vec![131, 7, 4, a, b, c, d],
        vec![131, 7, 8, a, b, c, d],
        vec![137, 7, 4, a, b, c, d],
        vec![137, 7, 8, a, b, c, d],
        // Time stamp; router alert; security; an unknown one.
        vec![68, 8, 5, 0, 0, 0, 0, 0],
        vec![148, 4, 0, 0],
        vec![130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![99, 4, 0, 0],
        // Lengths that cannot be.
        vec![7, 0, 4, 0],
        vec![7, 1, 4, 0],
        vec![7, 40, 4, 0],
        vec![99, 0, 0, 0],
        vec![99, 60, 0, 0],
        vec![1, 1, 1, 99],
    ]
}

fn addresses() -> Vec<Damage> {
    let mut damages: Vec<Damage> = [
        SERVER,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(10, 90, 255, 255),
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(239, 1, 2, 3),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::new(0, 1, 2, 3),
    ]
    .map(Damage::From)
    .to_vec();
    let strange = [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 90, 255, 255), Ipv4Addr::new(224, 0, 0, 1)];
    damages.extend(strange.map(Damage::To));
    damages.push(Damage::To(Ipv4Addr::new(10, 90, 0, 3)));
    damages.push(Damage::ToMac([0xff; 6]));
    damages.push(Damage::ToMac([0x01, 0, 0x5e, 0, 0, 1]));
    damages.push(Damage::ToMac([0x02, 9, 9, 9, 9, 9]));
    damages
}

/// Option bytes of a TCP header: good ones in strange places, and bad ones.
pub fn options() -> Vec<Vec<u8>> {
    vec![
        vec![],
        vec![1; 40],
        vec![0; 40],
        // An MSS behind padding of all kinds, unaligned, twice, small, large.
        vec![1, 1, 1, 2, 4, 2, 0],
        vec![0, 2, 4, 2, 0],
        vec![2, 4, 2, 0, 2, 4, 1, 0],
        vec![2, 4, 0, 0],
        vec![2, 4, 0, 1],
        vec![2, 4, 0xff, 0xff],
        // Lengths that cannot be.
        vec![2, 0, 2, 0],
        vec![2, 1, 2, 0],
        vec![2, 2, 1, 1],
        vec![2, 3, 2, 1],
        vec![2, 5, 2, 0, 0],
        vec![2, 40, 2, 0],
        vec![1, 1, 1, 2],
        vec![2, 4, 5, 0xb4, 3, 0, 7, 0],
        vec![2, 4, 5, 0xb4, 3, 1, 7, 0],
        vec![2, 4, 5, 0xb4, 3, 2, 1, 1],
        vec![2, 4, 5, 0xb4, 3, 4, 7, 7],
        vec![2, 4, 5, 0xb4, 1, 1, 1, 3],
        vec![2, 4, 5, 0xb4, 1, 1, 3, 200],
        // Window scale: none, the largest, more than that, twice.
        vec![2, 4, 5, 0xb4, 1, 3, 3, 0],
        vec![2, 4, 5, 0xb4, 1, 3, 3, 14],
        vec![2, 4, 5, 0xb4, 1, 3, 3, 15],
        vec![2, 4, 5, 0xb4, 1, 3, 3, 255],
        vec![3, 3, 2, 3, 3, 9, 2, 4, 5, 0xb4],
        // SACK permitted with a wrong length; SACK blocks and an MD5 digest where none belong.
        vec![2, 4, 5, 0xb4, 4, 3, 0, 0],
        vec![2, 4, 5, 0xb4, 5, 10, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0],
        // A wrong length of timestamps.
        vec![2, 4, 5, 0xb4, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // Unknown ones.
        vec![2, 4, 5, 0xb4, 254, 4, 1, 2, 1, 3, 3, 2],
        vec![2, 4, 5, 0xb4, 77, 2, 1, 1],
        vec![254, 40, 0, 0],
        vec![254, 0, 2, 4, 5, 0xb4],
        vec![254, 1, 2, 4, 5, 0xb4],
        vec![28, 4, 0x80, 10, 2, 4, 5, 0xb4],
        vec![34, 2, 2, 4, 5, 0xb4],
    ]
}
