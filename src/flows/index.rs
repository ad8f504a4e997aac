//! The index: from a connection's addresses and ports to its slot.
//!
//! A hash table of `u32` in 256 sub-tables, picked by the top bits of a keyed hash, so that growth rehashes a 256th at
//! a time. Hash and equality come from the caller, who has the flows; the table holds slots only. It is rebuilt at each
//! start and never logged.

use std::net::IpAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

const SUB_TABLES: usize = 256;

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
        let mut rest = [0; 5];
        rest[..2].copy_from_slice(&self.remote_port.to_le_bytes());
        rest[2..4].copy_from_slice(&self.local_port.to_le_bytes());
        rest[4] = self.local_index;
        match self.remote {
            IpAddr::V4(remote) => {
                let mut bytes = [0; 9];
                bytes[..4].copy_from_slice(&remote.to_bits().to_le_bytes());
                bytes[4..].copy_from_slice(&rest);
                take(&bytes)
            }
            IpAddr::V6(remote) => {
                let mut bytes = [0; 21];
                bytes[..16].copy_from_slice(&remote.octets());
                bytes[16..].copy_from_slice(&rest);
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

/// Slots by hash.
pub struct Index {
    tables: Vec<HashTable<u32>>,
}

impl Default for Index {
    fn default() -> Self {
        Index { tables: (0..SUB_TABLES).map(|_| HashTable::new()).collect() }
    }
}

impl Index {
    /// The slot among those with this hash for which `is_it` answers true.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables[sub_table(hash)].find(hash, |&slot| is_it(slot)).copied()
    }

    /// A slot that very likely is the one, found without looking at any flow: for prefetching.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        self.tables[sub_table(hash)].find(hash, |_| true).copied()
    }

    /// Adds a slot that is not there yet. `hash_of` gives the hash of slots that are; it is called when the sub-table
    /// grows.
    pub fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        self.tables[sub_table(hash)].insert_unique(hash, slot, |&slot| hash_of(slot));
    }

    /// Removes a slot. Panics if it is not there.
    pub fn remove(&mut self, hash: u64, slot: u32) {
        let Ok(entry) = self.tables[sub_table(hash)].find_entry(hash, |&other| other == slot) else {
            panic!("what is removed from the index was inserted");
        };
        entry.remove();
    }

    /// How many slots it holds.
    pub fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that the tables have allocated, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.tables.iter().map(HashTable::allocation_size).sum()
    }
}

/// hashbrown takes its position from the low bits and its tag from the top seven; the sub-table is picked by others.
fn sub_table(hash: u64) -> usize {
    (hash >> 40) as usize % SUB_TABLES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        let hasher = KeyHasher::new(&[7; 16]);
        let remote = |slot: u32| match slot % 3 {
            0 => IpAddr::from(std::net::Ipv4Addr::from_bits(slot * 3)),
            _ => IpAddr::from(std::net::Ipv6Addr::from_bits(u128::from(slot) << (slot % 90))),
        };
        let key =
            |slot: u32| FlowKey { remote: remote(slot), remote_port: slot as u16, local_port: 80, local_index: 0 };
        let hash_of = |slot: u32| hasher.hash(&key(slot));
        let mut index = Index::default();
        for slot in 0..50_000 {
            index.insert(hash_of(slot), slot, hash_of);
        }
        for slot in (0..50_000).step_by(2) {
            index.remove(hash_of(slot), slot);
        }
        for slot in 0..50_000 {
            let found = index.find(hash_of(slot), |other| key(other) == key(slot));
            assert_eq!(found, (slot % 2 == 1).then_some(slot));
        }
        assert_eq!(index.len(), 25_000);
    }

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
