//! Differences between Linux and holdline: what an entry of the `table` is, and which of them fall into none.
//!
//! An entry stands for a kind of segment in some states and says exactly what each of the two does with it. A
//! difference that is in no entry is a failure, and so is an entry that nothing falls into any more.

use super::answer::Answer;
use super::conversation::{Did, Difference, Step};
use super::crafted::{Damage, SYN, Segment};
use super::table::ENTRIES;

/// Which kernels differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernels {
    /// All that the test runs on.
    All,
    /// Only older or newer ones than this, or as chance has it: nothing may fall into the entry.
    Some,
}

/// A kind of difference.
pub struct Entry {
    /// What is different: the kernel's way first.
    pub name: &'static str,
    /// Why ours is right.
    pub reason: &'static str,
    pub kernels: Kernels,
    pub is_it: fn(&Difference) -> bool,
}

/// What is wrong with a list of differences: those that are in no entry, alike ones together; and, unless only some
/// kinds of segments were tried, the entries that nothing falls into.
pub fn faults(found: &[Difference], is_whole: bool) -> Vec<String> {
    let mut counts = vec![0; ENTRIES.len()];
    let mut groups: Vec<(&Difference, usize)> = Vec::new();
    for difference in found {
        if let Some(index) = ENTRIES.iter().position(|entry| (entry.is_it)(difference)) {
            counts[index] += 1;
        } else if let Some((_, count)) = groups.iter_mut().find(|(first, _)| first.is_alike(difference)) {
            *count += 1;
        } else {
            groups.push((difference, 1));
        }
    }
    let mut faults: Vec<String> = groups.iter().map(|(first, count)| format!("{count} x {first}")).collect();
    for (entry, count) in ENTRIES.iter().zip(counts) {
        println!("{count:>6} x {}: {}", entry.name, entry.reason);
        if is_whole && count == 0 && entry.kernels == Kernels::All {
            faults.push(format!("nothing falls into the entry: {}", entry.name));
        }
    }
    faults
}

impl Difference {
    pub fn is_in(&self, states: &[&str]) -> bool {
        states.contains(&self.state.as_str())
    }

    pub fn both_are_in(&self, state: &str) -> bool {
        self.kernel.state == state && self.ours.state == state
    }

    /// Whether one of the stacks has changed its state.
    pub fn is_changed(&self) -> bool {
        let is_other = |did: &Did| did.state != self.state;
        is_other(&self.kernel) || is_other(&self.ours)
    }

    /// Whether the application has closed for good.
    pub fn is_orphaned(&self) -> bool {
        self.case.steps[..self.at].contains(&Step::CloseBoth)
    }

    /// Whether the kernel answered by ICMP and that is all.
    pub fn is_told_by_icmp(&self) -> bool {
        let is_told = matches!(self.kernel.answers[..], [Answer::Icmp { .. }]);
        is_told && self.ours.is_silent() && !self.is_changed()
    }

    pub fn has(&self, control: u8) -> bool {
        self.segment().is_some_and(|segment| segment.has(control))
    }

    pub fn has_payload(&self) -> bool {
        self.segment().is_some_and(|segment| segment.payload_bytes > 0)
    }

    pub fn is_damaged(&self, is_it: fn(&Damage) -> bool) -> bool {
        self.segment().is_some_and(|segment| segment.damage.iter().any(is_it))
    }

    /// Whether both ends have agreed on timestamps.
    pub fn has_stamps(&self) -> bool {
        self.segments_before().next().is_some_and(|segment| segment.has(SYN) && segment.stamp.is_some())
    }

    pub fn segments_before(&self) -> impl Iterator<Item = &Segment> {
        self.case.steps[..self.at].iter().filter_map(|step| step.segment())
    }

    /// Whether both stacks did the same at the other, in the same state, for a segment of the same kind.
    fn is_alike(&self, other: &Difference) -> bool {
        let kind = |it: &Difference| {
            it.segment().map(|segment| (segment.control, segment.payload_bytes > 0, segment.damage.clone()))
        };
        let outcome = |it: &Difference| (it.kernel.clone(), it.ours.clone());
        self.state == other.state && outcome(self) == outcome(other) && kind(self) == kind(other)
    }
}
