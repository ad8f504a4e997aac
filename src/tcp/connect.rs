//! Connections that we open (RFC 9293 §3.10.1), and segments that arrive in SYN-SENT (§3.10.7.3).
//!
//! In: the flow, its active block, the segment. Out: effects. The SYN leaves with the next
//! [`poll_segment`](super::poll_segment).

use std::ops::ControlFlow::{self, Break, Continue};

use super::ecn::{is_setup_syn, is_setup_syn_ack};
use super::{Active, CloseReason, Control, Ecn, Effects, Flow, Offer, Reply, Rule, Segment, SeqNum, State, Time};

/// Makes a connection in SYN-SENT. The caller fills in addresses, ports and next hop.
pub fn on_connect(slot: u32, flow: &mut Flow, iss: SeqNum, offer: Offer, now: Time) -> Active {
    flow.set_state(State::SynSent);
    flow.set_active_open(true);
    flow.snd_nxt = iss;
    flow.mss = offer.mss_default;
    // What both would like is offered; what the peer's SYN does not have is taken back.
    flow.begin_timestamps(0);
    flow.begin_window_scaling(0, offer.shift());
    if offer.ecn == Ecn::Asks {
        flow.begin_ecn();
    }
    flow.heard_s = now.seconds();
    flow.opened_s = now.seconds();
    flow.allow_challenge(now);
    Active::quiet(slot, flow)
}

/// Steps a connection in SYN-SENT over one segment.
pub fn on_syn_sent(flow: &mut Flow, active: &mut Active, segment: &Segment, offer: Offer, now: Time) -> Effects {
    match steps(flow, active, segment, offer, now) {
        Break(effects) | Continue(effects) => effects,
    }
}

fn steps(
    flow: &mut Flow,
    active: &mut Active,
    segment: &Segment,
    offer: Offer,
    now: Time,
) -> ControlFlow<Effects, Effects> {
    check_ack(flow, segment)?;
    check_reset(segment)?;
    if !segment.control.has(Control::SYN) {
        return Break(Effects::only(Rule::SynSentDropsOther));
    }
    Continue(take_syn(flow, active, segment, offer, now))
}

/// First: the acknowledgment. Only our SYN can have been acknowledged.
fn check_ack(flow: &Flow, segment: &Segment) -> ControlFlow<Effects> {
    if !segment.control.has(Control::ACK) || segment.ack == flow.snd_nxt {
        return Continue(());
    }
    if segment.control.has(Control::RST) {
        return Break(Effects::only(Rule::SynSentIgnoresReset));
    }
    Break(Effects::reply(Rule::SynSentAckRejected, Reply::Reset { seq: segment.ack }))
}

/// Second: RST. One without an acknowledgment may be anybody's (RFC 5961 §3.2).
fn check_reset(segment: &Segment) -> ControlFlow<Effects> {
    if !segment.control.has(Control::RST) {
        return Continue(());
    }
    if segment.control.has(Control::ACK) {
        return Break(Effects::closed(Rule::SynSentRefused, CloseReason::Refused));
    }
    Break(Effects::only(Rule::SynSentIgnoresReset))
}

/// Fourth (the third, security, is not implemented): the peer's SYN.
fn take_syn(flow: &mut Flow, active: &mut Active, segment: &Segment, offer: Offer, now: Time) -> Effects {
    super::open::take_syn(flow, segment, offer, now);
    if !is_setup_syn(segment) && !is_setup_syn_ack(segment) {
        flow.end_ecn();
    }
    active.rcv_acked = segment.seq;
    if segment.control.has(Control::ACK) {
        super::receive::establish(flow, active, segment, now);
        active.owe_ack();
        return Effects { is_opened: true, ..Effects::only(Rule::SynSentEstablished) };
    }
    flow.set_state(State::SynReceived);
    active.resend_nxt = active.snd_una;
    active.abandon_round_trip();
    Effects::only(Rule::SynSentSimultaneous)
}

/// An ICMP error says that the peer cannot be reached, and quotes our SYN (RFC 9293 §3.9.2.2, RFC 5927 §5.2).
pub fn on_unreachable() -> Effects {
    Effects::closed(Rule::IcmpAbortsOpen, CloseReason::Unreachable)
}
