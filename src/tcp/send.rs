//! What may be sent, and when.
//!
//! In: the flow, its active block, the time. Out: the next segment, until there is none. It is the one place that
//! decides whether something may be sent, and it leaves the timer armed whenever something must be waited for.
//!
//! ```text
//!  snd_una                    resend_nxt or snd_nxt          limit = snd_una + min(cwnd, window)
//! ----|-----------------------------|----------- take -----------|------------- snd_end (FIN)
//! ```

use super::ecn::ack_control;
use super::recovery::{PROBE_DUE, PROBED_NEW, TIMER_PROBE, TIMER_REORDERING, TIMER_RETRANSMISSION};
use super::window::offer_window;
use super::{Active, Control, Flow, Offer, Outgoing, Repair, SackBlocks, SeqNum, State, Time, predict};

/// The next segment that should leave now, if any. Call until `None`.
#[inline]
pub fn poll_segment(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    offer: Offer,
    now: Time,
) -> Option<Outgoing> {
    // Most calls find nothing, and what they would look at is at hand.
    if repair.is_none() {
        if active.has_sent_all(flow) {
            return None;
        }
        if let Some(outgoing) = predict::send_expected(flow, active, offer, now) {
            return Some(outgoing);
        }
    }
    poll_state(flow, active, repair, offer, now)
}

pub(super) fn poll_state(
    flow: &mut Flow,
    active: &mut Active,
    mut repair: Option<&mut Repair>,
    offer: Offer,
    now: Time,
) -> Option<Outgoing> {
    match flow.state() {
        State::Free => None,
        State::SynSent => poll_syn(flow, active, offer, now),
        State::SynReceived => poll_syn_ack(flow, active, offer, now).or_else(|| poll_ack(flow, active, None, offer)),
        State::FinWait2 | State::TimeWait => poll_ack(flow, active, repair, offer),
        State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck => {
            poll_data(flow, active, repair.as_deref_mut(), offer, now).or_else(|| poll_ack(flow, active, repair, offer))
        }
    }
}

/// The ACK that answers a segment at once, whatever else is to be sent.
pub fn immediate_ack(flow: &mut Flow, active: &mut Active, repair: Option<&mut Repair>, offer: Offer) -> Outgoing {
    active.acknowledge(flow.rcv_nxt);
    offer_window(flow, active, offer);
    let sack = repair.map_or_else(SackBlocks::default, |repair| repair.sack_blocks(flow));
    Outgoing { sack, ..bare_ack(flow, flow.snd_nxt) }
}

/// A segment at `seq` that says how far we have received, and what we would take, and nothing else.
pub(super) fn bare_ack(flow: &Flow, seq: SeqNum) -> Outgoing {
    Outgoing::bare(seq, flow.rcv_nxt, ack_control(flow), flow.receive_window_field())
}

fn poll_syn(flow: &mut Flow, active: &mut Active, offer: Offer, now: Time) -> Option<Outgoing> {
    let iss = begin_handshake(flow, active, now)?;
    let syn_ack = syn_ack(iss, SeqNum(0), true, true, offer);
    if active.retries > 0 {
        // Something on the way may drop SYNs that ask for ECN (RFC 3168 §6.1.1.1).
        flow.end_ecn();
    }
    let asked = Control::ECE.with(Control::CWR).when(flow.has_ecn());
    Some(Outgoing { control: Control::SYN.with(asked), ..syn_ack })
}

/// SYN or SYN-ACK is to be sent, for the first time or again. Returns its sequence number.
fn begin_handshake(flow: &mut Flow, active: &mut Active, now: Time) -> Option<SeqNum> {
    let iss = active.snd_una;
    if active.resend_nxt != iss {
        return None;
    }
    flow.snd_nxt = iss.plus(1);
    active.resend_nxt = flow.snd_nxt;
    if active.retries == 0 {
        active.time_round_trip(flow.snd_nxt, now);
    }
    if active.deadline_ms().is_none() {
        active.arm(now);
    }
    Some(iss)
}

fn poll_syn_ack(flow: &mut Flow, active: &mut Active, offer: Offer, now: Time) -> Option<Outgoing> {
    let iss = begin_handshake(flow, active, now)?;
    let syn_ack = syn_ack(iss, flow.irs, flow.has_window_scaling(), flow.takes_sack(), offer);
    Some(Outgoing { control: syn_ack.control.with(Control::ECE.when(flow.has_ecn())), ..syn_ack })
}

