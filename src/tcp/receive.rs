//! A segment arrives on a connection (RFC 9293 §3.10.7.4).
//!
//! In: the flow, its active block, the segment. Out: effects. The steps stand in the RFC's order, one function each; a
//! step either ends the matter (`Break`) or passes on. Payload is not taken here: the effects say which part of it is
//! in order, the caller finds it a place and reports by [`on_payload`] how much it took.
//!
//! Invariant: nothing a peer can send makes a step panic; a strange segment is ordinary input.

use std::ops::ControlFlow::{self, Break, Continue};

use super::congestion::{open_without_repair, reduce_without_repair};
use super::ecn::{self, Signals};
use super::payload::{check_urgent, take_payload_and_fin};
use super::recovery::Acknowledged;
use super::send;
use super::timestamps::{check_timestamps, take_timestamp};
use super::{Active, CloseReason, Control, Effects, Flow, Offer, Repair, Reply, Rule, Segment, State, Time};

/// Steps the connection over one segment. Most are what `take_expected_ack` takes, and need not come here.
pub fn on_segment(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    segment: &Segment,
    offer: Offer,
    now: Time,
) -> Effects {
    match steps(flow, active, repair, segment, offer, now) {
        Break(effects) | Continue(effects) => effects,
    }
}

fn steps(
    flow: &mut Flow,
    active: &mut Active,
    mut repair: Option<&mut Repair>,
    segment: &Segment,
    offer: Offer,
    now: Time,
) -> ControlFlow<Effects, Effects> {
    check_repeated_syn(flow, active, segment, now)?;
    check_timestamps(flow, segment, now)?;
    check_sequence(flow, active, repair.as_deref_mut(), segment, now)?;
    take_timestamp(flow, active, segment);
    check_reset(flow, segment, now)?;
    check_syn(flow, segment, now)?;
    let mut effects = check_ack(flow, active, repair.as_deref_mut(), segment, offer, now)?;
    if effects.closed.is_none() {
        check_urgent(flow, active, segment, &mut effects);
        effects.signals.add(ecn::take_marks(flow, active, segment));
        take_payload_and_fin(flow, active, repair, segment, &mut effects);
    }
    Continue(effects)
}

/// Before the first check: the SYN that we answered comes again, so our answer was lost. It lies left of the window,
/// where the RFC would have an ACK sent; the SYN-ACK is one. Where both ends have opened at the same time it may
/// acknowledge our SYN, and so complete the handshake (RFC 9293 §3.5, figure 8).
fn check_repeated_syn(flow: &mut Flow, active: &mut Active, segment: &Segment, now: Time) -> ControlFlow<Effects> {
    let is_same_syn =
        segment.control.has(Control::SYN) && !segment.control.has(Control::RST) && segment.seq == flow.irs;
    if !flow.is_in(State::SynReceived) || !is_same_syn {
        return Continue(());
    }
    if segment.control.has(Control::ACK) && flow.is_active_open() && segment.ack == flow.snd_nxt {
        if !ecn::is_setup_syn_ack(segment) {
            flow.end_ecn();
        }
        flow.set_send_window_of_syn(segment.window);
        establish(flow, active, segment, now);
        active.owe_ack();
        return Break(Effects { is_opened: true, ..Effects::only(Rule::HandshakeCompleted) });
    }
    if !segment.control.has(Control::ACK) {
        if !ecn::is_setup_syn(segment) {
            // The peer asks no longer: ECN did not get through (RFC 3168 §6.1.1).
            flow.end_ecn();
        }
        active.resend_nxt = active.snd_una;
        active.abandon_round_trip();
        active.retries = active.retries.max(1);
        return Break(Effects::only(Rule::SynRepeated));
    }
    Continue(())
}

/// First: the sequence number.
fn check_sequence(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    segment: &Segment,
    now: Time,
) -> ControlFlow<Effects> {
    let window = flow.receive_window();
    let length = segment.length();
    let last = segment.seq.plus(length.saturating_sub(1));
    // A peer that has filled the window sends its ACKs from the right edge, where the RFC's test has them dropped; as
    // Linux does, they are taken, or a lost segment of the peer's would stop our own direction too.
    let is_edge_ack = length == 0 && !segment.control.has(Control::RST) && segment.seq == flow.rcv_nxt.plus(window);
    let is_acceptable = if window == 0 {
        // With a closed window valid ACKs, URGs and RSTs are still taken (MUST-66); payload is not.
        segment.seq == flow.rcv_nxt
    } else if is_edge_ack {
        true
    } else {
        segment.seq.within(flow.rcv_nxt, window) || (length > 0 && last.within(flow.rcv_nxt, window))
    };
    if is_acceptable {
        note_heard(flow, now);
        return Continue(());
    }
    if segment.control.has(Control::RST) {
        let is_ignored = flow.is_in(State::TimeWait);
        return Break(Effects::only(if is_ignored { Rule::TimeWaitIgnoresReset } else { Rule::ResetOutsideWindow }));
    }
    let is_fin_again =
        flow.is_in(State::TimeWait) && segment.control.has(Control::FIN) && segment.seq.plus(length) == flow.rcv_nxt;
    if is_fin_again {
        flow.heard_s = now.seconds();
        active.owe_ack();
        return Break(Effects::only(Rule::TimeWaitRestarted));
    }
    // A probe of the peer's for keepalive (RFC 9293 §3.8.4) comes from where nobody else speaks: it was heard.
    let is_probe = length == 0 && segment.seq.plus(1) == flow.rcv_nxt;
    let is_first_heard = is_probe && note_heard(flow, now);
    // Two ends that find each other unacceptable would answer pure ACKs for ever.
    let has_something = segment.payload_bytes > 0 || segment.control.has(Control::FIN);
    if !has_something && !is_first_heard && !flow.may_challenge(now) {
        return Break(Effects::only(Rule::ChallengeThrottled));
    }
    let end = segment.seq.plus(segment.payload_bytes);
    if let Some(repair) = repair
        && segment.payload_bytes > 0
        && !segment.control.has(Control::SYN)
        && end.at_or_before(flow.rcv_nxt)
    {
        repair.note_duplicate(flow, segment.seq, end);
    }
    Break(Effects::reply(Rule::SequenceUnacceptable, Reply::Ack))
}

