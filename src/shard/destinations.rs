//! Destinations whose path takes less than the link: address to path MTU (RFC 1191 §6.2, RFC 8201 §5.2).
//!
//! In: path MTUs that a connection has found, by a message that passed its checks or by what got through. Out: the path
//! MTU to a peer, for connections that are opened next, ten minutes long after it was last found so small
//! (RFC 1191 §6.3). It is rebuilt state: connections keep their own size of segments, and a new process finds the
//! others again.
//!
//! Each address has eight places, which a keyed hash chooses, and takes the one of them that was found longest ago. So
//! the table has a fixed size, none at all while no path is small, and who finds many addresses puts out others at
//! random: their connections then find the size of their path once more.
//!
//! Invariant: nothing enters that no connection of ours stands behind.

use std::net::IpAddr;

use crate::flows::Address;

/// Sets of places, and places in each.
const SETS: usize = 512;
const WAYS: usize = 8;
/// How long a path MTU is remembered.
const LIFE_S: u32 = 600;

/// A place, which holds nothing where `mtu` is 0.
#[derive(Clone, Copy, Default)]
struct Entry {
    address: Address,
    mtu: u16,
    found_s: u32,
}

impl Entry {
    fn is_fresh(&self, now_s: u32) -> bool {
        self.mtu != 0 && now_s.saturating_sub(self.found_s) < LIFE_S
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Destinations {
    entries: Vec<Entry>,
    /// When something was last found.
    latest_s: u32,
}

impl Destinations {
    /// The path MTU to an address, whose keyed hash `hash` computes; `None` for that of the link.
    pub fn mtu(&self, address: IpAddr, now_s: u32, hash: impl FnOnce() -> u64) -> Option<u16> {
        if self.entries.is_empty() {
            return None;
        }
        let address = Address::from(address);
        let set = &self.entries[set_of(hash())];
        set.iter().find(|entry| entry.address == address && entry.is_fresh(now_s)).map(|entry| entry.mtu)
    }

    /// A connection has found that no more than `mtu` bytes get through to an address with this hash.
    pub fn note(&mut self, address: IpAddr, mtu: u16, now_s: u32, hash: u64) {
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); SETS * WAYS];
        }
        self.latest_s = now_s;
        let address = Address::from(address);
        let set = &mut self.entries[set_of(hash)];
        let is_smaller_known =
            set.iter().any(|entry| entry.address == address && entry.is_fresh(now_s) && entry.mtu < mtu);
        if is_smaller_known {
            // A connection with larger segments has still to find out the rest.
            return;
        }
        let place = match set.iter().position(|entry| entry.address == address) {
            Some(place) => place,
            None => (0..WAYS).min_by_key(|&place| (set[place].is_fresh(now_s), set[place].found_s)).unwrap_or(0),
        };
        set[place] = Entry { address, mtu, found_s: now_s };
    }

    /// Gives the table back when everything in it has been forgotten.
    pub fn trim(&mut self, now_s: u32) {
        if now_s.saturating_sub(self.latest_s) >= LIFE_S {
            self.entries = Vec::new();
        }
    }

    /// How many path MTUs are remembered.
    #[cfg(test)]
    fn count(&self, now_s: u32) -> usize {
        self.entries.iter().filter(|entry| entry.is_fresh(now_s)).count()
    }
}

fn set_of(hash: u64) -> std::ops::Range<usize> {
    let set = hash as usize % SETS;
    set * WAYS..(set + 1) * WAYS
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn hash(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
    }

    #[test]
    fn a_path_is_forgotten_ten_minutes_after_it_was_last_found_small() {
        let mut known = Destinations::default();
        let mtu = |known: &Destinations, now_s| known.mtu(address(7), now_s, || hash(7));
        assert_eq!(mtu(&known, 0), None);
        known.note(address(7), 1_400, 100, hash(7));
        known.note(address(7), 1_300, 200, hash(7));
        known.note(address(7), 1_400, 300, hash(7));
        assert_eq!((mtu(&known, 799), mtu(&known, 800)), (Some(1_300), None));
        known.note(address(7), 1_400, 850, hash(7));
        assert_eq!(mtu(&known, 900), Some(1_400), "what was forgotten does not count");
        known.trim(1_449);
        assert_eq!(mtu(&known, 1_449), Some(1_400));
        known.trim(1_450);
        assert!(known.entries.is_empty() && known.entries.capacity() == 0);
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_room_and_leaves_what_was_found_last() {
        let mut known = Destinations::default();
        for number in 0..100_000 {
            known.note(address(number), 1_000, number / 1_000, hash(number));
        }
        assert_eq!(known.count(100), SETS * WAYS);
        assert!(size_of::<Entry>() <= 24 && known.entries.capacity() == SETS * WAYS);
        let left = (99_000..100_000).filter(|&number| known.mtu(address(number), 100, || hash(number)).is_some());
        assert!(left.count() > 900);
        known.note(address(5), 1_200, 101, hash(5));
        assert_eq!(known.mtu(address(5), 101, || hash(5)), Some(1_200));
    }
}
