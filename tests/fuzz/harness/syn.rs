//! SYNs that peers have sent, which an answer may name.

/// Largest shift of a window (RFC 7323 §2.3).
pub const SHIFT_MAX: u8 = 14;

/// A SYN that went in.
#[derive(Clone, Copy, Debug)]
pub struct Syn {
    pub seq: u32,
    pub mss: u16,
    pub shift: Option<u8>,
    pub has_timestamps: bool,
    pub has_sack: bool,
    pub window: u16,
}

/// The SYN that an acknowledgment answers; of those with the same number, the most that any has said.
pub fn answered(syns: &[Syn], ack: u32) -> Option<Syn> {
    let same = syns.iter().filter(|syn| syn.seq.wrapping_add(1) == ack);
    same.copied().reduce(|one, other| Syn {
        mss: one.mss.max(other.mss),
        shift: one.shift.max(other.shift),
        has_timestamps: one.has_timestamps | other.has_timestamps,
        has_sack: one.has_sack | other.has_sack,
        window: one.window.max(other.window),
        ..one
    })
}
