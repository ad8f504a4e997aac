//! Buckets of the index, and the layouts of a table of them.
//!
//! A bucket is a cache line of ten places; a layout says how many sub-tables there are and how many buckets each has.

use bytemuck::{Pod, Zeroable};

/// Places in a bucket.
pub(super) const PLACES: usize = 10;
/// A sub-table of so many buckets is split before it grows further; half as many are merged before they shrink.
pub(super) const BUCKETS_MAX: u64 = 256;
/// Sub-tables of a table that is empty, as a power of two: 32 KB, which it never falls below.
const BITS_MIN: u32 = 2;
const BUCKETS_MIN: u64 = BUCKETS_MAX / 2;
/// By so many a sub-table grows and shrinks.
const BUCKETS_STEP: u64 = 16;
/// Of 100 places so many are taken when the table begins to grow, when its sub-tables are split, and when it shrinks.
const GROWS_AT: u64 = 88;
const SPLITS_AT: u64 = 85;
const SHRINKS_AT: u64 = 70;
/// Of 1,000 places so many are taken when the memory of the next growth is wanted.
const WANTS_AT: u64 = 875;

/// The hashes of connections by their slots.
pub trait Hashes {
    /// The hash of the connection in a slot.
    fn hash_of(&self, slot: u32) -> u64;

    /// Asks for what that is made of to be brought into the cache.
    fn prefetch(&self, slot: u32);
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Bucket {
    pub tags: [u16; PLACES],
    /// A bit for each place that is taken.
    pub taken: u16,
    /// How many entries are further to the right because this bucket was full.
    pub passed: u16,
    pub slots: [u32; PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is a cache line");
pub(super) const ALL_TAKEN: u16 = (1 << PLACES) - 1;

impl Bucket {
    /// A bit for each place that has this tag.
    #[inline]
    pub fn matches(&self, tag: u16) -> u16 {
        let mut mask = 0;
        for (place, &other) in self.tags.iter().enumerate() {
            mask |= u16::from(other == tag) << place;
        }
        mask & self.taken
    }
}

/// Where an entry is at home: a sub-table and a tag.
#[derive(Clone, Copy)]
pub(super) struct Home {
    /// The sub-table's first bucket, and how many it has.
    pub base: u64,
    pub buckets: u64,
    pub tag: u16,
}

impl Home {
    /// The bucket that is `step` to the right of where the entry is at home, at the end of the sub-table from its
    /// beginning on.
    #[inline]
    pub fn bucket(&self, step: u64) -> usize {
        let first = (u64::from(self.tag) * self.buckets) >> 16;
        let at = first + step;
        (self.base + if at >= self.buckets { at - self.buckets } else { at }) as usize
    }
}

/// What all sub-tables have in common, but for those that are not there yet.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// There are two to the power of this many sub-tables.
    pub bits: u32,
    /// So many buckets each.
    pub buckets: u64,
}

impl Layout {
    /// For so many entries.
    pub fn for_entries(entries: u64) -> Layout {
        let mut layout = Layout { bits: BITS_MIN, buckets: BUCKETS_MIN };
        while layout.places() * GROWS_AT / 100 <= entries {
            layout = layout.grown();
        }
        layout
    }

    /// Whether so many entries are more than it should have, and fewer.
    #[inline]
    pub fn is_crowded(self, entries: u64) -> bool {
        // Sub-tables that are to be split have room for a time: what follows at once is growth.
        let share = if self.buckets == BUCKETS_MAX { SPLITS_AT } else { GROWS_AT };
        entries * 100 > self.places() * share
    }

    #[inline]
    pub fn is_deserted(self, entries: u64) -> bool {
        entries * 100 < self.places() * SHRINKS_AT
    }

    /// Whether it will be crowded soon.
    pub fn is_nearly_crowded(self, entries: u64) -> bool {
        entries * 1_000 > self.places() * WANTS_AT
    }

    pub fn grown(self) -> Layout {
        match self.buckets == BUCKETS_MAX {
            true => Layout { bits: self.bits + 1, buckets: BUCKETS_MIN },
            false => Layout { buckets: self.buckets + BUCKETS_STEP, ..self },
        }
    }

    pub fn shrunk(self) -> Layout {
        match self.buckets == BUCKETS_MIN && self.bits > BITS_MIN {
            true => Layout { bits: self.bits - 1, buckets: BUCKETS_MAX },
            false => Layout { buckets: (self.buckets - BUCKETS_STEP).max(BUCKETS_MIN), ..self },
        }
    }

    pub fn all_buckets(self) -> u64 {
        self.buckets << self.bits
    }

    pub fn places(self) -> u64 {
        self.all_buckets() * PLACES as u64
    }

    pub fn table(self, hash: u64) -> u64 {
        hash >> (64 - self.bits)
    }

    #[inline]
    pub fn home(self, hash: u64) -> Home {
        let tag = (hash >> (48 - self.bits)) as u16;
        Home { base: self.table(hash) * self.buckets, buckets: self.buckets, tag }
    }
}
