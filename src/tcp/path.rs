//! The path: how large a packet may be on its way to the peer (RFC 1191, RFC 8201).
//!
//! What to make of claims about that (RFC 5927 §7), and of silence (RFC 4821 §7.7), is decided here.
//!
//! In: a claim that a segment was too large, or a time-out. Out: `Flow::mss` lowered, and what is in flight to be sent
//! again in smaller pieces. That says nothing of congestion: the window stays as it is.
//!
//! ```text
//!             a full segment leaves        it is acknowledged
//!  UNTRIED ------------------------> SENT --------------------> ARRIVED
//!     ^   a claim counts at once            a claim waits for a time-out: what it says was shown to be wrong
//!     |
//!     '------- SUSPECTED <---- three time-outs in a row and nothing heard: the network may lose what is large
//!  acknowledged
//! ```
//!
//! The segments of a connection only ever become smaller: a path that grows again, or a silence that was taken for a
//! black hole and was none (a peer that was unplugged for some seconds with more than a kilobyte under way), costs it
//! larger segments for the rest of its life. Others are opened with full segments when the destination cache has
//! forgotten. A connection that is mostly idle loses little by that, and no probe of a larger size can be lost.
//!
//! Invariant: a claim that cannot be true changes nothing, and one that may be true no more than the size of segments,
//! down to what every path takes.

use super::{Active, Effects, Flow, Offer, Repair, Rule, SeqNum};

/// What somebody on the path says of a segment of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The largest packet that can go on, in bytes; 0 where an old router does not say (RFC 1191 §5).
    pub mtu: u16,
    /// How large our packet was, in bytes, as it is quoted.
    pub packet_bytes: u16,
}

/// No segment of full size is known to have been sent.
pub(super) const UNTRIED: u8 = 0;
/// One was, and ends at `Active::path_seq`.
const SENT: u8 = 1;
/// One has arrived.
pub(super) const ARRIVED: u8 = 2;
/// A black hole was suspected and segments became smaller; nothing is acknowledged since.
const SUSPECTED: u8 = 3;

/// Time-outs in a row after which segments become smaller: as many as make the way to the peer doubtful (R1).
const BLACK_HOLE_TIMEOUTS: u8 = 3;
/// The largest payload of a segment that a black hole is taken to let pass (RFC 8899 §5.1.2 has 1,200 for packets).
const BLACK_HOLE_BYTES: u16 = 1_024;

/// An ICMP message claims that the segment at `seq`, which is in flight, was too large.
pub fn on_too_big(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    seq: SeqNum,
    claim: Claim,
    offer: Offer,
) -> Effects {
    if claim.mtu < offer.mtu_min {
        return Effects::only(Rule::PathMtuTooSmall);
    }
    let mss = payload_of(flow, claim.mtu, offer);
    let is_larger = mss < flow.mss && flow.snd_nxt.since(seq) > u32::from(mss) && claim.packet_bytes > claim.mtu;
    if !is_larger {
        return Effects::only(Rule::PathMtuNotSmaller);
    }
    if active.path == ARRIVED {
        active.doubted_mtu = claim.mtu;
        active.path_seq = seq;
        return Effects::only(Rule::PathMtuDoubted);
    }
    use_smaller(flow, active, repair, mss);
    Effects { path_mtu: Some(claim.mtu), ..Effects::only(Rule::PathMtuLowered) }
}

/// The retransmission timer has expired with something in flight. `None` where that says nothing of the path; the
/// effects of `BlackHoleSuspected` come on top of what a time-out does.
pub(super) fn on_time_out(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    offer: Offer,
) -> Option<Effects> {
    let doubted_mtu = std::mem::take(&mut active.doubted_mtu);
    if doubted_mtu != 0 {
        let mss = payload_of(flow, doubted_mtu, offer);
        use_smaller(flow, active, repair, mss.min(flow.mss));
        return Some(Effects { path_mtu: Some(doubted_mtu), ..Effects::only(Rule::PathMtuConfirmed) });
    }
    let least = payload_of(flow, offer.mtu_min, offer);
    let next = if flow.mss > BLACK_HOLE_BYTES { BLACK_HOLE_BYTES } else { flow.mss / 2 }.max(least);
    let is_large = next < flow.mss && active.in_flight(flow) > u32::from(next);
    if !is_large || active.retries + 1 < BLACK_HOLE_TIMEOUTS {
        return None;
    }
    flow.mss = next;
    active.path = SUSPECTED;
    Some(Effects::only(Rule::BlackHoleSuspected))
}

/// The payload of a segment that fills a packet of so many bytes.
fn payload_of(flow: &Flow, mtu: u16, offer: Offer) -> u16 {
    mtu.saturating_sub(offer.headers_bytes + flow.options_bytes())
}

