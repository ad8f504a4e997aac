//! Steering: the number by which everybody agrees whose a packet is, a NIC included.
//!
//! The hash of receive-side scaling (Toeplitz), with a key that repeats every 16 bits: both directions of a connection
//! give the same number then, and all that counts is the exclusive or of the packet's 16-bit words, which two small
//! tables turn into it. A NIC that is given [`STEERING_KEY`] reckons the same. What has no ports of its own, or not yet
//! (ICMP echo, fragments), is steered by its addresses alone, as a NIC does; an ICMP error by the segment that it
//! quotes.
//!
//! Invariant: a fixed function of addresses and ports. It is no secret, so whoever chooses them chooses the shard; that
//! is why every bound of a shard is its own.

use std::net::IpAddr;

use super::field::{ethernet, ipv4, ipv6, protocol, u16_at};
use super::parse::{Packet, parse};

/// What a NIC is to be given as its key (`ethtool -X IFACE hkey`).
pub const STEERING_KEY: [u8; 40] = {
    let mut key = [0x6d; 40];
    let mut at = 1;
    while at < key.len() {
        key[at] = 0x5a;
        at += 2;
    }
    key
};

/// Whom a frame concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Concern {
    /// The shard that this number leads to.
    One(u32),
    /// Every shard: it tells where a neighbour or a router is.
    All,
    /// Nobody in particular: it is dropped and counted wherever it is.
    Nobody,
}

/// Whom a frame concerns that arrived at the Ethernet address `mac`. Whether it is sound is for its shard to find out.
pub fn concern(frame: &[u8], mac: &[u8; 6]) -> Concern {
    if let Some(hash) = hash_of_tcp(frame) {
        return Concern::One(hash);
    }
    match parse(frame, mac) {
        Ok(Packet::Tcp(packet)) => {
            let (remote, local) = (packet.addresses.remote(), packet.addresses.local());
            Concern::One(tuple_hash(remote, packet.remote_port, local, packet.local_port))
        }
        Ok(Packet::Error(error)) => {
            Concern::One(tuple_hash(error.remote, error.remote_port, error.local, error.local_port))
        }
        Ok(Packet::Echo(echo)) => Concern::One(tuple_hash(echo.remote, 0, echo.local, 0)),
        Ok(Packet::Fragment(fragment)) => Concern::One(tuple_hash(fragment.id.remote, 0, fragment.id.local, 0)),
        Ok(Packet::Refused(refused)) => Concern::One(tuple_hash(refused.remote.into(), 0, refused.local.into(), 0)),
        Ok(Packet::Arp(_) | Packet::Neighbor(_) | Packet::Router(_)) => Concern::All,
        Err(_) => Concern::Nobody,
    }
}

/// The number of a connection; both its ends give the same.
pub fn tuple_hash(one: IpAddr, one_port: u16, other: IpAddr, other_port: u16) -> u32 {
    let words = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    };
    hash_of_words(words(one) ^ words(other) ^ u32::from(one_port ^ other_port))
}

/// The number of what is plainly a segment right behind an IP header; `None` for what has to be looked at.
#[inline]
fn hash_of_tcp(frame: &[u8]) -> Option<u32> {
    let (header, packet) = frame.split_first_chunk::<{ ethernet::BYTES }>()?;
    let words = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().fold(0, |folded, it| folded ^ u32::from_be_bytes(*it));
    let (addresses, ports) = match u16_at(header, ethernet::TYPE) {
        ethernet::TYPE_IPV4 => {
            let header = packet.first_chunk::<{ ipv4::BYTES }>()?;
            let header_bytes = usize::from(header[0] & 0x0f) * 4;
            let is_whole = u16_at(header, ipv4::FRAGMENT) & ipv4::FRAGMENT_BITS == 0;
            let is_plain = header[ipv4::PROTOCOL] == protocol::TCP && is_whole && header_bytes >= ipv4::BYTES;
            (words(&header[ipv4::SOURCE..]), packet.get(header_bytes..).filter(|_| is_plain)?)
        }
        ethernet::TYPE_IPV6 => {
            let (header, rest) = packet.split_first_chunk::<{ ipv6::BYTES }>()?;
            let is_plain = header[ipv6::NEXT_HEADER] == protocol::TCP;
            (words(&header[ipv6::SOURCE..]), Some(rest).filter(|_| is_plain)?)
        }
        _ => return None,
    };
    Some(hash_of_words(addresses ^ u32::from_be_bytes(*ports.first_chunk()?)))
}

/// The hash of what has these words when they are taken together by exclusive or.
#[inline]
fn hash_of_words(words: u32) -> u32 {
    let word = (words >> 16 ^ words) as u16;
    TABLES[0][usize::from(word >> 8)] ^ TABLES[1][usize::from(word & 0xff)]
}

