//! Urgent pointer, payload and FIN of a segment: the last steps of its arrival (RFC 9293 §3.10.7.4).
//!
//! Payload is not taken here: the effects say which part of it is in order, the caller finds it a place and reports by
//! [`on_payload`] how much it took.

use super::receive::enter_time_wait;
use super::{Active, CloseReason, Control, Effects, Flow, Offer, Repair, Reply, Rule, Segment, State, Time};

/// What of a segment's payload lies in the window and in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InOrder {
    /// So many bytes of the payload came before.
    pub skip: u32,
    /// So many behind them are next.
    pub take: u32,
    /// Whether the peer's FIN follows.
    pub has_fin: bool,
}

/// What the caller has done with the payload that a step offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    /// How many bytes there were.
    pub offered: u32,
    /// How many of them, from the first on, have found a place.
    pub taken: u32,
    /// Whether the peer's FIN follows the last.
    pub has_fin: bool,
}

/// Sixth: URG. The pointer is to the byte after the last urgent one (MUST-62); the bytes themselves stay in the stream.
pub(super) fn check_urgent(flow: &Flow, active: &mut Active, segment: &Segment, effects: &mut Effects) {
    if !segment.control.has(Control::URG) || flow.has_peer_fin() {
        return;
    }
    let up = segment.seq.plus(u32::from(segment.urgent));
    if up.after(flow.rcv_nxt) && active.note_urgent(up) {
        effects.urgent_end = Some(up);
    }
}

/// Seventh and eighth: payload and FIN. Says what is in order; [`on_payload`] takes it.
pub(super) fn take_payload_and_fin(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    segment: &Segment,
    effects: &mut Effects,
) {
    if segment.length() == 0 {
        return;
    }
    if flow.has_peer_fin() {
        effects.rule = Rule::PayloadAfterFin;
        // In TIME-WAIT, unless this segment has led there, it may be the peer's FIN again; in the other states it is
        // nothing that the peer could send.
        if flow.is_in(State::TimeWait) && !effects.is_acknowledged {
            active.owe_ack();
        }
        return;
    }
    let is_new = segment.payload_bytes > 0 && segment.seq.plus(segment.payload_bytes).after(flow.rcv_nxt);
    if is_new && flow.is_in(State::FinWait2) && flow.is_orphaned() {
        // Not before our FIN is acknowledged: the peer shall have all that was queued first.
        effects.rule = Rule::DataAfterClose;
        effects.reply = Reply::Reset { seq: flow.snd_nxt };
        effects.closed = Some(CloseReason::DataAfterClose);
        return;
    }
    if segment.seq.after(flow.rcv_nxt) {
        effects.rule = Rule::PayloadOutOfOrder;
        active.note_peer_loss();
        effects.is_ack_due = true;
        if repair.is_some() {
            let ahead = segment.seq.since(flow.rcv_nxt);
            effects.payload_hold = segment.payload_bytes.min(flow.receive_window().saturating_sub(ahead));
            effects.has_fin = segment.control.has(Control::FIN) && effects.payload_hold == segment.payload_bytes;
        }
        return;
    }
    let InOrder { skip, take, has_fin } = in_order_part(flow, repair.as_deref(), segment);
    if let Some(repair) = repair {
        repair.note_data(segment.seq.plus(segment.payload_bytes));
        if skip > 0 {
            repair.note_duplicate(flow, segment.seq, segment.seq.plus(skip));
        }
        if !repair.held().is_empty() {
            // Behind a gap that is filled, in part or whole, the ACK does not wait (RFC 5681 §4.2).
            active.owe_ack();
        }
    }
    effects.payload_skip = skip;
    effects.payload_take = take;
    effects.has_fin = has_fin;
    if skip > 0 || take == 0 {
        active.owe_ack();
    }
}

/// Cuts off what was received before, what lies right of the window, and what is held already with all behind it: but
/// nothing is held behind a FIN.
pub fn in_order_part(flow: &Flow, repair: Option<&Repair>, segment: &Segment) -> InOrder {
    let skip = flow.rcv_nxt.since(segment.seq).min(segment.payload_bytes);
    let take = (segment.payload_bytes - skip).min(flow.receive_window());
    let is_whole = skip + take == segment.payload_bytes;
    if segment.control.has(Control::FIN) && is_whole {
        return InOrder { skip, take, has_fin: true };
    }
    let gap = repair.and_then(|repair| repair.held().first()).map_or(u32::MAX, |held| held.start.since(flow.rcv_nxt));
    InOrder { skip, take: take.min(gap), has_fin: false }
}

/// The caller has found a place for the first `taken` of the `offered` in-order payload bytes; with all of them taken,
/// the FIN behind them is taken too. Returns what decided.
pub fn on_payload(flow: &mut Flow, active: &mut Active, payload: Payload, offer: Offer, now: Time) -> Rule {
    let before = flow.rcv_nxt;
    flow.receive(payload.taken);
    active.pass_peer_loss(before, flow.rcv_nxt);
    if payload.taken < payload.offered {
        active.owe_ack();
        return Rule::PayloadNoRoom;
    }
    if !payload.has_fin {
        // At least every second full segment is acknowledged at once (SHLD-19). It is full with its options.
        let full = u32::from(offer.mss.saturating_sub(flow.options_bytes()));
        let is_second = flow.rcv_nxt.since(active.rcv_acked) >= 2 * full;
        let is_delayed = offer.delayed_ack_ms > 0 && !is_second && !active.is_peer_losing();
        if is_delayed {
            active.owe_delayed_ack(offer.delayed_ack_ms, now);
        } else {
            active.owe_ack();
        }
        return Rule::PayloadAccepted;
    }
    active.owe_ack();
    flow.receive_fin();
    match flow.state() {
        State::Established => flow.set_state(State::CloseWait),
        State::FinWait1 => flow.set_state(State::Closing),
        State::FinWait2 => enter_time_wait(flow, now),
        State::Free
        | State::SynSent
        | State::SynReceived
        | State::CloseWait
        | State::Closing
        | State::LastAck
        | State::TimeWait => {}
    }
    Rule::FinAccepted
}
