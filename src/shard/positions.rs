//! Positions: where among a batch's copies that of a slot is.
//!
//! Invariant: an open-addressed table four times as large as it may get full; clearing costs what was entered.

use super::batch::{TOUCHED_MAX, Touched};

/// See the module.
pub(super) struct Positions {
    entries: Vec<u16>,
}

const VACANT: u16 = u16::MAX;

impl Default for Positions {
    fn default() -> Self {
        Positions { entries: vec![VACANT; TOUCHED_MAX * 4] }
    }
}

impl Positions {
    #[inline]
    fn start(&self, slot: u32) -> usize {
        slot.wrapping_mul(0x9e37_79b9) as usize >> 7 & (self.entries.len() - 1)
    }

    /// The position of the copy of `slot`, if the batch has one.
    #[inline]
    pub fn find(&self, slot: u32, touched: &[Touched]) -> Option<usize> {
        let mut at = self.start(slot);
        loop {
            let entry = self.entries[at];
            if entry == VACANT {
                return None;
            }
            if touched[usize::from(entry)].slot == slot {
                return Some(usize::from(entry));
            }
            at = (at + 1) & (self.entries.len() - 1);
        }
    }

    /// Enters the copy of `slot`, which must not be there.
    #[inline]
    pub fn insert(&mut self, slot: u32, position: usize) {
        let mut at = self.start(slot);
        while self.entries[at] != VACANT {
            at = (at + 1) & (self.entries.len() - 1);
        }
        self.entries[at] = position as u16;
    }

    /// Forgets all copies; `touched` is what was entered.
    pub fn clear(&mut self, touched: &[Touched]) {
        if touched.len() > 256 {
            self.entries.fill(VACANT);
            return;
        }
        for entry in touched {
            let mut at = self.start(entry.slot);
            while self.entries[at] != VACANT {
                self.entries[at] = VACANT;
                at = (at + 1) & (self.entries.len() - 1);
            }
        }
    }
}
