//! The index: from the hash of a connection's addresses and ports to its slot.
//!
//! A table of cache lines of ten places each. The top bits of the hash pick a sub-table, the 16 bits behind them are
//! the entry's tag, and the tag alone says where in the sub-table the entry is at home: the table grows and shrinks by
//! an eighth to a sixteenth without looking at a connection. What finds its bucket full goes to the next in the
//! sub-table, and each bucket that it passes counts it, so that a search ends at the first that nothing has passed.
//!
//! ```text
//! hash   | sub-table | tag: 16 bits | unused |        bucket = sub-table * buckets + (tag * buckets >> 16)
//!
//!                    next                          all sub-tables have the same number of buckets, and lie end to end;
//! growing  [ 0 ][ 1 ][ 2  ][ 3  ][ 4  ]            one after the other moves, from the last on to the right
//! splitting [0|1][2|3][ 2 ][  3 ]                  one after the other becomes two in place: their tags gain a bit,
//!                                                  which is the one time that connections are looked at
//! ```
//!
//! Invariant: one call moves one sub-table at most, some two thousand entries. It is rebuilt at each start and never
//! logged; it holds no key, so the caller says whether a slot is the one, and what the hash of a slot is.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Zeroable;

pub use super::buckets::Hashes;
use super::buckets::{ALL_TAKEN, BUCKETS_MAX, Bucket, Home, Layout, PLACES};
use super::{Area, Arena, StorageError};

/// While the table grows, a sub-table is moved after a number of insertions that is this share of its buckets: each
/// pays for some 35 entries, and the table is done long before it is full. It shrinks at half that speed.
const GROWTH_SHARE: u64 = 4;
const SHRINK_SHARE: u64 = 2;
/// While it does not, so often it looks after its memory.
const LOOK_EVERY: u64 = 32;
/// Connections are asked for that many entries before they are looked at.
const LOOK_AHEAD: usize = 24;
/// Memory at the end of a table that has shrunk is given back in pieces of so many buckets.
const RELEASED_AT_ONCE: u32 = 1 << 15;
/// So many entries one step moves at most.
const ENTRIES_MOVED_MAX: usize = BUCKETS_MAX as usize * PLACES;
/// So much memory behind the table is kept ready: two huge pages.
const AHEAD_BYTES: usize = 4 << 20;
/// A table for so many entries lies in huge pages; in a smaller one the last of them would cost more than it is worth.
const HUGE_PAGES_FROM: u32 = 8_000_000;

/// The table is on its way from one layout to another.
#[derive(Clone, Copy)]
struct Change {
    to: Layout,
    /// Of the sub-tables of the layout with fewer of them, those from here on have moved if the table becomes larger,
    /// those before here if it does not.
    next: u64,
    is_from_the_right: bool,
}

/// See the module.
pub struct Index {
    buckets: Arena<Bucket>,
    layout: Layout,
    change: Option<Change>,
    count: u64,
    /// Insertions and removals, and when the next step is to be made.
    turns: u64,
    next_turn: u64,
    /// Entries that were moved, and bytes that were given back.
    moved: u64,
    released_bytes: u64,
    /// Entries whose sub-table is full until it grows: as good as never any.
    beside: Vec<(u64, u32)>,
    /// Used again: the entries of a sub-table that moves. All of its room is there from the start, as asking for more
    /// would wait for whoever brings memory in.
    moving: Vec<Moving>,
}

/// An entry on its way to another place.
#[derive(Clone, Copy, Default)]
struct Moving {
    slot: u32,
    tag: u16,
    /// Which of the sub-tables that a step fills is the entry's, the first being 0.
    table: u16,
}

impl Index {
    /// For as many entries as `capacity`, `expected` of them soon. Errors: the address space cannot be had.
    pub fn new(capacity: u32, expected: u32) -> Result<Index, StorageError> {
        let most = Layout::for_entries(u64::from(capacity.max(expected))).grown().grown().all_buckets();
        let buckets = u32::try_from(most)
            .map_err(io::Error::other)
            .and_then(|most| Arena::anonymous(most, capacity >= HUGE_PAGES_FROM))
            .map_err(|source| StorageError::Memory { what: "the index", source })?;
        let mut index = Index {
            buckets,
            layout: Layout::for_entries(u64::from(expected)),
            change: None,
            count: 0,
            turns: 0,
            next_turn: LOOK_EVERY,
            moved: 0,
            released_bytes: 0,
            beside: Vec::new(),
            moving: vec![Moving::default(); ENTRIES_MOVED_MAX],
        };
        index.touch(index.layout);
        Ok(index)
    }

