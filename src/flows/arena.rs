//! Arenas: arrays of plain records in memory that is reserved once and touched as it grows.
//!
//! ```text
//! | record 0 | record 1 | ...                 | ... never touched ... | capacity
//!                                        touched end
//! ```
//!
//! The memory is anonymous, or a file that outlives the process. Growth copies nothing. All access is by index and
//! bounds-checked; a record is at home in lines of 64 bytes, which is also the unit of the log.
//!
//! Invariant: no record holds a pointer, so a mapping may lie anywhere.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};

use super::ahead::Area;
use super::slots::Slots;

/// One line of an arena: the unit in which records are logged and applied.
pub type Line = [u8; LINE_BYTES];
/// Length of a line.
pub const LINE_BYTES: usize = 64;

/// The lines of a record that is whole lines.
#[inline]
pub fn lines_of<T: Pod>(record: &T) -> &[Line] {
    bytemuck::cast_slice(std::slice::from_ref(record))
}

const PAGE_BYTES: usize = 4096;
/// How much `trim` gives back at a time: some tens of microseconds.
const TRIM_BYTES: usize = 256 << 10;

/// An array of `T` with a fixed capacity.
pub struct Arena<T> {
    /// Where `area`'s mapping begins.
    base: NonNull<u8>,
    area: Arc<Area>,
    is_file: bool,
    /// No record from here on was touched since the last release.
    touched_end: u32,
    /// How many records the mapping has room for.
    count: usize,
    /// So many bytes behind what is touched are to be there before they are.
    ahead_bytes: usize,
    /// What `area` is told of that.
    wanted_end: usize,
    record: PhantomData<T>,
}

// SAFETY: an arena is the only one that reads or writes its mapping, as a `Vec<T>` would be; others may only have its
// pages brought in, by way of the kernel.
unsafe impl<T: Send> Send for Arena<T> {}
// SAFETY: as for `Send`; `&self` only reads.
unsafe impl<T: Sync> Sync for Arena<T> {}

impl<T: Pod> Arena<T> {
    /// How long a file for `capacity` records is, in bytes: whole pages.
    pub fn file_bytes(capacity: u32) -> u64 {
        (capacity as usize * size_of::<T>()).next_multiple_of(PAGE_BYTES).max(PAGE_BYTES) as u64
    }

    /// Memory that ends with the process. Errors: the address space cannot be had.
    pub fn anonymous(capacity: u32, wants_huge_pages: bool) -> io::Result<Arena<T>> {
        let bytes = Self::file_bytes(capacity) as usize;
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        if wants_huge_pages {
            // A kernel without huge pages says so; nothing is lost.
            let _ = map.advise(Advice::HugePage);
        }
        Ok(Arena::over(map, false))
    }

    /// The memory of a file that is `file_bytes(capacity)` long. Errors: it cannot be mapped.
    pub fn of_file(file: &File, capacity: u32) -> io::Result<Arena<T>> {
        let bytes = Self::file_bytes(capacity) as usize;
        // SAFETY: the caller holds an exclusive lock on the state directory for as long as the storage lives and has
        // checked the file's length, so that nobody of ours truncates or writes it behind our back.
        let map = unsafe { MmapOptions::new().len(bytes).map_mut(file)? };
        Ok(Arena::over(map, true))
    }

