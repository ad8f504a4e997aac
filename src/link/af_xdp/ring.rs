//! Rings: queues of one writer and one reader in memory that is shared with the kernel.
//!
//! Four of them belong to a queue of an interface: fill and transmit, which we write, receive and completion, which we
//! read. Each has two indices, one for each side, that only ever grow and wrap at 2^32 on purpose; the lower bits say
//! which entry is meant.
//!
//! ```text
//!       consumer                      producer
//!          |  entries that wait          |  room            indices grow to the right
//!   -------+-----------------------------+-----------
//! ```
//!
//! Invariant: an entry outside of the ring cannot be named, whatever the other side writes into its index.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// Where a ring lies.
pub(super) struct Place<T> {
    pub producer: NonNull<AtomicU32>,
    pub consumer: NonNull<AtomicU32>,
    pub flags: NonNull<AtomicU32>,
    pub entries: NonNull<T>,
    /// A power of two.
    pub size: u32,
    /// What keeps all of that where it is.
    pub _memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the place keeps its memory alive, and what both sides write at once are atomics.
unsafe impl<T: Send> Send for Place<T> {}

impl<T: Copy> Place<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: whoever made the place says that it is an index of the ring, and the place keeps it alive.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }
    }

    /// The entry that an index names, wherever it points.
    fn entry(&self, index: u32) -> *mut T {
        let offset = (index & (self.size - 1)) as usize;
        // SAFETY: the offset is below the size, and there are so many entries.
        unsafe { self.entries.as_ptr().add(offset) }
    }
}

/// The writing side.
pub(super) struct Producer<T> {
    place: Place<T>,
    /// The next index to be written.
    next: u32,
    /// Up to where the other side has read, when it was last looked at.
    read: u32,
}

impl<T: Copy> Producer<T> {
    /// At what was written before.
    ///
    /// # Safety
    ///
    /// The place is a ring whose other side only reads, and nobody else writes.
    pub unsafe fn new(place: Place<T>) -> Producer<T> {
        assert!(place.size.is_power_of_two(), "the lower bits of an index name an entry");
        let (next, read) = (place.producer().load(Ordering::Relaxed), place.consumer().load(Ordering::Acquire));
        Producer { place, next, read }
    }

    /// Whether there is room for one entry more.
    pub fn has_room(&mut self) -> bool {
        if self.next.wrapping_sub(self.read) >= self.place.size {
            self.read = self.place.consumer().load(Ordering::Acquire);
        }
        self.next.wrapping_sub(self.read) < self.place.size
    }

