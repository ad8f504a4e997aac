//! Slots: which places of an arena are taken, as a tree of bits.
//!
//! ```text
//! top      1 word    bit = "the word below is full"
//! ...
//! bottom   n words   bit = "the slot is taken"
//! ```
//!
//! The lowest free slot is handed out first, so that an arena that empties does so from its end and its memory can be
//! given back. It is rebuilt at each start from what the flows name, and never logged.

const NONE_FREE: u64 = u64::MAX;
/// So many words are looked at for the slots that are handed out next.
const LOOK_AHEAD: usize = 32;

/// The taken slots among `capacity`.
#[derive(Debug)]
pub struct Slots {
    /// A bit for each slot.
    bottom: Vec<u64>,
    /// A bit for each full word of the level below, the first level being above the bottom.
    upper: Vec<Vec<u64>>,
    capacity: u32,
    used: u32,
    /// No word of the bottom before this one has a free slot.
    first: usize,
}

impl Slots {
    /// All free. Costs a bit for each slot, of address space until they are touched.
    pub fn new(capacity: u32) -> Slots {
        let mut words = capacity.div_ceil(64).max(1) as usize;
        let mut slots = Slots { bottom: vec![0; words], upper: Vec::new(), capacity, used: 0, first: 0 };
        while words > 1 {
            words = words.div_ceil(64);
            slots.upper.push(vec![0; words]);
        }
        slots
    }

    /// How many there are.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many are taken.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// How many are free.
    #[inline]
    pub fn free(&self) -> u32 {
        self.capacity - self.used
    }

    /// Takes the lowest free slot; `None` when all are taken.
    #[inline]
    pub fn take_lowest(&mut self) -> Option<u32> {
        if self.used == self.capacity {
            return None;
        }
        if self.bottom[self.first] == NONE_FREE {
            self.find_first();
        }
        let word = &mut self.bottom[self.first];
        let slot = self.first as u32 * 64 + word.trailing_ones();
        assert!(slot < self.capacity, "with one free below the capacity the lowest free one is below it");
        self.used += 1;
        *word |= *word + 1;
        if *word == NONE_FREE {
            self.mark_full(self.first);
        }
        Some(slot)
    }

    /// The slots that are handed out next, as far as a look at a few words finds them: for prefetching.
    pub fn next_free(&self) -> impl Iterator<Item = u32> {
        let words = self.first..self.bottom.len().min(self.first + LOOK_AHEAD);
        let slots = words.flat_map(|word| {
            let mut free = !self.bottom[word];
            std::iter::from_fn(move || {
                let slot = (free != 0).then(|| word as u32 * 64 + free.trailing_zeros())?;
                free &= free - 1;
                Some(slot)
            })
        });
        slots.take_while(|&slot| slot < self.capacity)
    }

    /// Takes a certain slot. Returns whether it was free.
    pub fn take(&mut self, slot: u32) -> bool {
        if self.is_taken(slot) {
            return false;
        }
        self.used += 1;
        let index = slot as usize / 64;
        self.bottom[index] |= 1 << (slot % 64);
        if self.bottom[index] == NONE_FREE {
            self.mark_full(index);
        }
        true
    }

    /// Looks for the first word of the bottom with a free slot.
    #[cold]
    fn find_first(&mut self) {
        let from_the_top = self.upper.iter().rev();
        self.first = from_the_top.fold(0, |position, level| position * 64 + level[position].trailing_ones() as usize);
    }

    /// A word of the bottom has become full.
    #[cold]
    fn mark_full(&mut self, word: usize) {
        let mut position = word;
        for level in &mut self.upper {
            let word = &mut level[position / 64];
            *word |= 1 << (position % 64);
            if *word != NONE_FREE {
                break;
            }
            position /= 64;
        }
    }

    /// A word of the bottom is full no longer.
    #[cold]
    fn mark_not_full(&mut self, word: usize) {
        let mut position = word;
        for level in &mut self.upper {
            let word = &mut level[position / 64];
            let was_full = *word == NONE_FREE;
            *word &= !(1 << (position % 64));
            if !was_full {
                break;
            }
            position /= 64;
        }
    }

    /// Whether a slot is taken.
    #[inline]
    pub fn is_taken(&self, slot: u32) -> bool {
        self.bottom[slot as usize / 64] >> (slot % 64) & 1 == 1
    }

    /// Gives a slot back. Panics if it was not taken.
    #[inline]
    pub fn give_back(&mut self, slot: u32) {
        let (index, bit) = (slot as usize / 64, 1 << (slot % 64));
        let word = &mut self.bottom[index];
        assert!(*word & bit != 0, "a slot is given back once");
        let was_full = *word == NONE_FREE;
        *word &= !bit;
        self.used -= 1;
        self.first = self.first.min(index);
        if was_full {
            self.mark_not_full(index);
        }
    }

    /// One past the highest taken slot, searched downward from `below`, and not below `floor`.
    pub fn end_of_used(&self, floor: u32, below: u32) -> u32 {
        let first = floor as usize / 64;
        let words = (below.min(self.capacity).div_ceil(64) as usize).max(first);
        let highest = self.bottom[first..words].iter().rposition(|&word| word != 0).map(|index| first + index);
        let end = highest.map_or(0, |index| index as u32 * 64 + 64 - self.bottom[index].leading_zeros());
        end.max(floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slot_comes_first_and_the_capacity_holds() {
        for capacity in [1, 63, 64, 65, 4_096, 5_000] {
            let mut slots = Slots::new(capacity);
            for expected in 0..capacity {
                assert_eq!(slots.take_lowest(), Some(expected));
            }
            assert_eq!(slots.take_lowest(), None);
            slots.give_back(capacity / 2);
            assert!(slots.next_free().eq([capacity / 2]));
            assert_eq!(slots.take_lowest(), Some(capacity / 2));
            assert_eq!((slots.used(), slots.free()), (capacity, 0));
        }
    }

    #[test]
    fn the_slots_that_are_handed_out_next_are_known_before() {
        let mut slots = Slots::new(200);
        (0..130).for_each(|_| assert!(slots.take_lowest().is_some()));
        [3, 70].into_iter().for_each(|slot| slots.give_back(slot));
        let next: Vec<u32> = slots.next_free().take(5).collect();
        assert_eq!(next, [3, 70, 130, 131, 132]);
        assert!(next.iter().all(|&slot| slots.take_lowest() == Some(slot)));
        assert_eq!(slots.next_free().last(), Some(199));
    }

    #[test]
    fn the_end_of_used_follows_what_is_given_back() {
        let mut slots = Slots::new(1_000);
        assert_eq!(slots.end_of_used(0, 1_000), 0);
        for slot in [0, 3, 700] {
            assert!(slots.take(slot));
            assert!(!slots.take(slot));
        }
        assert_eq!(slots.end_of_used(0, 1_000), 701);
        assert_eq!(slots.end_of_used(500, 1_000), 701);
        slots.give_back(700);
        assert_eq!(slots.end_of_used(0, 701), 4);
        assert_eq!(slots.end_of_used(500, 701), 500);
    }
}
