//! Congestion notification: where its bits may stand (RFC 3168 §6.1).

use super::frame::{ACK, CWR, ECE, RST, SYN, Segment};

/// No ECN-capable transport.
const NOT_ECT: u8 = 0;
/// What the stack sets.
pub const ECT_0: u8 = 2;
/// Congestion experienced, which the network sets.
pub const CE: u8 = 3;

/// Whether a SYN asks for it.
pub fn is_asking(segment: &Segment<'_>) -> bool {
    segment.has(SYN | ECE | CWR) && !segment.has(ACK)
}

/// A segment comes out to a peer that has asked for it at some time, or never.
pub fn look(segment: &Segment<'_>, has_asked: bool) -> Result<(), &'static str> {
    let may_echo = has_asked && !segment.has(RST);
    if segment.has(ECE) && !(may_echo && segment.has(ACK)) {
        return Err("ECE to a peer that has not asked for ECN, or on a segment that grants nothing");
    }
    match segment.ecn {
        NOT_ECT if segment.has(CWR) => Err("CWR on what is no new payload, or was not agreed on"),
        NOT_ECT => Ok(()),
        ECT_0 if may_echo && !segment.has(SYN) && !segment.payload.is_empty() => Ok(()),
        _ => Err("ECT on what carries no payload, or was not agreed on"),
    }
}

/// A segment comes out of a connection that has sent everything up to `snd_nxt`.
pub fn look_again(segment: &Segment<'_>, snd_nxt: u32) -> Result<(), &'static str> {
    let is_again = (segment.seq.wrapping_sub(snd_nxt) as i32) < 0;
    if is_again && segment.ecn != NOT_ECT { Err("ECT on what is sent again") } else { Ok(()) }
}
