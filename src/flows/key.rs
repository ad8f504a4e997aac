//! The key of a connection: its addresses and ports, and their hash.

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// Addresses and ports of one connection, as its own end sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowKey {
    /// The peer's address.
    pub remote: IpAddr,
    /// The peer's port.
    pub remote_port: u16,
    /// Our port.
    pub local_port: u16,
    /// Which of our addresses.
    pub local_index: u8,
}

impl FlowKey {
    /// Calls `take` with the key as bytes to be hashed: 9 over IPv4, 21 over IPv6, so that no two keys have the same.
    #[inline]
    pub fn with_bytes<R>(&self, take: impl FnOnce(&[u8]) -> R) -> R {
        let ports = u64::from(self.remote_port) | u64::from(self.local_port) << 16;
        match self.remote {
            IpAddr::V4(remote) => {
                let mut bytes = [0; 9];
                bytes[..8].copy_from_slice(&(u64::from(remote.to_bits()) | ports << 32).to_le_bytes());
                bytes[8] = self.local_index;
                take(&bytes)
            }
            IpAddr::V6(remote) => {
                let mut bytes = [0; 21];
                bytes[..16].copy_from_slice(&remote.octets());
                bytes[16..].copy_from_slice(&(ports | u64::from(self.local_index) << 32).to_le_bytes()[..5]);
                take(&bytes)
            }
        }
    }
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
        key.with_bytes(|bytes| self.0.hash(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_counts() {
        let hasher = KeyHasher::new(&[7; 16]);
        for (remote, other) in [("1.0.0.0", "9.0.0.0"), ("fd00::1", "fd00:0:1::1"), ("1.0.0.0", "::ffff:1.0.0.0")] {
            let [remote, other] = [remote, other].map(|text| text.parse().expect("is an address"));
            let key = FlowKey { remote, remote_port: 2, local_port: 3, local_index: 4 };
            let others = [
                FlowKey { remote: other, ..key },
                FlowKey { remote_port: 9, ..key },
                FlowKey { local_port: 9, ..key },
                FlowKey { local_index: 9, ..key },
            ];
            assert!(others.iter().all(|other| hasher.hash(other) != hasher.hash(&key)));
            assert_ne!(KeyHasher::new(&[8; 16]).hash(&key), hasher.hash(&key), "and so does the secret");
        }
    }
}
