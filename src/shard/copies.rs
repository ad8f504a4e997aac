//! Copies of the flows that the open batch has changed, or may have, each found by its slot.
//!
//! Room is used again and again: what lies in it from earlier batches is overwritten where a new copy is made, field by
//! field, as a copy is large.
//!
//! Invariant: the table of positions is four times as large as it may get full; clearing costs what was entered.

use std::ops::{Index, IndexMut};

use bytemuck::Zeroable;

use super::repairs::Borrowed;
use super::tables::Tables;
use crate::tcp::{Active, Flow};

/// How many flows one batch may change. Its record holds three lines of each.
pub(super) const TOUCHED_MAX: usize = 1_024;

/// A flow that the batch has changed, or may have.
pub(super) struct Touched {
    pub slot: u32,
    pub flow: Flow,
    pub active: Active,
    /// The active block that is borrowed, and whether this batch borrowed it.
    pub active_index: Option<u32>,
    pub is_active_new: bool,
    /// The repair block that is borrowed.
    pub repair: Option<Borrowed>,
    /// By how much the timestamps that this connection sees differ from our clock.
    pub ts_offset: u32,
}

impl Touched {
    /// The timestamps of the connection, if it has any, differ from our clock.
    #[inline]
    pub fn offset_timestamps(&mut self, tables: &Tables) {
        if self.flow.has_timestamps() {
            self.ts_offset = tables.ts_offset(&tables.key_of(&self.flow));
        }
    }
}

/// See the module.
pub(super) struct Copies {
    /// Those of this batch, `count` of them, and room.
    entries: Vec<Touched>,
    count: usize,
    /// Where in `entries` a slot is, by a hash of it.
    positions: Vec<u16>,
}

const VACANT: u16 = u16::MAX;

impl Default for Copies {
    fn default() -> Copies {
        Copies { entries: Vec::with_capacity(128), count: 0, positions: vec![VACANT; TOUCHED_MAX * 4] }
    }
}

impl Copies {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline]
    fn start(&self, slot: u32) -> usize {
        slot.wrapping_mul(0x9e37_79b9) as usize >> 7 & (self.positions.len() - 1)
    }

    /// The position of the copy of `slot`, if there is one.
    #[inline]
    pub fn find(&self, slot: u32) -> Option<usize> {
        let mut at = self.start(slot);
        loop {
            let position = self.positions[at];
            if position == VACANT {
                return None;
            }
            if self.entries[usize::from(position)].slot == slot {
                return Some(usize::from(position));
            }
            at = (at + 1) & (self.positions.len() - 1);
        }
    }

    /// Makes room for a copy of `slot`, which has none: its flow and its active block are still to be written. Panics
    /// where there are `TOUCHED_MAX`.
    #[inline]
    pub fn add(&mut self, slot: u32) -> usize {
        let position = self.count;
        assert!(position < TOUCHED_MAX, "a batch touches a bounded number of flows");
        if position == self.entries.len() {
            self.add_room();
        }
        let entry = &mut self.entries[position];
        entry.slot = slot;
        entry.active_index = None;
        entry.is_active_new = false;
        entry.repair = None;
        entry.ts_offset = 0;
        self.count += 1;
        let mut at = self.start(slot);
        while self.positions[at] != VACANT {
            at = (at + 1) & (self.positions.len() - 1);
        }
        self.positions[at] = position as u16;
        position
    }

    #[cold]
    fn add_room(&mut self) {
        self.entries.push(Touched {
            slot: 0,
            flow: Flow::zeroed(),
            active: Active::zeroed(),
            active_index: None,
            is_active_new: false,
            repair: None,
            ts_offset: 0,
        });
    }

    /// Forgets all copies.
    pub fn clear(&mut self) {
        if self.count > 256 {
            self.positions.fill(VACANT);
        } else {
            for position in 0..self.count {
                let mut at = self.start(self.entries[position].slot);
                while self.positions[at] != VACANT {
                    self.positions[at] = VACANT;
                    at = (at + 1) & (self.positions.len() - 1);
                }
            }
        }
        self.count = 0;
    }
}

impl Index<usize> for Copies {
    type Output = Touched;

    #[inline]
    fn index(&self, position: usize) -> &Touched {
        &self.entries[position]
    }
}

impl IndexMut<usize> for Copies {
    #[inline]
    fn index_mut(&mut self, position: usize) -> &mut Touched {
        &mut self.entries[position]
    }
}
