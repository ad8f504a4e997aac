//! The wheel: deadlines of active blocks.
//!
//! Four levels of 64 slots; a slot of the first spans 4 ms, of each further one 64 times as much (18 hours in all).
//!
//! A slot is a list of short pieces, so that none is ever copied to make room; and a slot that comes up is gone through
//! by and by, as its entries may be hundreds of thousands: one call looks at a bounded number of them.
//!
//! Nothing is ever taken out: a block has at most one entry that counts, the earliest that was asked for; the others
//! are recognised by their tick when they come up. The caller then looks at the block's real deadline and enters it
//! again, or not. So a timer that is set and cancelled for each push costs a comparison. It is rebuilt at each start
//! and never logged.

use crate::tcp::Time;

const LEVELS: usize = 4;
const SLOTS: usize = 64;
const TICK_MS: u64 = 4;
const NOT_ENTERED: u64 = 0;
/// Entries in a piece of a slot: 4 KB.
const PIECE: usize = 512;
/// Entries that one call goes through at most: some tens of microseconds.
const COME_UP_MAX: usize = 1_024;

#[derive(Clone, Copy)]
struct Entry {
    active: u32,
    /// Low bits of the tick that it was entered for.
    tick: u32,
}

/// Deadlines by active block.
pub struct Wheel {
    /// All ticks up to here have come up.
    now: u64,
    slots: Vec<Vec<Vec<Entry>>>,
    /// Pieces of slots that come up at `now` and were not gone through yet: time stands still until they are.
    coming: Vec<Vec<Entry>>,
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    /// The tick that counts, for each block.
    entered: Vec<u64>,
}

impl Wheel {
    /// Empty, at a time, for so many blocks: room for all of them is kept, so that none has to be copied.
    pub fn new(now: Time, actives: u32) -> Wheel {
        Wheel {
            now: now.ms() / TICK_MS,
            slots: vec![Vec::new(); LEVELS * SLOTS],
            coming: Vec::new(),
            occupied: [0; LEVELS],
            entered: Vec::with_capacity(actives as usize),
        }
    }

    /// Enters block `active` for a deadline in ms, unless it is entered for an earlier one.
    #[inline]
    pub fn enter(&mut self, active: u32, deadline_ms: u64) {
        let index = active as usize;
        if index >= self.entered.len() {
            self.entered.resize(index + 1, NOT_ENTERED);
        }
        let tick = deadline_ms.div_ceil(TICK_MS).max(self.now + 1);
        let entered = self.entered[index];
        if entered != NOT_ENTERED && entered <= tick {
            return;
        }
        self.entered[index] = tick;
        self.place(active, tick);
    }