    fn touch(&mut self, layout: Layout) {
        self.buckets.touch(layout.all_buckets() as u32 - 1);
    }

    #[inline]
    fn home(&self, hash: u64) -> Home {
        match self.change {
            None => self.layout.home(hash),
            Some(change) => self.home_in_change(hash, change),
        }
    }

    fn home_in_change(&self, hash: u64, change: Change) -> Home {
        let fewer = if self.layout.bits <= change.to.bits { self.layout } else { change.to };
        let has_moved = (fewer.table(hash) >= change.next) == change.is_from_the_right;
        if has_moved { change.to.home(hash) } else { self.layout.home(hash) }
    }

    /// Asks for the bucket of a hash to be brought into the cache.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(self.home(hash).bucket(0) as u32);
    }

    /// The slot among those with this hash for which `is_it` answers true.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = self.home(hash);
        let buckets = self.buckets.records();
        for step in 0..home.buckets {
            let bucket = &buckets[home.bucket(step)];
            let mut matches = bucket.matches(home.tag);
            while matches != 0 {
                let slot = bucket.slots[matches.trailing_zeros() as usize];
                if is_it(slot) {
                    return Some(slot);
                }
                matches &= matches - 1;
            }
            if bucket.passed == 0 {
                break;
            }
        }
        self.beside.iter().find(|&&(other, slot)| other == hash && is_it(slot)).map(|&(_, slot)| slot)
    }

    /// A slot that very likely is the one, found without looking at any flow: for prefetching.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Adds a slot that is not there yet. `hashes` are those of slots that are.
    pub fn insert(&mut self, hash: u64, slot: u32, hashes: impl Hashes) {
        self.put(hash, slot);
        self.count += 1;
        if self.take_turn(hashes) && self.layout.is_crowded(self.count) {
            self.begin(self.layout.grown());
        }
    }

    /// Removes a slot. Panics if it is not there. `hashes` are as for `insert`; the slot that is removed has its hash
    /// still.
    pub fn remove(&mut self, hash: u64, slot: u32, hashes: impl Hashes) {
        let home = self.home(hash);
        let buckets = self.buckets.records_mut();
        let place = (0..home.buckets).find_map(|step| {
            let bucket = &buckets[home.bucket(step)];
            let place = (0..PLACES).find(|&place| bucket.taken >> place & 1 == 1 && bucket.slots[place] == slot);
            place.map(|place| (step, place))
        });
        if let Some((step, place)) = place {
            buckets[home.bucket(step)].taken &= !(1 << place);
            for passed in 0..step {
                buckets[home.bucket(passed)].passed -= 1;
            }
        } else {
            let place = self.beside.iter().position(|&entry| entry == (hash, slot));
            self.beside.swap_remove(place.expect("what is removed from the index was inserted"));
        }
        self.count -= 1;
        if self.take_turn(hashes) && self.layout.is_deserted(self.count) {
            self.begin(self.layout.shrunk());
        }
    }

    /// How many slots it holds.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How often something was added or removed since it was made.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.turns
    }

    /// How many entries were moved since it was made.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// How many bytes were given back since it was made.
    pub fn released_bytes(&self) -> u64 {
        self.released_bytes
    }

    /// Memory that it uses, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.buckets.touched_end() as usize * size_of::<Bucket>()
    }

    fn put(&mut self, hash: u64, slot: u32) {
        let Home { base, buckets, tag } = self.home(hash);
        let table = &mut self.buckets.records_mut()[base as usize..(base + buckets) as usize];
        if !put(table, tag, slot) {
            self.beside.push((hash, slot));
        }
    }

    /// Goes on with what the table has to do. Returns whether a change may begin.
    fn take_turn(&mut self, hashes: impl Hashes) -> bool {
        self.turns += 1;
        if self.turns >= self.next_turn {
            match self.change {
                Some(change) => self.step(change, hashes),
                None => self.look_after_memory(),
            }
            let wait = self.change.map_or(LOOK_EVERY, |change| {
                let share = if change.is_from_the_right { GROWTH_SHARE } else { SHRINK_SHARE };
                self.step_buckets(change.to) / share
            });
            self.next_turn = self.turns + wait;
        }
        self.change.is_none()
    }

    /// How many buckets one step empties.
    fn step_buckets(&self, to: Layout) -> u64 {
        self.layout.buckets << self.layout.bits.saturating_sub(to.bits)
    }

    /// What the index will touch next, to be brought in ahead of need, where so many shards share what is kept so. A
    /// small table grows sooner than a huge page comes when it is asked for: one is there in any case.
    pub fn ahead(&mut self, shards: usize) -> Arc<Area> {
        self.buckets.keep_ahead(AHEAD_BYTES / shards)
    }

    fn begin(&mut self, to: Layout) {
        let is_from_the_right = to.all_buckets() > self.layout.all_buckets();
        if to.all_buckets() == self.layout.all_buckets() && to.bits == self.layout.bits
            || to.all_buckets() > self.buckets.records().len() as u64
        {
            return;
        }
        if is_from_the_right {
            self.touch(to);
        }
        let tables = 1 << self.layout.bits.min(to.bits);
        self.change = Some(Change { to, next: if is_from_the_right { tables } else { 0 }, is_from_the_right });
    }

    /// Moves one sub-table, or two that become one.
    fn step(&mut self, mut change: Change, hashes: impl Hashes) {
        let (from, to) = (self.layout, change.to);
        let bits = from.bits.min(to.bits);
        let tables = 1 << bits;
        let moved = if change.is_from_the_right { change.next - 1 } else { change.next };
        let emptied = self.step_buckets(to);
        let count = self.take_out(moved * emptied..(moved + 1) * emptied);
        self.moved += count as u64;
        if to.bits > from.bits {
            self.split(count, to, &hashes);
        }
        let filled = to.buckets << (to.bits - bits);
        let buckets = &mut self.buckets.records_mut()[(moved * filled) as usize..((moved + 1) * filled) as usize];
        for entry in &self.moving[..count] {
            let table = &mut buckets[usize::from(entry.table) * to.buckets as usize..][..to.buckets as usize];
            if !put(table, entry.tag, entry.slot) {
                self.beside.push((hashes.hash_of(entry.slot), entry.slot));
            }
        }
        change.next = if change.is_from_the_right { moved } else { moved + 1 };
        let is_over = change.next == if change.is_from_the_right { 0 } else { tables };
        self.change = (!is_over).then_some(change);
        if to.bits > from.bits {
            // Growth follows at once: its memory is wanted as the splitting goes on.
            let (now, then) = (to.all_buckets(), to.grown().all_buckets());
            self.buckets.want((now + (then - now) * change.next / tables) as u32);
        }
        if is_over {
            self.layout = to;
        }
        // Those that found their sub-table full may find room by now.
        for (hash, slot) in std::mem::take(&mut self.beside) {
            self.put(hash, slot);
        }
    }

    /// Empties buckets, and leaves in `moving` what was in them; returns how many entries that is. Those that follow
    /// each other are of different buckets, and so will they be where they go: none waits for the one before.
    fn take_out(&mut self, emptied: Range<u64>) -> usize {
        let merged = self.change.is_some_and(|change| change.to.bits < self.layout.bits);
        let buckets = &mut self.buckets.records_mut()[emptied.start as usize..emptied.end as usize];
        let mut count = 0;
        for place in 0..PLACES {
            for (at, bucket) in buckets.iter().enumerate() {
                let mut tag = bucket.tags[place];
                if merged {
                    // What picked one of the two becomes the first bit of the tag, and the last is forgotten.
                    tag = u16::from(at as u64 >= self.layout.buckets) << 15 | tag >> 1;
                }
                self.moving[count] = Moving { slot: bucket.slots[place], tag, table: 0 };
                count += usize::from(bucket.taken >> place & 1);
            }
        }
        buckets.fill(Bucket::zeroed());
        count
    }

    /// Says of the first entries of `moving` to which of two sub-tables they go, and their tags there.
    fn split(&mut self, count: usize, to: Layout, hashes: &impl Hashes) {
        for at in 0..count {
            if at + LOOK_AHEAD < count {
                hashes.prefetch(self.moving[at + LOOK_AHEAD].slot);
            }
            let entry = &mut self.moving[at];
            let hash = hashes.hash_of(entry.slot);
            (entry.table, entry.tag) = (to.table(hash) as u16 & 1, to.home(hash).tag);
        }
    }

    /// Wants the memory of the next growth where that is near, and gives some back that the table does not need any
    /// more.
    fn look_after_memory(&mut self) {
        if self.layout.is_nearly_crowded(self.count) {
            self.buckets.want(self.layout.grown().all_buckets() as u32);
        }
        let end = self.layout.all_buckets() as u32;
        let touched_end = self.buckets.touched_end();
        if touched_end > end {
            self.released_bytes += self.buckets.release_from(end.max(touched_end.saturating_sub(RELEASED_AT_ONCE)));
        }
    }
}

