//! Memory ahead of need: pages are brought in by another thread before the shard touches them.
//!
//! The first touch of a page takes microseconds, of a huge one up to milliseconds, and would be part of a step. So each
//! arena says how far it will need its memory soon (`want`), and whoever has the shard's [`Ahead`] has it brought in
//! (`populate`), in a thread of its own; the shard never waits for that. Where nobody does, nothing is lost but time.
//!
//! ```text
//! | touched | populated           | wanted        |
//!             ahead, in bytes ----------------->
//! ```
//!
//! Invariant: nothing here reads or writes the memory; an area lives as long as anybody who may have it populated.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapRaw, UncheckedAdvice};

/// The memory of an arena is wanted, and brought in, in pieces of so many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// The mapping of an arena, and how much of it is wanted and there.
pub struct Area {
    map: MmapRaw,
    /// The bytes before here are wanted.
    wanted: AtomicUsize,
    /// Those before here are there.
    populated: AtomicUsize,
}

impl Area {
    pub(super) fn over(map: MmapRaw) -> Area {
        Area { map, wanted: AtomicUsize::new(0), populated: AtomicUsize::new(0) }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        NonNull::new(self.map.as_mut_ptr()).expect("no mapping begins at zero")
    }

    pub(super) fn bytes(&self) -> usize {
        self.map.len()
    }

    /// What lies before `end` is there.
    pub(super) fn begin_at(&self, end: usize) {
        self.populated.store(end.next_multiple_of(PIECE_BYTES), Ordering::Relaxed);
    }

    /// Wants everything before `end`, at least. Returns how much it is.
    pub(super) fn want(&self, end: usize) -> usize {
        let end = end.next_multiple_of(PIECE_BYTES);
        self.wanted.store(end, Ordering::Relaxed);
        end
    }

    /// Gives a part back to the system.
    ///
    /// # Safety
    ///
    /// As of `madvise` with this advice: nobody looks at the part meanwhile, and it may become zero.
    pub(super) unsafe fn release(&self, advice: UncheckedAdvice, start: usize, stop: usize) {
        self.wanted.fetch_min(start, Ordering::Relaxed);
        self.populated.fetch_min(start, Ordering::Relaxed);
        // SAFETY: as the caller says.
        let _ = unsafe { self.map.unchecked_advise_range(advice, start, stop - start) };
    }

    fn is_behind(&self) -> bool {
        self.populated.load(Ordering::Relaxed) < self.wanted.load(Ordering::Relaxed)
    }

    /// Brings one piece in. Returns whether there is more to bring in.
    fn populate(&self) -> bool {
        let start = self.populated.load(Ordering::Relaxed);
        let stop = (start + PIECE_BYTES).min(self.map.len());
        if !self.is_behind() {
            return false;
        }
        // Where the kernel cannot, or memory is at its end, the shard touches the pages itself.
        let is_done = start >= stop || self.map.advise_range(Advice::PopulateWrite, start, stop - start).is_ok();
        let next = if is_done { start + PIECE_BYTES } else { usize::MAX };
        // Somebody may have given back what was there, so that it is not.
        let _ = self.populated.compare_exchange(start, next, Ordering::Relaxed, Ordering::Relaxed);
        true
    }
}

/// What the arenas of a shard will touch next, for another thread.
#[derive(Clone)]
pub struct Ahead {
    pub(super) areas: Vec<Arc<Area>>,
}

impl Ahead {
    /// Whether memory is wanted that is not there.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.areas.iter().any(|area| area.is_behind())
    }

    /// Brings in what is wanted, in turns, until all of it is there.
    pub fn populate(&self) {
        let mut is_more = true;
        while is_more {
            is_more = false;
            for area in &self.areas {
                is_more |= area.populate();
            }
        }
    }
}
