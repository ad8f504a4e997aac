//! SACK blocks that come out, against what went in.
//!
//! Held: they name what the peer has really sent; what came twice in the first, then what lies beyond a gap, each range
//! once, and no more than there is room for (RFC 2018 §3, §4, RFC 2883 §4).

use super::frame::{Options, Segment};
use super::wire::is_after;

/// Looks at the blocks of a segment; `sent` is all payload that went in.
pub fn look(segment: &Segment<'_>, is_agreed: bool, sent: &[(u32, u32)]) -> Result<(), &'static str> {
    let options = Options::read(segment.options);
    if options.sack_count == 0 {
        return Ok(());
    }
    if !is_agreed {
        return Err("SACK blocks that nobody has agreed on");
    }
    if options.sack_count > if options.timestamps.is_some() { 3 } else { 4 } {
        return Err("more SACK blocks than there is room for");
    }
    let blocks = options.sack();
    let first = blocks[0];
    let is_around = |&(start, end): &(u32, u32)| !is_after(start, first.0) && !is_after(first.1, end);
    let has_duplicate = !is_after(first.1, segment.ack) || blocks[1..].iter().any(is_around);
    for (at, &(start, end)) in blocks.iter().enumerate() {
        if !is_after(end, start) || !is_sent(start, end, sent) {
            return Err("a SACK block of something that was never sent");
        }
        if at == 0 && has_duplicate {
            continue;
        }
        if !is_after(start, segment.ack) {
            return Err("a SACK block of what is acknowledged");
        }
        let others = &blocks[usize::from(has_duplicate)..at];
        if others.iter().any(|&(from, to)| !is_after(start, to) && !is_after(from, end)) {
            return Err("two SACK blocks of the same range");
        }
    }
    Ok(())
}

/// Whether all of `start..end` has gone in, piece by piece.
fn is_sent(start: u32, end: u32, sent: &[(u32, u32)]) -> bool {
    let mut at = start;
    while is_after(end, at) {
        let reaches = sent.iter().filter(|&&(from, to)| !is_after(from, at) && is_after(to, at)).map(|&(_, to)| to);
        let Some(next) = reaches.max_by_key(|to| to.wrapping_sub(at)) else { return false };
        at = next;
    }
    true
}
