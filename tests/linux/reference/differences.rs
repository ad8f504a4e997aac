//! Differences between Linux and holdline, each with the reason why ours is right.

use super::conversation::Difference;

pub fn unlisted(found: &[Difference]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}