/// The SYN-ACK that answers a SYN.
pub fn syn_ack(iss: SeqNum, irs: SeqNum, has_scaling: bool, has_sack: bool, offer: Offer) -> Outgoing {
    Outgoing {
        mss: Some(offer.mss),
        window_shift: has_scaling.then_some(offer.shift()),
        sack_permitted: has_sack,
        ..Outgoing::bare(iss, irs.plus(1), Control::SYN.with(Control::ACK), offer.window_of_syn())
    }
}

fn poll_ack(flow: &mut Flow, active: &mut Active, repair: Option<&mut Repair>, offer: Offer) -> Option<Outgoing> {
    active.is_ack_owed().then(|| immediate_ack(flow, active, repair, offer))
}

/// Where the next segment begins, and how much there is room for.
struct Next {
    seq: SeqNum,
    room: u32,
    is_again: bool,
}

/// Without a repair block: from where a time-out has left off, or what is new.
fn next_without_repair(flow: &Flow, active: &Active) -> Next {
    let seq = active.resend_nxt.earlier_of(flow.snd_nxt);
    let limit = active.snd_una.plus(active.cwnd.min(flow.send_window()));
    // The oldest bytes may go again whatever became of the window since: they were inside it when they were first sent.
    let is_again = seq == active.snd_una && seq.before(flow.snd_nxt);
    let room = if limit.after(seq) { limit.since(seq) } else { u32::from(is_again) * flow.snd_nxt.since(seq) };
    Next { seq, room, is_again }
}

/// With one: what is lost first (RFC 6675 §4, NextSeg), then what is new.
fn next_with_repair(flow: &Flow, active: &Active, repair: &Repair) -> Next {
    let pipe = repair.pipe(active.snd_una);
    let mss = u32::from(flow.mss);
    let room = active.cwnd.saturating_sub(pipe);
    if let Some((from, to)) = repair.first_lost(active.snd_una) {
        let lost = to.since(from);
        // In whole segments, and one at least where nothing is in flight that could make room.
        let room = if pipe == 0 { room.max(mss) } else { room };
        let room = if room < mss.min(lost) { 0 } else { room.min(lost) };
        // Within the window (SHLD-16), but for the oldest bytes, which were inside it when they were first sent.
        let edge = active.snd_una.plus(flow.send_window());
        let inside = if edge.after(from) { edge.since(from) } else { u32::from(from == active.snd_una) * lost };
        return Next { seq: from, room: room.min(inside), is_again: true };
    }
    let room = if repair.probe == PROBE_DUE { room.max(mss) } else { room };
    let window = flow.send_window().saturating_sub(active.in_flight(flow));
    Next { seq: flow.snd_nxt, room: room.min(window), is_again: false }
}

fn poll_data(
    flow: &mut Flow,
    active: &mut Active,
    mut repair: Option<&mut Repair>,
    offer: Offer,
    now: Time,
) -> Option<Outgoing> {
    let sendable_end = active.sendable_end();
    let is_fin_due = (flow.is_close_queued() || flow.has_our_fin()) && sendable_end == active.snd_end;
    let Next { seq, room, is_again } = match repair.as_deref() {
        Some(repair) => next_with_repair(flow, active, repair),
        None => next_without_repair(flow, active),
    };
    if !seq.before(sendable_end.plus(u32::from(is_fin_due))) {
        return None;
    }
    let waiting = if seq.before(sendable_end) { sendable_end.since(seq) } else { 0 };
    let sack_bytes = repair.as_deref().map_or(0, |repair| repair.sack_bytes(flow));
    let take = waiting.min(u32::from(flow.mss) - sack_bytes).min(room);
    let is_last = take == waiting;
    let has_fin = is_fin_due && is_last && (room > take || active.in_flight(flow) == 0);
    let is_worth_it = has_fin || is_again && take > 0 || is_worth_sending(flow, active, waiting, take);
    if !is_worth_it {
        if active.deadline_ms().is_none() {
            arm_retransmission(active, repair, now);
        }
        return None;
    }
    let sent_end = seq.plus(take + u32::from(has_fin));
    let is_ecn_capable = flow.has_ecn() && seq == flow.snd_nxt && take > 0;
    if sent_end.after(flow.snd_nxt) {
        if seq == flow.snd_nxt {
            active.time_round_trip(sent_end, now);
        }
        flow.snd_nxt = sent_end;
    }
    active.resend_nxt = if repair.is_some() { flow.snd_nxt } else { sent_end };
    active.note_size(flow, take + sack_bytes, sent_end);
    if has_fin {
        on_fin_sent(flow);
    }
    match repair.as_deref_mut() {
        Some(repair) => note_sent(flow, active, repair, (seq, sent_end), now),
        None if active.deadline_ms().is_none() => active.arm(now),
        None => {}
    }
    active.acknowledge(flow.rcv_nxt);
    offer_window(flow, active, offer);
    let bare = bare_ack(flow, seq);
    let urgent = active.urgent_from(seq);
    let control = bare
        .control
        .with(Control::PSH.when(take > 0 && is_last))
        .with(Control::FIN.when(has_fin))
        .with(Control::CWR.when(is_ecn_capable && active.take_owed_cwr()))
        .with(Control::URG.when(urgent.is_some()));
    Some(Outgoing {
        control,
        payload_bytes: take,
        is_ecn_capable,
        urgent: urgent.unwrap_or(0),
        sack: repair.map_or_else(SackBlocks::default, |repair| repair.sack_blocks(flow)),
        ..bare
    })
}