/// Segments become smaller, and all that is in flight goes again: a router that tells of the first of many that were
/// too large need not tell of the others (RFC 1812 §4.3.2.8).
fn use_smaller(flow: &mut Flow, active: &mut Active, repair: Option<&mut Repair>, mss: u16) {
    flow.mss = mss;
    active.path = UNTRIED;
    active.doubted_mtu = 0;
    active.abandon_round_trip();
    active.disarm();
    active.resend_nxt = match repair {
        Some(repair) => {
            repair.lose_to_the_path();
            flow.snd_nxt
        }
        None => active.snd_una,
    };
}

impl Active {
    /// A segment leaves.
    pub(super) fn note_size(&mut self, flow: &Flow, payload_bytes: u32, end: SeqNum) {
        if self.path == UNTRIED && payload_bytes >= u32::from(flow.mss) {
            self.path = SENT;
            self.path_seq = end;
        }
    }

    /// Something new is acknowledged. Returns the path MTU if this has shown that a smaller one gets through.
    pub(super) fn note_progress(&mut self, flow: &Flow, offer: Offer) -> Option<u16> {
        if self.path == SENT && !self.snd_una.before(self.path_seq) {
            self.path = ARRIVED;
        }
        // What the claim was about has arrived.
        if self.doubted_mtu != 0 && self.snd_una.after(self.path_seq) {
            self.doubted_mtu = 0;
        }
        if self.path != SUSPECTED {
            return None;
        }
        self.path = UNTRIED;
        Some(flow.mss + flow.options_bytes() + offer.headers_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::State;

    const OFFER: Offer = Offer {
        mss: 1_460,
        path_mss: 1_460,
        mss_default: 536,
        headers_bytes: 40,
        mtu_min: 552,
        window_bytes: 65_535,
        delayed_ack_ms: 0,
        congestion: crate::tcp::CongestionControl::Cubic,
        ecn: crate::tcp::Ecn::Answers,
    };

    fn sending(bytes: u32) -> (Flow, Active) {
        let mut flow = Flow::free(0);
        flow.set_state(State::Established);
        flow.mss = 1_460;
        flow.snd_nxt = SeqNum(u32::MAX - 1_000);
        let mut active = Active::quiet(0, &flow);
        flow.snd_nxt = flow.snd_nxt.plus(bytes);
        active.resend_nxt = flow.snd_nxt;
        (flow, active)
    }

    #[test]
    fn a_claim_is_believed_only_where_it_may_be_true() {
        let outcome = |bytes, mtu, packet_bytes| {
            let (mut flow, mut active) = sending(bytes);
            let seq = active.snd_una;
            let effects = on_too_big(&mut flow, &mut active, None, seq, Claim { mtu, packet_bytes }, OFFER);
            (effects.rule, flow.mss)
        };
        assert_eq!(outcome(3_000, 1_300, 1_500), (Rule::PathMtuLowered, 1_260));
        assert_eq!(outcome(3_000, 552, 1_500), (Rule::PathMtuLowered, 512));
        assert_eq!(outcome(3_000, 551, 1_500), (Rule::PathMtuTooSmall, 1_460));
        assert_eq!(outcome(3_000, 0, 1_500), (Rule::PathMtuTooSmall, 1_460));
        assert_eq!(outcome(3_000, 1_500, 1_501), (Rule::PathMtuNotSmaller, 1_460), "as large as we send");
        assert_eq!(outcome(1_260, 1_300, 1_300), (Rule::PathMtuNotSmaller, 1_460), "no segment was larger");
        assert_eq!(outcome(3_000, 1_300, 1_300), (Rule::PathMtuNotSmaller, 1_460), "what it quotes would have fitted");
    }

    #[test]
    fn timestamps_take_room_of_the_packet() {
        let (mut flow, mut active) = sending(3_000);
        flow.begin_timestamps(1);
        let (seq, claim) = (active.snd_una, Claim { mtu: 1_300, packet_bytes: 1_500 });
        let _ = on_too_big(&mut flow, &mut active, None, seq, claim, OFFER);
        assert_eq!(flow.mss, 1_248);
    }

    #[test]
    fn a_black_hole_is_suspected_in_steps_down_to_what_every_path_takes() {
        let (mut flow, mut active) = sending(3_000);
        let mut sizes = Vec::new();
        for _ in 0..8 {
            let _ = on_time_out(&mut flow, &mut active, None, OFFER);
            sizes.push(flow.mss);
            active.back_off();
        }
        assert_eq!(sizes, [1_460, 1_460, 1_024, 512, 512, 512, 512, 512]);
        let (mut flow, mut active) = sending(1_024);
        active.retries = 9;
        assert_eq!(on_time_out(&mut flow, &mut active, None, OFFER), None, "what is in flight is not large");
    }
}
