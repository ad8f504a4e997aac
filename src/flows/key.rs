//! The key of a connection: its addresses and ports, and their hash.

use siphasher::sip::SipHasher13;

/// Addresses and ports of one connection, as its own end sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowKey {
    /// The peer's IPv4 address.
    pub remote: u32,
    /// The peer's port.
    pub remote_port: u16,
    /// Our port.
    pub local_port: u16,
    /// Which of our addresses.
    pub local_index: u8,
}

/// A keyed hash of a [`FlowKey`]: a peer cannot choose addresses that collide (SipHash-1-3).
#[derive(Clone, Copy)]
pub struct KeyHasher(SipHasher13);

impl KeyHasher {
    /// With this secret.
    pub fn new(secret: &[u8; 16]) -> KeyHasher {
        KeyHasher(SipHasher13::new_with_key(secret))
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let mut bytes = [0; 9];
        bytes[..4].copy_from_slice(&key.remote.to_le_bytes());
        bytes[4..6].copy_from_slice(&key.remote_port.to_le_bytes());
        bytes[6..8].copy_from_slice(&key.local_port.to_le_bytes());
        bytes[8] = key.local_index;
        self.0.hash(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_counts() {
        let hasher = KeyHasher::new(&[7; 16]);
        let key = FlowKey { remote: 1, remote_port: 2, local_port: 3, local_index: 4 };
        let others = [
            FlowKey { remote: 9, ..key },
            FlowKey { remote_port: 9, ..key },
            FlowKey { local_port: 9, ..key },
            FlowKey { local_index: 9, ..key },
        ];
        assert!(others.iter().all(|other| hasher.hash(other) != hasher.hash(&key)));
        assert_ne!(KeyHasher::new(&[8; 16]).hash(&key), hasher.hash(&key), "and so does the secret");
    }
}