    /// Writes an entry, which the other side sees at the next `submit`. Panics where there is no room.
    pub fn push(&mut self, entry: T) {
        assert!(self.has_room(), "whoever pushes has asked for room");
        // SAFETY: the entry lies in the ring, and the other side reads it only after `submit`.
        unsafe { self.place.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the other side what was pushed. Returns how many entries those are.
    pub fn submit(&mut self) -> u32 {
        let count = self.next.wrapping_sub(self.place.producer().load(Ordering::Relaxed));
        self.place.producer().store(self.next, Ordering::Release);
        count
    }

    /// How many submitted entries the other side has not read yet.
    pub fn waiting(&mut self) -> u32 {
        self.read = self.place.consumer().load(Ordering::Acquire);
        self.place.producer().load(Ordering::Relaxed).wrapping_sub(self.read).min(self.place.size)
    }

    /// Whether the other side looks at the ring only when it is called.
    pub fn needs_wakeup(&self) -> bool {
        // It says so and then looks once more: what was submitted must be there before its word is read.
        fence(Ordering::SeqCst);
        self.place.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The reading side.
pub(super) struct Consumer<T> {
    place: Place<T>,
    /// The next index to be read.
    next: u32,
    /// Up to where the other side has written, when it was last looked at.
    written: u32,
}

impl<T: Copy> Consumer<T> {
    /// At what was read before.
    ///
    /// # Safety
    ///
    /// The place is a ring whose other side writes entries before it raises its index, and nobody else reads.
    pub unsafe fn new(place: Place<T>) -> Consumer<T> {
        assert!(place.size.is_power_of_two(), "the lower bits of an index name an entry");
        let (next, written) = (place.consumer().load(Ordering::Relaxed), place.producer().load(Ordering::Acquire));
        Consumer { place, next, written }
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&mut self) -> bool {
        if self.next == self.written {
            self.written = self.place.producer().load(Ordering::Acquire);
        }
        // More than the ring holds cannot wait; such an index is none.
        !(1..=self.place.size).contains(&self.written.wrapping_sub(self.next))
    }

    /// Reads an entry, whose room the other side gets at the next `release`.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the entry lies in the ring, and the other side has written it before it raised its index.
        let entry = unsafe { self.place.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the other side back the room of what was read.
    pub fn release(&mut self) {
        self.place.consumer().store(self.next, Ordering::Release);
    }
}

/// linux/if_xdp.h: XDP_RING_NEED_WAKEUP.
const NEED_WAKEUP: u32 = 1;

/// Both sides of a ring in ordinary memory, whose indices begin at `start`, and whose entries are `blank`.
#[cfg(test)]
pub(super) fn pair<T: Copy + Send + Sync + 'static>(size: u32, start: u32, blank: T) -> (Producer<T>, Consumer<T>) {
    use std::cell::UnsafeCell;

    struct Memory<T> {
        indices: [AtomicU32; 3],
        entries: Vec<UnsafeCell<T>>,
    }
    // SAFETY: the two sides never touch the same entry at once, by the protocol of the ring.
    unsafe impl<T: Send> Sync for Memory<T> {}

    let indices = [start, start, 0].map(AtomicU32::new);
    let entries = (0..size).map(|_| UnsafeCell::new(blank)).collect();
    let memory = Arc::new(Memory { indices, entries });
    let place = || Place {
        producer: NonNull::from(&memory.indices[0]),
        consumer: NonNull::from(&memory.indices[1]),
        flags: NonNull::from(&memory.indices[2]),
        entries: NonNull::new(memory.entries[0].get()).expect("it is there"),
        size,
        _memory: Arc::clone(&memory) as Arc<dyn Any + Send + Sync>,
    };
    // SAFETY: one side of each kind, and both follow the protocol.
    unsafe { (Producer::new(place()), Consumer::new(place())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_pass_in_order_across_the_wrap_of_the_indices() {
        for start in [0, u32::MAX - 5, u32::MAX - 8] {
            let (mut here, mut there) = pair(8, start, 0u64);
            let (mut next, mut expected) = (0, 0);
            for round in 0..40 {
                for _ in 0..=round % 8 {
                    if here.has_room() {
                        here.push(next);
                        next += 1;
                    }
                }
                here.submit();
                while let Some(entry) = there.pop() {
                    assert_eq!(entry, expected);
                    expected += 1;
                }
                there.release();
            }
            assert_eq!(expected, next);
            assert!(next > 100);
        }
    }

    #[test]
    fn nothing_is_seen_before_it_is_submitted_and_no_room_before_it_is_released() {
        let (mut here, mut there) = pair(4, u32::MAX, 0u64);
        (0..4).for_each(|entry| here.push(entry));
        assert!(!here.has_room() && there.pop().is_none());
        assert_eq!((here.submit(), here.waiting()), (4, 4));
        assert_eq!((there.pop(), there.pop()), (Some(0), Some(1)));
        assert!(!here.has_room());
        there.release();
        assert!(here.has_room());
        assert_eq!((here.submit(), here.waiting()), (0, 2));
    }

    #[test]
    fn an_index_beyond_the_ring_shows_nothing() {
        let (here, mut there) = pair(4, 0, 0u64);
        for wrong in [5, 1 << 20, u32::MAX] {
            here.place.producer().store(wrong, Ordering::Release);
            assert_eq!(there.pop(), None, "{wrong}");
        }
    }

    #[test]
    fn a_consumer_index_beyond_what_was_written_makes_no_room() {
        let (mut here, there) = pair(4, 0, 0u64);
        (0..4).for_each(|entry| here.push(entry));
        here.submit();
        there.place.consumer().store(7, Ordering::Release);
        assert!(!here.has_room(), "4 - 7 wraps to a number that no ring holds");
    }

    #[test]
    fn a_wake_up_is_wanted_when_the_other_side_says_so() {
        let (here, there) = pair(4, 0, 0u64);
        assert!(!here.needs_wakeup());
        there.place.flags().store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(here.needs_wakeup());
    }
}