/// What each value of a word's first and second byte adds to the hash.
static TABLES: [[u32; 256]; 2] = {
    let mut tables = [[0; 256]; 2];
    let mut value = 0;
    while value < 256 {
        tables[0][value] = toeplitz(&STEERING_KEY, &[value as u8, 0]);
        tables[1][value] = toeplitz(&STEERING_KEY, &[0, value as u8]);
        value += 1;
    }
    tables
};

/// The hash as it is defined: for each bit of the input that is set, 32 bits of the key from there on.
const fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let mut hash = 0;
    let mut window = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    let mut bit = 0;
    while bit < input.len() * 8 {
        if input[bit / 8] >> (7 - bit % 8) & 1 == 1 {
            hash ^= window;
        }
        let next = bit + 32;
        window = window << 1 | (key[next / 8] >> (7 - next % 8) & 1) as u32;
        bit += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{Control, Outgoing, SeqNum};
    use crate::wire::{Addressing, emit_tcp};

    /// The key of the published vectors, and what a NIC reckons by it: Microsoft's "Verifying the RSS Hash
    /// Calculation". Each row is the destination, the source, and the hash with ports and without.
    const PUBLISHED_KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];
    const PUBLISHED: [(&str, u16, &str, u16, u32, u32); 8] = [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x51cc_c178, 0x323e_8fc2),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xc626_b0ea, 0xd718_262a),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0x5c2b_394a, 0xd2d0_a5de),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0xafc7_327f, 0x8298_9176),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x10e8_28a2, 0x5d18_09c5),
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x4020_7d3d, 0x2cc1_8cd5),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0xdde5_1bbf, 0x0f0c_461c),
        ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x02d1_feef, 0x4b61_e985),
    ];

    fn input(source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> Vec<u8> {
        let mut input = Vec::new();
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => input.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => input.extend_from_slice(&address.octets()),
            }
        }
        input.extend_from_slice(&source_port.to_be_bytes());
        input.extend_from_slice(&destination_port.to_be_bytes());
        input
    }

    #[test]
    fn the_published_vectors_come_out() {
        for (destination, destination_port, source, source_port, with_ports, without) in PUBLISHED {
            let [destination, source]: [IpAddr; 2] = [destination, source].map(|text| text.parse().unwrap());
            let input = input(source, source_port, destination, destination_port);
            assert_eq!(toeplitz(&PUBLISHED_KEY, &input), with_ports, "{source}");
            assert_eq!(toeplitz(&PUBLISHED_KEY, &input[..input.len() - 4]), without, "{source}");
        }
    }

    #[test]
    fn both_directions_give_what_a_nic_with_our_key_reckons() {
        for (one, one_port, other, other_port, _, _) in PUBLISHED {
            let [one, other]: [IpAddr; 2] = [one, other].map(|text| text.parse().unwrap());
            let reckoned = toeplitz(&STEERING_KEY, &input(one, one_port, other, other_port));
            assert_eq!(tuple_hash(one, one_port, other, other_port), reckoned);
            assert_eq!(tuple_hash(other, other_port, one, one_port), reckoned);
            let addresses = input(one, 0, other, 0);
            assert_eq!(tuple_hash(one, 0, other, 0), toeplitz(&STEERING_KEY, &addresses[..addresses.len() - 4]));
        }
    }

    /// A frame is steered by what stands in it, whoever looks.
    #[test]
    fn a_segment_in_a_frame_has_the_number_of_its_connection() {
        for (local, local_port, remote, remote_port, _, _) in PUBLISHED {
            let [local, remote]: [IpAddr; 2] = [local, remote].map(|text| text.parse().unwrap());
            let (source_mac, destination_mac) = ([2; 6], [4; 6]);
            let ends =
                Addressing { source_mac, destination_mac, local, remote, local_port, remote_port, ttl: 64, dscp: 0 };
            let mut frame = Vec::new();
            emit_tcp(&mut frame, &ends, &Outgoing::bare(SeqNum(1), SeqNum(2), Control::ACK, 3), |_| ());
            let wanted = Concern::One(tuple_hash(remote, remote_port, local, local_port));
            assert_eq!(concern(&frame, &destination_mac), wanted);
            for cut in 0..frame.len() {
                // Whatever is left leads somewhere, and nothing panics.
                let _ = concern(&frame[..cut], &destination_mac);
            }
        }
    }

    #[test]
    fn neighbouring_ports_and_addresses_go_everywhere() {
        let server = IpAddr::from([10, 0, 0, 2]);
        for shards in [2_u32, 3, 4, 8] {
            let mut counts = vec![0_u32; shards as usize];
            for (host, port) in (0..16).flat_map(|host| (40_000..40_256).map(move |port| (host, port))) {
                let hash = tuple_hash([10, 0, 0, host].into(), port, server, 7000);
                counts[(hash % 128 % shards) as usize] += 1;
            }
            let even = 16 * 256 / shards;
            assert!(counts.iter().all(|&count| count > even / 2 && count < even * 2), "{shards}: {counts:?}");
        }
    }
}
