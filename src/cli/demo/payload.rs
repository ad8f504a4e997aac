//! What the demo pushes: bytes that the server and the clients compute independently.
//!
//! A byte depends on the connection (the client's address and port, the server's port), on the round and on its offset,
//! so that a push to a wrong connection, a round that is missing or doubled, and bytes out of order all show.

use std::net::{IpAddr, SocketAddr};

/// The bytes of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    seed: u64,
}

impl Payload {
    /// For the connection from `client` to the server's port.
    pub fn new(client: SocketAddr, server_port: u16) -> Payload {
        let address = match client.ip() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => mixed((address.to_bits() >> 64) as u64) ^ address.to_bits() as u64,
        };
        let ports = u64::from(client.port()) << 16 | u64::from(server_port);
        Payload { seed: mixed(mixed(address) ^ ports) }
    }

    /// For every connection alike.
    pub fn shared() -> Payload {
        Payload { seed: mixed(0) }
    }

    /// Fills `bytes` with the payload of `round` from `offset` on.
    pub fn fill(self, round: u32, offset: usize, bytes: &mut [u8]) {
        let key = mixed(self.seed ^ u64::from(round));
        let mut filled = 0;
        while filled < bytes.len() {
            let position = offset + filled;
            let word = mixed(key.wrapping_add(position as u64 / 8)).to_le_bytes();
            let fresh = &word[position % 8..];
            let count = fresh.len().min(bytes.len() - filled);
            bytes[filled..filled + count].copy_from_slice(&fresh[..count]);
            filled += count;
        }
    }

    /// How many of `bytes` are wrong, where they stand at `position` of the stream of all rounds, each of
    /// `payload_bytes`, `rounds` of them. Bytes beyond the last round are all wrong.
    pub fn wrong_bytes(self, position: u64, bytes: &[u8], payload_bytes: usize, rounds: u32) -> u64 {
        let mut expected = [0; 256];
        let mut wrong = 0;
        let mut checked = 0;
        while checked < bytes.len() {
            let position = position + checked as u64;
            let round = position / payload_bytes as u64;
            let Some(round) = u32::try_from(round).ok().filter(|round| *round < rounds) else {
                return wrong + (bytes.len() - checked) as u64;
            };
            let offset = (position % payload_bytes as u64) as usize;
            let count = (payload_bytes - offset).min(bytes.len() - checked).min(expected.len());
            self.fill(round, offset, &mut expected[..count]);
            let differ = expected[..count].iter().zip(&bytes[checked..]).filter(|(a, b)| a != b).count();
            wrong += differ as u64;
            checked += count;
        }
        wrong
    }
}

/// A bijection of 64 bits that spreads every one of them (the finaliser of SplitMix64).
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ROUNDS: u32 = 3;

    fn stream(client_port: u16, payload_bytes: usize) -> Vec<u8> {
        let payload = Payload::new((Ipv4Addr::new(10, 77, 0, 1), client_port).into(), 7000);
        let mut stream = vec![0; payload_bytes * ROUNDS as usize];
        for (round, bytes) in (0..).zip(stream.chunks_mut(payload_bytes)) {
            payload.fill(round, 0, bytes);
        }
        stream
    }

    fn check(client_port: u16, position: u64, bytes: &[u8], payload_bytes: usize) -> u64 {
        let client = SocketAddr::from((Ipv4Addr::new(10, 77, 0, 1), client_port));
        Payload::new(client, 7000).wrong_bytes(position, bytes, payload_bytes, ROUNDS)
    }

    #[test]
    fn a_stream_is_right_however_it_is_cut() {
        for payload_bytes in [1, 7, 64, 1000] {
            let stream = stream(40_000, payload_bytes);
            for cut in [1, 3, 13, 300, 5000] {
                let mut position = 0;
                for piece in stream.chunks(cut) {
                    assert_eq!(check(40_000, position, piece, payload_bytes), 0);
                    position += piece.len() as u64;
                }
            }
        }
    }

    #[test]
    fn another_flow_another_round_and_another_place_show() {
        let (ours, theirs) = (stream(40_000, 64), stream(40_001, 64));
        assert!(check(40_000, 0, &theirs, 64) > 150);
        assert!(check(40_000, 0, &ours[64..128], 64) > 50, "a round is missing");
        assert!(check(40_000, 64, &ours[..64], 64) > 50, "a round is doubled");
        assert!(check(40_000, 1, &ours[..64], 64) > 50, "a byte is missing");
        let mut damaged = ours.clone();
        damaged[100] ^= 1;
        assert_eq!(check(40_000, 0, &damaged, 64), 1);
        assert_eq!(check(40_000, ours.len() as u64, b"more", 64), 4);
    }
}