/// Puts an entry into a sub-table. Returns false where that is full.
#[inline]
fn put(table: &mut [Bucket], tag: u16, slot: u32) -> bool {
    let home = (usize::from(tag) * table.len()) >> 16;
    let (left, right) = table.split_at_mut(home);
    for bucket in right.iter_mut().chain(left) {
        if bucket.taken != ALL_TAKEN {
            let place = (!bucket.taken).trailing_zeros() as usize;
            bucket.tags[place] = tag;
            bucket.slots[place] = slot;
            bucket.taken |= 1 << place;
            return true;
        }
        bucket.passed += 1;
    }
    table.iter_mut().for_each(|bucket| bucket.passed -= 1);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<F: Fn(u32) -> u64> Hashes for F {
        fn hash_of(&self, slot: u32) -> u64 {
            self(slot)
        }

        fn prefetch(&self, _slot: u32) {}
    }

    /// As good as any hash.
    fn hash_of(slot: u32) -> u64 {
        let mixed = (u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 32
    }

    fn holds(index: &Index, slots: std::ops::Range<u32>, is_in: impl Fn(u32) -> bool) {
        for slot in slots {
            let found = index.find(hash_of(slot), |other| other == slot);
            assert_eq!(found, is_in(slot).then_some(slot), "slot {slot}");
        }
    }

    /// Whether it is empty and no bucket has more of anything than is there.
    fn is_bare(index: &Index) -> bool {
        index.is_empty() && index.buckets.records().iter().all(|bucket| (bucket.taken, bucket.passed) == (0, 0))
    }

    #[test]
    fn what_was_inserted_is_found_until_it_is_removed() {
        const COUNT: u32 = 120_000;
        let mut index = Index::new(COUNT, 0).unwrap();
        for slot in 0..COUNT {
            index.insert(hash_of(slot), slot, hash_of);
            if slot.is_multiple_of(9_973) {
                holds(&index, 0..COUNT, |other| other <= slot);
            }
        }
        holds(&index, 0..COUNT, |_| true);
        let grown_bytes = index.allocated_bytes();
        assert!(grown_bytes < 10 * COUNT as usize, "{grown_bytes} bytes for {COUNT} entries");
        for slot in (0..COUNT).filter(|slot| slot % 64 != 5) {
            index.remove(hash_of(slot), slot, hash_of);
            if slot.is_multiple_of(9_973) {
                holds(&index, 0..COUNT, |other| other > slot || other % 64 == 5);
            }
        }
        holds(&index, 0..COUNT, |slot| slot % 64 == 5);
        assert_eq!(index.len(), (COUNT / 64) as usize);
        assert!(index.allocated_bytes() < grown_bytes / 4, "what is not needed is given back");
        (0..COUNT).filter(|slot| slot % 64 == 5).for_each(|slot| index.remove(hash_of(slot), slot, hash_of));
        assert!(is_bare(&index));
    }

    #[test]
    fn entries_beyond_a_full_sub_table_are_found_too() {
        let crowded = |slot: u32| hash_of(slot) >> 12;
        let mut index = Index::new(100_000, 0).unwrap();
        for slot in 0..5_000 {
            index.insert(crowded(slot), slot, crowded);
        }
        assert!(!index.beside.is_empty(), "all of them are at home in the first sub-table");
        for slot in 0..5_000 {
            assert_eq!(index.find(crowded(slot), |other| other == slot), Some(slot));
        }
        for slot in 0..5_000 {
            index.remove(crowded(slot), slot, crowded);
        }
        assert!(index.beside.is_empty() && is_bare(&index));
    }

    #[test]
    fn a_table_for_what_is_expected_does_not_grow() {
        let mut index = Index::new(1_000_000, 100_000).unwrap();
        let layout = index.layout.all_buckets();
        (0..100_000).for_each(|slot| index.insert(hash_of(slot), slot, hash_of));
        assert_eq!((index.layout.all_buckets(), index.change.is_none()), (layout, true));
    }
}
