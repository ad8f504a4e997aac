//! Ranges: which bytes of a stream were seen, in whatever order and how often.

/// Half-open ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// Adds the bytes from `start` up to `end`.
    pub fn add(&mut self, start: u32, end: u32) {
        let (mut start, mut end) = (start, end);
        if start >= end {
            return;
        }
        self.0.retain(|&(other_start, other_end)| {
            let is_apart = other_end < start || end < other_start;
            if !is_apart {
                (start, end) = (start.min(other_start), end.max(other_end));
            }
            is_apart
        });
        self.0.push((start, end));
    }

    /// How many bytes they are.
    pub fn bytes(&self) -> u32 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_once_in_any_order() {
        let mut ranges = Ranges::default();
        for (start, end) in [(10, 20), (30, 40), (15, 18), (20, 25), (5, 5), (22, 30), (0, 3)] {
            ranges.add(start, end);
        }
        assert_eq!(ranges.bytes(), 33);
        assert_eq!(ranges.0.len(), 2);
        ranges.add(0, u32::MAX);
        assert_eq!(ranges, Ranges(vec![(0, u32::MAX)]));
    }
}