    fn place(&mut self, active: u32, tick: u64) {
        let distance = tick - self.now;
        let level = (0..LEVELS - 1).find(|&level| distance < 64u64 << (6 * level)).unwrap_or(LEVELS - 1);
        // What lies beyond the last level waits in its farthest slot and is placed again from there.
        let reachable = tick.min(self.now + (63 << (6 * level)));
        let slot = (reachable >> (6 * level)) as usize % SLOTS;
        let (pieces, entry) = (&mut self.slots[level * SLOTS + slot], Entry { active, tick: tick as u32 });
        match pieces.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(entry),
            None => pieces.push(vec![entry]),
        }
        self.occupied[level] |= 1 << slot;
    }

    /// Moves on towards a time and adds to `due` the blocks whose entries come up. It stops before where that are very
    /// many: `next` is not after `now` then, and the next call goes on.
    pub fn advance(&mut self, now: Time, due: &mut Vec<u32>) {
        let target = now.ms() / TICK_MS;
        let mut looks = COME_UP_MAX;
        loop {
            while let Some(mut piece) = self.coming.pop() {
                let rest = piece.len().saturating_sub(looks);
                looks -= piece.len() - rest;
                for entry in piece.drain(rest..) {
                    self.come_up(entry, due);
                }
                if rest > 0 {
                    self.coming.push(piece);
                    return;
                }
            }
            let Some(tick) = self.next_tick().filter(|&tick| tick <= target) else { break };
            self.now = tick;
            for level in 0..LEVELS {
                if self.now.is_multiple_of(1 << (6 * level)) {
                    self.take_slot(level, (self.now >> (6 * level)) as usize % SLOTS);
                }
            }
        }
        self.now = self.now.max(target);
    }

    fn take_slot(&mut self, level: usize, slot: usize) {
        if self.occupied[level] >> slot & 1 == 1 {
            self.occupied[level] &= !(1 << slot);
            self.coming.append(&mut self.slots[level * SLOTS + slot]);
        }
    }

    fn come_up(&mut self, entry: Entry, due: &mut Vec<u32>) {
        let tick = self.entered[entry.active as usize];
        if tick == NOT_ENTERED || tick as u32 != entry.tick {
            return;
        }
        if tick > self.now {
            self.place(entry.active, tick);
        } else {
            self.entered[entry.active as usize] = NOT_ENTERED;
            due.push(entry.active);
        }
    }

    /// A time by which `advance` should be called: no entry comes up before it. `None` while the wheel is empty.
    pub fn next(&self) -> Option<Time> {
        let coming = (!self.coming.is_empty()).then_some(self.now);
        coming.or_else(|| self.next_tick()).map(|tick| Time::from_ms(tick * TICK_MS))
    }

    /// The next tick at which a slot is to be emptied.
    fn next_tick(&self) -> Option<u64> {
        let mut next = None;
        for level in 0..LEVELS {
            let shift = 6 * level;
            let position = self.now >> shift;
            let ahead = self.occupied[level].rotate_right((position + 1) as u32 % 64);
            if ahead != 0 {
                let tick = (position + 1 + u64::from(ahead.trailing_zeros())) << shift;
                next = Some(next.map_or(tick, |other: u64| other.min(tick)));
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_at(wheel: &mut Wheel, ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(Time::from_ms(ms), &mut due);
        due
    }

    #[test]
    fn an_entry_comes_up_at_its_time_and_never_before() {
        let start_ms = 123_456;
        for delay_ms in
            [1, 4, 200, 255, 256, 257, 16_383, 16_384, 70_000, 1_000_000, 5_000_000, 70_000_000, 200_000_000]
        {
            let mut wheel = Wheel::new(Time::from_ms(start_ms), 8);
            wheel.enter(5, start_ms + delay_ms);
            let mut now = Time::from_ms(start_ms);
            let mut due = Vec::new();
            while due.is_empty() {
                now = wheel.next().expect("an entry is due some time").max(now.plus_ms(1));
                wheel.advance(now, &mut due);
            }
            assert_eq!(due, [5]);
            let late_ms = now.ms() as i64 - (start_ms + delay_ms) as i64;
            assert!((0..2 * TICK_MS as i64).contains(&late_ms), "{delay_ms} ms came up {late_ms} ms late");
            assert_eq!(wheel.next(), None);
        }
    }

    #[test]
    fn the_earliest_entry_counts() {
        let mut wheel = Wheel::new(Time::from_ms(0), 8);
        wheel.enter(1, 1_000);
        wheel.enter(1, 5_000);
        wheel.enter(2, 5_000);
        wheel.enter(2, 100);
        assert_eq!(due_at(&mut wheel, 999), [2]);
        assert_eq!(due_at(&mut wheel, 1_004), [1]);
        assert_eq!(due_at(&mut wheel, 100_000), [0u32; 0], "the later ones are forgotten: the caller enters anew");
        wheel.enter(1, 100_100);
        assert_eq!(due_at(&mut wheel, 100_104), [1]);
    }

    #[test]
    fn a_long_jump_brings_everything_up() {
        let mut wheel = Wheel::new(Time::from_ms(0), 8);
        for active in 0..1_000 {
            wheel.enter(active, u64::from(active) * 977);
        }
        let now = Time::from_ms(2_000_000);
        let mut due = Vec::new();
        while wheel.next().is_some_and(|next| next <= now) {
            wheel.advance(now, &mut due);
        }
        due.sort_unstable();
        assert_eq!(due, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn one_call_goes_through_a_bounded_number_of_entries() {
        const BLOCKS: u32 = 100_000;
        for deadline_ms in [100, 1_000, 60_000] {
            let mut wheel = Wheel::new(Time::from_ms(0), BLOCKS);
            (0..BLOCKS).for_each(|active| wheel.enter(active, deadline_ms));
            let (mut due, mut calls) = (Vec::new(), 0);
            while let Some(now) = wheel.next() {
                assert!(now <= Time::from_ms(deadline_ms + TICK_MS), "a cascade is over before its entries are due");
                let (before, pieces) = (due.len(), wheel.coming.len());
                wheel.advance(now, &mut due);
                assert!(due.len() - before <= COME_UP_MAX, "{} came up at once", due.len() - before);
                let passed = pieces.saturating_sub(wheel.coming.len());
                assert!(passed <= COME_UP_MAX / PIECE + 1, "{passed} pieces were gone through at once");
                calls += 1;
            }
            assert!(calls >= BLOCKS as usize / COME_UP_MAX, "{calls} calls");
            due.sort_unstable();
            assert_eq!(due, (0..BLOCKS).collect::<Vec<_>>(), "each comes up once");
        }
    }

    #[test]
    fn what_is_entered_while_others_come_up_is_not_lost() {
        let mut wheel = Wheel::new(Time::from_ms(0), 10_001);
        (0..10_000).for_each(|active| wheel.enter(active, 1_000));
        let mut due = due_at(&mut wheel, 1_000);
        assert!(due.len() < 10_000);
        wheel.enter(10_000, 1_000);
        while due.len() < 10_001 {
            let now = wheel.next().expect("more comes up").max(Time::from_ms(1_000));
            wheel.advance(now, &mut due);
        }
        assert_eq!(wheel.next(), None);
    }
}