    fn over(map: MmapMut, is_file: bool) -> Arena<T> {
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= PAGE_BYTES) };
        let area = Area::over(map.into());
        Arena {
            base: area.base(),
            count: area.bytes() / size_of::<T>(),
            area: Arc::new(area),
            is_file,
            touched_end: 0,
            ahead_bytes: 0,
            wanted_end: 0,
            record: PhantomData,
        }
    }

    /// All records.
    #[inline]
    pub fn records(&self) -> &[T] {
        // SAFETY: the mapping is `count` records long at least, it begins at a page, which aligns any record, it lives
        // as long as `self`, and any bytes are a `T`, as it is `Pod`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.count) }
    }

    /// All records, to be written.
    #[inline]
    pub fn records_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `records`; `&mut self` proves that nobody else looks at them.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().cast(), self.count) }
    }

    /// All lines.
    pub fn lines(&self) -> &[Line] {
        // SAFETY: as for `records`; a mapping is whole pages, and so whole lines.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.area.bytes() / LINE_BYTES) }
    }

    /// All lines, to be written.
    pub fn lines_mut(&mut self) -> &mut [Line] {
        // SAFETY: as for `lines`; `&mut self` proves that nobody else looks at them.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().cast(), self.area.bytes() / LINE_BYTES) }
    }

    /// Remembers that record `index` is about to be touched.
    #[inline]
    pub fn touch(&mut self, index: u32) {
        if index >= self.touched_end {
            self.touched_end = index + 1;
            self.want(self.touched_end);
        }
    }

    /// One past the last record that was touched since the last release.
    pub fn touched_end(&self) -> u32 {
        self.touched_end
    }

    /// From now on so many bytes behind what is touched are wanted before they are touched, from the area that is
    /// returned. What is touched now is taken to be there.
    pub fn keep_ahead(&mut self, bytes: usize) -> Arc<Area> {
        self.area.begin_at(self.touched_end as usize * size_of::<T>());
        self.ahead_bytes = bytes;
        self.want(self.touched_end);
        Arc::clone(&self.area)
    }

    /// The memory of the records before `end`, and of what is kept ahead of them, is wanted soon.
    #[inline]
    pub fn want(&mut self, end: u32) {
        let wanted_end = end as usize * size_of::<T>() + self.ahead_bytes;
        if self.ahead_bytes > 0 && wanted_end > self.wanted_end {
            self.wanted_end = self.area.want(wanted_end);
        }
    }

    /// Gives the memory of all records from `end` on, and what is kept ahead of them, back to the system; they read as
    /// zero afterwards. Returns how many bytes that is.
    pub fn release_from(&mut self, end: u32) -> u64 {
        let start = (end as usize * size_of::<T>() + self.ahead_bytes).next_multiple_of(PAGE_BYTES);
        let stop = (self.touched_end as usize * size_of::<T>()).next_multiple_of(PAGE_BYTES).max(self.wanted_end);
        let stop = stop.min(self.area.bytes());
        self.touched_end = self.touched_end.min(end);
        if start >= stop {
            return 0;
        }
        self.wanted_end = self.wanted_end.min(start);
        let advice = if self.is_file { UncheckedAdvice::Remove } else { UncheckedAdvice::DontNeed };
        // SAFETY: the range lies in the mapping, `&mut self` proves that nobody looks at it, and zero bytes are a
        // valid `T`, as of any `Pod`. A file system that cannot punch holes refuses, and the memory stays.
        unsafe { self.area.release(advice, start, stop) };
        (stop - start) as u64
    }

    /// Gives some memory behind the last slot that is taken back to the system: the cost of one call is bounded.
    /// Returns how many bytes that is; 0 when there is nothing more.
    pub fn trim(&mut self, taken: &Slots) -> u64 {
        let floor = self.touched_end.saturating_sub((TRIM_BYTES / size_of::<T>()) as u32);
        let end = taken.end_of_used(floor, self.touched_end);
        self.release_from(end)
    }

    /// Asks for a record to be brought into the cache. Any index will do.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        if let Some(record) = self.records().get(index as usize) {
            prefetch(record);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch<T>(record: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing architecturally; the address is that of a live reference.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(record).cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch<T>(_record: &T) {}

#[cfg(test)]
mod tests {
    use super::super::Ahead;
    use super::*;

    #[test]
    fn released_memory_reads_as_zero_and_the_rest_stays() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(Arena::<u64>::file_bytes(4_096)).unwrap();
        for mut arena in [Arena::<u64>::anonymous(4_096, false).unwrap(), Arena::of_file(&file, 4_096).unwrap()] {
            for index in 0..4_096 {
                arena.touch(index);
                arena.records_mut()[index as usize] = 7;
            }
            arena.release_from(600);
            assert!(arena.records()[..1_024].iter().all(|&value| value == 7), "whole pages are kept");
            assert!(arena.records()[1_024..].iter().all(|&value| value == 0));
            assert_eq!(arena.touched_end(), 600);
        }
    }

    /// Page faults of this thread so far.
    fn faults() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let behind_name = stat.rsplit(')').next().unwrap();
        behind_name.split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    #[test]
    fn memory_is_wanted_ahead_of_what_is_touched() {
        const AHEAD: usize = 1 << 20;
        let mut arena = Arena::<u64>::anonymous(1 << 20, false).unwrap();
        let ahead = Ahead { areas: vec![arena.keep_ahead(AHEAD)] };
        assert!(ahead.is_behind());
        ahead.populate();
        assert!(!ahead.is_behind());
        arena.touch(0);
        ahead.populate();
        let before = faults();
        arena.records_mut()[..AHEAD / 8].fill(7);
        assert!(faults() - before < (AHEAD / PAGE_BYTES / 4) as i64, "its pages are there before they are touched");
        arena.touch((AHEAD / 8) as u32);
        assert!(ahead.is_behind(), "more is wanted");
        ahead.populate();
        assert_eq!(arena.records()[5], 7);
        assert!(arena.release_from(1) > 0);
        assert!(!ahead.is_behind(), "what is kept ahead stays");
        arena.touch((1 << 20) - 1);
        ahead.populate();
        assert!(!ahead.is_behind(), "the end of the mapping is the end");
    }
}