/// The range leaves, and the scoreboard and the timer follow.
fn note_sent(flow: &Flow, active: &mut Active, repair: &mut Repair, (seq, end): (SeqNum, SeqNum), now: Time) {
    let now_us = now.wrapping_us();
    let is_again = repair.first_lost(active.snd_una).is_some_and(|(from, _)| from == seq);
    repair.prr_out = repair.prr_out.saturating_add(end.since(seq));
    if is_again {
        repair.on_resent(active.snd_una, seq, end.since(seq), now_us);
        repair.note_resent(now);
        active.abandon_round_trip();
    } else {
        repair.on_sent(end, now_us, active.srtt_us / 8);
        if repair.probe == PROBE_DUE {
            repair.probe = PROBED_NEW;
        }
    }
    if active.deadline_ms().is_none() || repair.timer == TIMER_PROBE {
        rearm(flow, active, repair, now);
    }
}

fn arm_retransmission(active: &mut Active, repair: Option<&mut Repair>, now: Time) {
    if let Some(repair) = repair {
        repair.timer = TIMER_RETRANSMISSION;
    }
    active.arm(now);
}

/// Starts the timer that comes next anew.
pub(super) fn rearm(flow: &Flow, active: &mut Active, repair: &mut Repair, now: Time) {
    let (timer, wait_ms) = repair.next_timer(flow, active);
    repair.timer = timer;
    active.arm_for(wait_ms, now);
}

/// The same after an acknowledgment of nothing new, which puts off no timer that runs (RFC 6298 §5.3): a peer that
/// speaks all the time would put it off for ever.
pub(super) fn rearm_as_needed(flow: &Flow, active: &mut Active, repair: &mut Repair, now: Time) {
    let (timer, _) = repair.next_timer(flow, active);
    // How long late segments may still be late is reckoned from when they were sent.
    if timer != repair.timer || timer == TIMER_REORDERING || active.deadline_ms().is_none() {
        rearm(flow, active, repair, now);
    }
}

/// Sender's silly window avoidance (RFC 9293 §3.8.6.2.1): a full segment, all that waits, or half of the largest
/// window. Otherwise it waits for an acknowledgment or, where nothing is in flight, for the time-out.
fn is_worth_sending(flow: &Flow, active: &Active, waiting: u32, take: u32) -> bool {
    if take == 0 {
        return false;
    }
    let is_overdue = active.in_flight(flow) == 0 && active.retries > 0;
    let is_full = take >= u32::from(flow.mss);
    let is_large = is_full || take >= flow.send_window_max() / 2;
    if flow.has_nagle() && !is_full && active.in_flight(flow) > 0 {
        // With Nagle's algorithm less than a full segment waits for what is in flight (RFC 9293 §3.7.4, SHLD-7).
        return false;
    }
    take == waiting || is_large || is_overdue
}

fn on_fin_sent(flow: &mut Flow) {
    flow.set_close_queued(false);
    if flow.is_open() {
        flow.set_state(if flow.has_peer_fin() { State::LastAck } else { State::FinWait1 });
    }
}
