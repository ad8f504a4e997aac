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

use bytemuck::Pod;
use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};

/// One line of an arena: the unit in which records are logged and applied.
pub type Line = [u8; LINE_BYTES];
/// Length of a line.
pub const LINE_BYTES: usize = 64;
const PAGE_BYTES: usize = 4096;

/// An array of `T` with a fixed capacity.
pub struct Arena<T> {
    map: MmapMut,
    is_file: bool,
    /// No record from here on was touched since the last release.
    touched_end: u32,
    /// How many records the mapping has room for.
    count: usize,
    record: PhantomData<T>,
}

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
        Arena { count: map.len() / size_of::<T>(), map, is_file, touched_end: 0, record: PhantomData }
    }

    /// All records.
    #[inline]
    pub fn records(&self) -> &[T] {
        // SAFETY: the mapping is `count` records long at least, it begins at a page, which aligns any record, it lives
        // as long as `self`, and any bytes are a `T`, as it is `Pod`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.count) }
    }

    /// All records, to be written.
    #[inline]
    pub fn records_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `records`; `&mut self` proves that nobody else looks at them.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.count) }
    }

    /// All lines.
    pub fn lines(&self) -> &[Line] {
        bytemuck::cast_slice(&self.map)
    }

    /// All lines, to be written.
    pub fn lines_mut(&mut self) -> &mut [Line] {
        bytemuck::cast_slice_mut(&mut self.map)
    }

    /// Remembers that record `index` is about to be touched.
    #[inline]
    pub fn touch(&mut self, index: u32) {
        self.touched_end = self.touched_end.max(index + 1);
    }

    /// One past the last record that was touched since the last release.
    pub fn touched_end(&self) -> u32 {
        self.touched_end
    }

    /// Gives the memory of all records from `end` on back to the system; they read as zero afterwards.
    pub fn release_from(&mut self, end: u32) {
        let start = (end as usize * size_of::<T>()).next_multiple_of(PAGE_BYTES);
        let stop = (self.touched_end as usize * size_of::<T>()).next_multiple_of(PAGE_BYTES).min(self.map.len());
        self.touched_end = self.touched_end.min(end);
        if start >= stop {
            return;
        }
        let advice = if self.is_file { UncheckedAdvice::Remove } else { UncheckedAdvice::DontNeed };
        // SAFETY: the range lies in the mapping, `&mut self` proves that nobody looks at it, and zero bytes are a
        // valid `T`, as of any `Pod`. A file system that cannot punch holes refuses, and the memory stays.
        let _ = unsafe { self.map.unchecked_advise_range(advice, start, stop - start) };
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
}
