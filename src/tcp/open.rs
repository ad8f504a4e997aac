//! A segment arrives that belongs to no connection (RFC 9293 §3.10.7.1 and §3.10.7.2).
//!
//! In: the segment and whether its port is listened on. Out: whether it opens a connection, and what is answered.

use super::ecn::is_setup_syn;
use super::window::SHIFT_MAX;
use super::{Active, Control, Ecn, Effects, Flow, Offer, Reply, Rule, Segment, SeqNum, State, Time};

/// What becomes of a segment without a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmatched {
    /// It opens a connection: see [`on_syn`].
    Opens,
    /// It is answered or dropped.
    Ends(Effects),
}

/// A peer may not make us send smaller segments than this: each costs us as much as a large one.
const MSS_MIN: u16 = 64;

/// LISTEN.
pub fn on_listen(segment: &Segment) -> Unmatched {
    let control = segment.control;
    if control.has(Control::RST) {
        return Unmatched::Ends(Effects::only(Rule::ListenIgnoresReset));
    }
    if control.has(Control::ACK) {
        return Unmatched::Ends(Effects::reply(Rule::ListenRejectsAck, Reply::Reset { seq: segment.ack }));
    }
    if control.has(Control::SYN) && !control.has(Control::FIN) {
        return Unmatched::Opens;
    }
    Unmatched::Ends(Effects::only(Rule::ListenDropsOther))
}

/// CLOSED.
pub fn on_closed(segment: &Segment) -> Effects {
    if segment.control.has(Control::RST) {
        Effects::only(Rule::ClosedIgnoresReset)
    } else {
        Effects::reply(Rule::ClosedResets, reset_for(segment))
    }
}

/// The RST that answers a segment.
pub fn reset_for(segment: &Segment) -> Reply {
    if segment.control.has(Control::ACK) {
        Reply::Reset { seq: segment.ack }
    } else {
        Reply::ResetAck { ack: segment.seq.plus(segment.length()) }
    }
}

/// Takes over what the peer's SYN says, whoever opens. Data on it is not taken: the peer sends it again.
pub(super) fn take_syn(flow: &mut Flow, syn: &Segment, offer: Offer, now: Time) {
    match syn.timestamps {
        Some(timestamps) => flow.begin_timestamps(timestamps.value),
        None => flow.end_timestamps(),
    }
    match syn.window_shift {
        Some(shift) => flow.begin_window_scaling(shift.min(SHIFT_MAX), offer.shift()),
        None => flow.end_window_scaling(),
    }
    flow.set_takes_sack(syn.sack_permitted);
    // As much as both ends, the path and the options allow (MUST-16).
    flow.mss = syn.mss.unwrap_or(offer.mss_default).clamp(MSS_MIN, offer.path_mss.max(MSS_MIN)) - flow.options_bytes();
    flow.begin_receiving(syn.seq);
    flow.extend_receive_window(offer.window_of_syn().into());
    flow.set_send_window_of_syn(syn.window);
    flow.heard_s = now.seconds();
}

/// Makes the connection that a SYN opens, in SYN-RECEIVED. The caller fills in addresses, ports and next hop; the
/// SYN-ACK leaves with the next [`poll_segment`](super::poll_segment), but counts as sent at once: a segment that comes
/// in the same batch must not find SND.NXT at the ISS.
pub fn on_syn(slot: u32, flow: &mut Flow, segment: &Segment, iss: SeqNum, offer: Offer, now: Time) -> Active {
    flow.set_state(State::SynReceived);
    flow.snd_nxt = iss;
    take_syn(flow, segment, offer, now);
    if is_setup_syn(segment) && offer.ecn != Ecn::Off {
        flow.begin_ecn();
    }
    flow.opened_s = now.seconds();
    flow.allow_challenge(now);
    let active = Active::quiet(slot, flow);
    flow.snd_nxt = iss.plus(1);
    active
}