/// The peer was heard. Returns whether it was not in this second before; never where that time means something else.
fn note_heard(flow: &mut Flow, now: Time) -> bool {
    flow.forget_probes();
    if flow.is_in(State::TimeWait) || (flow.is_in(State::FinWait2) && flow.is_orphaned()) {
        return false;
    }
    std::mem::replace(&mut flow.heard_s, now.seconds()) != now.seconds()
}

/// Second: RST (RFC 5961 §3.2).
fn check_reset(flow: &mut Flow, segment: &Segment, now: Time) -> ControlFlow<Effects> {
    if !segment.control.has(Control::RST) {
        return Continue(());
    }
    if flow.is_in(State::TimeWait) {
        return Break(Effects::only(Rule::TimeWaitIgnoresReset));
    }
    if segment.seq != flow.rcv_nxt {
        return Break(challenge(flow, Rule::ResetChallenged, now));
    }
    let is_half_open = flow.is_in(State::SynReceived);
    let reason = match (is_half_open, flow.is_active_open()) {
        (true, true) => CloseReason::Refused,
        (true, false) => CloseReason::HandshakeFailed,
        (false, _) => CloseReason::PeerReset,
    };
    Break(Effects::closed(Rule::ResetAccepted, reason))
}

/// Fourth (the third, security, is not implemented): SYN (RFC 5961 §4.2).
fn check_syn(flow: &mut Flow, segment: &Segment, now: Time) -> ControlFlow<Effects> {
    if segment.control.has(Control::SYN) {
        return Break(challenge(flow, Rule::SynChallenged, now));
    }
    Continue(())
}

/// Fifth: the acknowledgment.
fn check_ack(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    segment: &Segment,
    offer: Offer,
    now: Time,
) -> ControlFlow<Effects, Effects> {
    if !segment.control.has(Control::ACK) {
        return Break(Effects::only(Rule::AckMissing));
    }
    if flow.is_in(State::SynReceived) {
        return complete_handshake(flow, active, segment, now);
    }
    if segment.ack.after(flow.snd_nxt) {
        return Break(challenge(flow, Rule::AckOfUnsent, now));
    }
    if segment.ack.before(active.snd_una.minus(flow.send_window_max())) {
        return Break(challenge(flow, Rule::AckTooOld, now));
    }
    let is_new = segment.ack.after(active.snd_una);
    let acknowledged = Acknowledged {
        snd_una: active.snd_una,
        is_duplicate: segment.ack == active.snd_una && segment.length() == 0 && segment.window == flow.snd_wnd,
        is_echo: flow.has_ecn() && segment.control.has(Control::ECE) && !segment.ack.before(active.snd_una),
        flight: repair.as_deref().map_or(active.in_flight(flow), |repair| repair.pipe(active.snd_una)),
        round_trip_us: None,
    };
    active.pass_reduction(segment.ack);
    let was_reduced = active.is_reduced();
    let is_current = segment.ack == active.snd_una && !segment.seq.before(flow.rcv_nxt);
    if is_new || is_current {
        update_window(flow, active, segment);
    }
    if !is_new {
        if let Some(repair) = repair.filter(|repair| repair.is_flying()) {
            repair.on_ack(flow, active, segment, acknowledged, offer.congestion, now);
            send::rearm_as_needed(flow, active, repair, now);
        }
        let signals = echoed(active, acknowledged.is_echo && !was_reduced);
        return Continue(Effects { signals, ..Effects::only(Rule::AckRepeats) });
    }
    let mut effects = Effects { is_acknowledged: true, ..Effects::only(Rule::AckAdvances) };
    advance(flow, active, repair, segment, acknowledged, offer, now);
    effects.path_mtu = active.note_progress(flow, offer);
    effects.signals = echoed(active, acknowledged.is_echo && !was_reduced);
    if flow.snd_nxt == active.snd_una && flow.has_our_fin() {
        effects.closed = on_fin_acknowledged(flow, active, now);
    }
    Continue(effects)
}

