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

use bytemuck::{Pod, Zeroable};

use super::{Arena, StorageError};

/// Places in a bucket.
const PLACES: usize = 10;
/// A sub-table of so many buckets is split before it grows further; half as many are merged before they shrink.
const BUCKETS_MAX: u64 = 256;
/// Sub-tables of a table that is empty, as a power of two: 32 KB, which it never falls below.
const BITS_MIN: u32 = 2;
const BUCKETS_MIN: u64 = BUCKETS_MAX / 2;
/// By so many a sub-table grows and shrinks.
const BUCKETS_STEP: u64 = 16;
/// Of 100 places so many are taken when the table begins to grow, and to shrink.
const GROWS_AT: u64 = 88;
const SHRINKS_AT: u64 = 70;
/// While the table changes every so-manieth insertion or removal moves a sub-table.
const STEP_EVERY: u64 = 32;
/// Memory at the end of a table that has shrunk is given back in pieces of so many buckets.
const RELEASED_AT_ONCE: u32 = 1 << 15;
/// A table for so many entries lies in huge pages; in a smaller one the last of them would cost more than it is worth.
const HUGE_PAGES_FROM: u32 = 8_000_000;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Bucket {
    tags: [u16; PLACES],
    /// A bit for each place that is taken.
    taken: u16,
    /// How many entries are further to the right because this bucket was full.
    passed: u16,
    slots: [u32; PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is a cache line");
const ALL_TAKEN: u16 = (1 << PLACES) - 1;

impl Bucket {
    /// A bit for each place that has this tag.
    #[inline]
    fn matches(&self, tag: u16) -> u16 {
        let mut mask = 0;
        for (place, &other) in self.tags.iter().enumerate() {
            mask |= u16::from(other == tag) << place;
        }
        mask & self.taken
    }
}

/// Where an entry is at home: a sub-table and a tag.
#[derive(Clone, Copy)]
struct Home {
    /// The sub-table's first bucket, and how many it has.
    base: u64,
    buckets: u64,
    tag: u16,
}

impl Home {
    /// The bucket that is `step` to the right of where the entry is at home, at the end of the sub-table from its
    /// beginning on.
    #[inline]
    fn bucket(&self, step: u64) -> usize {
        let first = (u64::from(self.tag) * self.buckets) >> 16;
        let at = first + step;
        (self.base + if at >= self.buckets { at - self.buckets } else { at }) as usize
    }
}

/// What all sub-tables have in common, but for those that are not there yet.
#[derive(Clone, Copy)]
struct Layout {
    /// There are two to the power of this many sub-tables.
    bits: u32,
    /// So many buckets each.
    buckets: u64,
}

impl Layout {
    /// For so many entries.
    fn for_entries(entries: u64) -> Layout {
        let mut layout = Layout { bits: BITS_MIN, buckets: BUCKETS_MIN };
        while layout.places() * GROWS_AT / 100 <= entries {
            layout = layout.grown();
        }
        layout
    }

    fn grown(self) -> Layout {
        match self.buckets == BUCKETS_MAX {
            true => Layout { bits: self.bits + 1, buckets: BUCKETS_MIN },
            false => Layout { buckets: self.buckets + BUCKETS_STEP, ..self },
        }
    }

    fn shrunk(self) -> Layout {
        match self.buckets == BUCKETS_MIN && self.bits > BITS_MIN {
            true => Layout { bits: self.bits - 1, buckets: BUCKETS_MAX },
            false => Layout { buckets: (self.buckets - BUCKETS_STEP).max(BUCKETS_MIN), ..self },
        }
    }

    fn all_buckets(self) -> u64 {
        self.buckets << self.bits
    }

    fn places(self) -> u64 {
        self.all_buckets() * PLACES as u64
    }

    fn table(self, hash: u64) -> u64 {
        hash >> (64 - self.bits)
    }

    #[inline]
    fn home(self, hash: u64) -> Home {
        let tag = (hash >> (48 - self.bits)) as u16;
        Home { base: self.table(hash) * self.buckets, buckets: self.buckets, tag }
    }
}

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
    /// Insertions and removals.
    turns: u64,
    /// Entries whose sub-table is full until it grows: as good as never any.
    beside: Vec<(u64, u32)>,
    /// Used again: the entries of a sub-table that moves.
    moving: Vec<(u64, u16, u32)>,
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
            beside: Vec::new(),
            moving: Vec::new(),
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

    /// Adds a slot that is not there yet. `hash_of` gives the hash of slots that are.
    pub fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let home = self.home(hash);
        if !self.put(home, slot) {
            self.beside.push((hash, slot));
        }
        self.count += 1;
        if self.take_turn(hash_of) && self.count * 100 > self.layout.places() * GROWS_AT {
            self.begin(self.layout.grown());
        }
    }

    /// Removes a slot. Panics if it is not there. `hash_of` is as for `insert`; the slot that is removed has its hash
    /// still.
    pub fn remove(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
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
        if self.take_turn(hash_of) && self.count * 100 < self.layout.places() * SHRINKS_AT {
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

    /// Memory that it uses, in bytes.
    pub fn allocated_bytes(&self) -> usize {
        self.buckets.touched_end() as usize * size_of::<Bucket>()
    }

    /// Returns false where the sub-table is full.
    fn put(&mut self, home: Home, slot: u32) -> bool {
        let buckets = self.buckets.records_mut();
        for step in 0..home.buckets {
            let bucket = &mut buckets[home.bucket(step)];
            if bucket.taken != ALL_TAKEN {
                let place = (!bucket.taken).trailing_zeros() as usize;
                bucket.tags[place] = home.tag;
                bucket.slots[place] = slot;
                bucket.taken |= 1 << place;
                return true;
            }
            bucket.passed += 1;
        }
        for step in 0..home.buckets {
            buckets[home.bucket(step)].passed -= 1;
        }
        false
    }

    /// Goes on with what the table has to do. Returns whether a change may begin.
    fn take_turn(&mut self, hash_of: impl Fn(u32) -> u64) -> bool {
        self.turns += 1;
        if self.turns.is_multiple_of(STEP_EVERY) {
            match self.change {
                Some(change) => self.step(change, hash_of),
                None => self.release(),
            }
        }
        self.change.is_none()
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
    fn step(&mut self, mut change: Change, hash_of: impl Fn(u32) -> u64) {
        let tables = 1 << self.layout.bits.min(change.to.bits);
        let moved = if change.is_from_the_right { change.next - 1 } else { change.next };
        self.take_out(change.to, moved, &hash_of);
        change.next = if change.is_from_the_right { moved } else { moved + 1 };
        let is_over = change.next == if change.is_from_the_right { 0 } else { tables };
        self.change = (!is_over).then_some(change);
        if is_over {
            self.layout = change.to;
        }
        let moving = std::mem::take(&mut self.moving);
        for &(table, tag, slot) in &moving {
            let home = Home { base: table * change.to.buckets, buckets: change.to.buckets, tag };
            if !self.put(home, slot) {
                self.beside.push((hash_of(slot), slot));
            }
        }
        self.moving = moving;
        // Those that found their sub-table full may find room by now.
        for (hash, slot) in std::mem::take(&mut self.beside) {
            if !self.put(self.home(hash), slot) {
                self.beside.push((hash, slot));
            }
        }
    }

    /// Empties the buckets of a sub-table (or two), and leaves in `moving` what was in them: the sub-table and the tag
    /// that each entry has from now on.
    fn take_out(&mut self, to: Layout, moved: u64, hash_of: impl Fn(u32) -> u64) {
        let from = self.layout;
        let tables = 1 << from.bits.saturating_sub(to.bits);
        let first = moved * tables * from.buckets;
        self.moving.clear();
        let buckets = &mut self.buckets.records_mut()[first as usize..(first + tables * from.buckets) as usize];
        for (at, bucket) in (0u64..).zip(buckets.iter_mut()) {
            for place in (0..PLACES).filter(|place| bucket.taken >> place & 1 == 1) {
                let (tag, slot) = (bucket.tags[place], bucket.slots[place]);
                let (table, tag) = if to.bits > from.bits {
                    let hash = hash_of(slot);
                    (to.table(hash), to.home(hash).tag)
                } else if to.bits < from.bits {
                    // What picked one of the two becomes the first bit of the tag, and the last is forgotten.
                    (moved, ((at / from.buckets) as u16) << 15 | tag >> 1)
                } else {
                    (moved, tag)
                };
                self.moving.push((table, tag, slot));
            }
            *bucket = Bucket::zeroed();
        }
    }

    /// Gives some memory back that the table does not need any more.
    fn release(&mut self) {
        let end = self.layout.all_buckets() as u32;
        let touched_end = self.buckets.touched_end();
        if touched_end > end {
            self.buckets.release_from(end.max(touched_end.saturating_sub(RELEASED_AT_ONCE)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(index.is_empty() && index.beside.is_empty());
    }

    #[test]
    fn a_table_for_what_is_expected_does_not_grow() {
        let mut index = Index::new(1_000_000, 100_000).unwrap();
        let layout = index.layout.all_buckets();
        (0..100_000).for_each(|slot| index.insert(hash_of(slot), slot, hash_of));
        assert_eq!((index.layout.all_buckets(), index.change.is_none()), (layout, true));
    }
}
