//! Differences between Linux and holdline, each with the reason why ours is right.

use super::conversation::Difference;

/// Those that are in no entry of the table, alike ones together: one of each and how many there are.
pub fn unlisted(found: &[Difference]) -> Vec<String> {
    let mut groups: Vec<(&Difference, usize)> = Vec::new();
    for difference in found {
        match groups.iter_mut().find(|(first, _)| first.is_alike(difference)) {
            Some((_, count)) => *count += 1,
            None => groups.push((difference, 1)),
        }
    }
    groups.iter().map(|(first, count)| format!("{count} x {first}")).collect()
}

impl Difference {
    /// Whether both stacks did the same at the other, in the same state, for a segment of the same kind.
    fn is_alike(&self, other: &Difference) -> bool {
        let kind = |it: &Difference| it.segment().map(|segment| (segment.control, segment.payload_bytes > 0));
        self.state == other.state
            && self.kernel == other.kernel
            && self.ours == other.ours
            && kind(self) == kind(other)
            && self.segment().map(|segment| &segment.damage) == other.segment().map(|segment| &segment.damage)
    }
}