/// Whether an echo that could be news has reduced the window.
fn echoed(active: &Active, could_be_news: bool) -> Signals {
    if could_be_news && active.is_reduced() { Signals::ECHOED } else { Signals::default() }
}

/// SYN-RECEIVED: only the acknowledgment of exactly our SYN completes the handshake.
fn complete_handshake(
    flow: &mut Flow,
    active: &mut Active,
    segment: &Segment,
    now: Time,
) -> ControlFlow<Effects, Effects> {
    if segment.ack != flow.snd_nxt {
        return Break(Effects::reply(Rule::HandshakeAckRejected, Reply::Reset { seq: segment.ack }));
    }
    flow.snd_wnd_max = 0;
    flow.set_send_window(segment.window);
    establish(flow, active, segment, now);
    Continue(Effects { is_opened: true, ..Effects::only(Rule::HandshakeCompleted) })
}

/// Our SYN is acknowledged: ESTABLISHED.
pub(super) fn establish(flow: &mut Flow, active: &mut Active, segment: &Segment, now: Time) {
    let was_lost = active.retries > 0;
    flow.set_state(State::Established);
    let _ = move_una(flow, active, segment, now);
    active.disarm();
    if was_lost {
        active.lose_syn_ack(flow.mss);
    }
    active.snd_end = active.snd_una;
    active.send_head_seq = active.snd_una;
}

/// SND.UNA moves to the segment's acknowledgment. Returns a round trip that it ends, in microseconds.
fn move_una(flow: &Flow, active: &mut Active, segment: &Segment, now: Time) -> Option<u32> {
    let echo = segment.timestamps.filter(|_| flow.has_timestamps()).map(|timestamps| timestamps.echo);
    let round_trip_us = active.end_round_trip(segment.ack, echo, now);
    active.snd_una = segment.ack;
    active.resend_nxt = active.resend_nxt.later_of(active.snd_una);
    active.progressed();
    round_trip_us
}

/// Something new is acknowledged: SND.UNA, the congestion window and the timer move.
fn advance(
    flow: &Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    segment: &Segment,
    mut acknowledged: Acknowledged,
    offer: Offer,
    now: Time,
) {
    acknowledged.round_trip_us = move_una(flow, active, segment, now);
    match repair {
        Some(repair) => {
            repair.on_ack(flow, active, segment, acknowledged, offer.congestion, now);
            send::rearm(flow, active, repair, now);
        }
        None => {
            if acknowledged.is_echo && !active.is_reduced() {
                reduce_without_repair(flow, active, offer.congestion);
            } else if acknowledged.flight.saturating_mul(2) >= active.cwnd && !acknowledged.is_echo {
                open_without_repair(flow, active, segment.ack.since(acknowledged.snd_una));
            }
            active.arm(now);
        }
    }
    if active.snd_una == flow.snd_nxt {
        active.disarm();
    }
}

/// The window field of a segment that is not older than what we know. The RFC's SND.WL1 and SND.WL2 are not kept: the
/// caller has ruled out older acknowledgments, and older sequence numbers with the same one.
fn update_window(flow: &mut Flow, active: &mut Active, segment: &Segment) {
    let was_closed = flow.send_window() == 0;
    flow.set_send_window(segment.window);
    if was_closed && flow.send_window() > 0 && active.in_flight(flow) == 0 {
        // The probe timer has done its work; what is sent next starts a timer of its own.
        active.disarm();
        active.progressed();
    } else if flow.send_window() == 0 && active.retries > 0 {
        // A probe was answered, be it what lies beyond a window that was taken back (SHLD-17): the peer lives, and may
        // keep its window closed for ever (MUST-37), but for a connection that nobody has any more.
        if !flow.is_orphaned() {
            active.answered();
        }
    }
}

fn on_fin_acknowledged(flow: &mut Flow, active: &Active, now: Time) -> Option<CloseReason> {
    match flow.state() {
        State::FinWait1 => {
            flow.set_state(State::FinWait2);
            flow.heard_s = now.seconds();
        }
        State::Closing => enter_time_wait(flow, now),
        // Where it lasts until the application has read what it still has to.
        State::LastAck if active.has_unread(flow) => enter_time_wait(flow, now),
        State::LastAck => return Some(CloseReason::BothClosed),
        State::Free
        | State::SynSent
        | State::SynReceived
        | State::Established
        | State::FinWait2
        | State::CloseWait
        | State::TimeWait => {}
    }
    None
}

pub(super) fn enter_time_wait(flow: &mut Flow, now: Time) {
    flow.set_state(State::TimeWait);
    flow.heard_s = now.seconds();
}

/// A challenge ACK, at most one a second.
fn challenge(flow: &mut Flow, rule: Rule, now: Time) -> Effects {
    if flow.may_challenge(now) { Effects::reply(rule, Reply::Ack) } else { Effects::only(Rule::ChallengeThrottled) }
}
