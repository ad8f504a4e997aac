//! What may be sent, and when.
//!
//! In: the flow, its active block, the time. Out: the next segment, until there is none. It is the one place that
//! decides whether something may be sent, and it leaves the timer armed whenever something must be waited for.
//!
//! ```text
//!  snd_una                    resend_nxt or snd_nxt          limit = snd_una + min(cwnd, window)
//! ----|-----------------------------|----------- take -----------|------------- snd_end (FIN)
//! ```

use super::open::Offer;
use super::recovery::{TIMER_PROBE, TIMER_REORDERING, TIMER_RETRANSMISSION};
use super::window::offer_window;
use super::{
    Active, CloseReason, Control, Effects, Flow, Keepalive, Outgoing, Repair, Reply, Rule, SackBlocks, Segment, SeqNum,
    SoftError, State, Time,
};

/// SYNs and SYN-ACKs that are sent again before the connection is given up (183 s with doubling, MUST-23).
const SYN_RETRIES_MAX: u8 = 7;

/// Retransmissions of the same bytes after which the application is told and the way to the peer doubted (R1, SHLD-10).
const R1_RETRIES: u8 = 3;

/// The next segment that should leave now, if any. Call until `None`.
pub fn poll_segment(
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
    let sack = sack_blocks(flow, repair);
    Outgoing { sack, ..Outgoing::bare(flow.snd_nxt, flow.rcv_nxt, Control::ACK, flow.receive_window_field()) }
}

/// The blocks of a segment's SACK option: as many as there is room for beside timestamps.
fn sack_blocks(flow: &Flow, repair: Option<&mut Repair>) -> SackBlocks {
    let mut blocks = SackBlocks::default();
    if let Some(repair) = repair.filter(|_| flow.takes_sack()) {
        repair.sack_blocks(&mut blocks, if flow.has_timestamps() { 3 } else { 4 });
    }
    blocks
}

/// A probe of a closed window: one byte left of SND.UNA, so that the peer answers and no byte is forced on it.
pub fn window_probe(flow: &Flow, active: &Active) -> Outgoing {
    Outgoing::bare(active.snd_una.minus(1), flow.rcv_nxt, Control::ACK, flow.receive_window_field())
}

fn poll_syn(flow: &mut Flow, active: &mut Active, offer: Offer, now: Time) -> Option<Outgoing> {
    let iss = begin_handshake(flow, active, now)?;
    let syn_ack = syn_ack(iss, SeqNum(0), true, true, offer);
    Some(Outgoing { control: Control::SYN, ..syn_ack })
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
    Some(syn_ack(iss, flow.irs, flow.has_window_scaling(), flow.takes_sack(), offer))
}

/// The SYN-ACK that answers a SYN.
pub fn syn_ack(iss: SeqNum, irs: SeqNum, has_scaling: bool, has_sack: bool, offer: Offer) -> Outgoing {
    let window = offer.window_bytes.min(u32::from(u16::MAX)) as u16;
    Outgoing {
        mss: Some(offer.mss),
        window_shift: has_scaling.then_some(offer.shift()),
        sack_permitted: has_sack,
        ..Outgoing::bare(iss, irs.plus(1), Control::SYN.with(Control::ACK), window)
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
    let seq = if active.resend_nxt.before(flow.snd_nxt) { active.resend_nxt } else { flow.snd_nxt };
    let limit = active.snd_una.plus(active.cwnd.min(flow.send_window()));
    // The oldest bytes may go again whatever became of the window since: they were inside it when they were first sent.
    let is_head_again = seq == active.snd_una && seq.before(flow.snd_nxt);
    let room = if limit.after(seq) { limit.since(seq) } else { u32::from(is_head_again) * flow.snd_nxt.since(seq) };
    Next { seq, room, is_again: is_head_again && active.resend_nxt == seq }
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
    let room = if repair.is_probing_new == 1 { room.max(mss) } else { room };
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
    if !(is_again && take > 0) && !is_worth_sending(flow, active, waiting, take) && !has_fin {
        if active.deadline_ms().is_none() {
            arm_retransmission(active, repair, now);
        }
        return None;
    }
    let sent_end = seq.plus(take + u32::from(has_fin));
    if sent_end.after(flow.snd_nxt) {
        if seq == flow.snd_nxt {
            active.time_round_trip(sent_end, now);
        }
        flow.snd_nxt = sent_end;
    }
    active.resend_nxt = if repair.is_some() { flow.snd_nxt } else { sent_end };
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
    let mut control = Control::ACK;
    if take > 0 && is_last {
        control = control.with(Control::PSH);
    }
    if has_fin {
        control = control.with(Control::FIN);
    }
    let urgent = active.urgent_from(seq);
    if urgent.is_some() {
        control = control.with(Control::URG);
    }
    Some(Outgoing {
        payload_bytes: take,
        urgent: urgent.unwrap_or(0),
        sack: sack_blocks(flow, repair),
        ..Outgoing::bare(seq, flow.rcv_nxt, control, flow.receive_window_field())
    })
}

/// The range leaves, and the scoreboard and the timer follow.
fn note_sent(flow: &Flow, active: &mut Active, repair: &mut Repair, (seq, end): (SeqNum, SeqNum), now: Time) {
    let now_us = now.0 as u32;
    let is_again = repair.first_lost(active.snd_una).is_some_and(|(from, _)| from == seq);
    repair.prr_out = repair.prr_out.saturating_add(end.since(seq));
    if is_again {
        repair.on_resent(active.snd_una, seq, end.since(seq), now_us);
        repair.note_resent(now);
        active.abandon_round_trip();
    } else {
        repair.on_sent(end, now_us, active.srtt_us / 16);
        repair.is_probing_new = 0;
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

/// Whether more is to be in flight than one segment, whose loss a time-out finds soon enough.
pub fn wants_repair(flow: &Flow, active: &Active) -> bool {
    match flow.state() {
        State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck => {
            active.queued_bytes() > u32::from(flow.mss)
        }
        State::Free | State::SynSent | State::SynReceived | State::FinWait2 | State::TimeWait => false,
    }
}

/// Whether a segment with payload or FIN is not the next one, so that a repair block is of use.
pub fn is_out_of_order(flow: &Flow, segment: &Segment) -> bool {
    const BEHIND_MAX: u32 = 1 << 20;
    let is_near = segment.seq.within(flow.rcv_nxt, flow.receive_window())
        || flow.takes_sack() && segment.seq.within(flow.rcv_nxt.minus(BEHIND_MAX), BEHIND_MAX);
    let has_something = segment.length() > 0 && !segment.control.has(Control::SYN);
    has_something && is_near && segment.seq != flow.rcv_nxt && !flow.has_peer_fin()
}

/// The repair block that an active block borrows, with what is in flight by now.
pub fn begin_repair(index: u32, flow: &Flow, active: &Active, now: Time) -> Repair {
    let mut repair = Repair::empty(index);
    if matches!(flow.state(), State::SynSent | State::SynReceived) {
        return repair;
    }
    repair.begin_runs(active.snd_una, flow.snd_nxt, now.0 as u32);
    if active.resend_nxt.before(flow.snd_nxt) {
        repair.lose_from(active.snd_una, active.resend_nxt);
    }
    repair
}

/// Sender's silly window avoidance (RFC 9293 §3.8.6.2.1): a full segment, all that waits, half of the largest window,
/// or what is sent again. Otherwise it waits for an acknowledgment or, where nothing is in flight, for the time-out.
fn is_worth_sending(flow: &Flow, active: &Active, waiting: u32, take: u32) -> bool {
    if take == 0 {
        return false;
    }
    let is_again = active.resend_nxt == active.snd_una && active.in_flight(flow) > 0;
    let is_overdue = active.in_flight(flow) == 0 && active.retries > 0;
    let is_full = take >= u32::from(flow.mss);
    let is_large = is_full || take >= flow.send_window_max() / 2;
    if flow.has_nagle() && !is_full && !is_again && active.in_flight(flow) > 0 {
        // With Nagle's algorithm less than a full segment waits for what is in flight (RFC 9293 §3.7.4, SHLD-7).
        return false;
    }
    take == waiting || is_large || is_again || is_overdue
}

fn on_fin_sent(flow: &mut Flow) {
    flow.set_close_queued(false);
    match flow.state() {
        State::Established => flow.set_state(State::FinWait1),
        State::CloseWait => flow.set_state(State::LastAck),
        State::Free
        | State::SynSent
        | State::SynReceived
        | State::FinWait1
        | State::FinWait2
        | State::Closing
        | State::LastAck
        | State::TimeWait => {}
    }
}

/// Grows the congestion window for newly acknowledged bytes (RFC 5681 §3.1).
pub(super) fn open_congestion_window(flow: &Flow, active: &mut Active, acknowledged: u32) {
    let mss = u32::from(flow.mss);
    let growth =
        if active.cwnd < active.ssthresh { acknowledged.min(2 * mss) } else { (mss * mss / active.cwnd.max(1)).max(1) };
    active.cwnd = active.cwnd.saturating_add(growth);
}

/// The connection's timer has expired.
pub fn on_timer(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    offer: Offer,
    user_timeout_s: u32,
    now: Time,
) -> (Effects, Option<Outgoing>) {
    active.disarm();
    if matches!(flow.state(), State::SynSent | State::SynReceived) {
        return (on_handshake_timer(flow, active), None);
    }
    match repair {
        Some(repair) if repair.timer == TIMER_REORDERING => {
            repair.on_reordering_timer(flow, active, offer.congestion, now);
            rearm(flow, active, repair, now);
            return (Effects::only(Rule::LateSegmentsLost), None);
        }
        Some(repair) if repair.timer == TIMER_PROBE => {
            repair.on_probe_timer(flow, active);
            repair.timer = TIMER_RETRANSMISSION;
            active.arm(now);
            return (Effects::only(Rule::TailProbed), None);
        }
        repair => on_retransmission_timer(flow, active, repair, offer, user_timeout_s, now),
    }
}

fn on_retransmission_timer(
    flow: &mut Flow,
    active: &mut Active,
    repair: Option<&mut Repair>,
    offer: Offer,
    user_timeout_s: u32,
    now: Time,
) -> (Effects, Option<Outgoing>) {
    if active.stalled_s(now) >= user_timeout_s {
        return (Effects::closed(Rule::RetransmissionGivenUp, CloseReason::TimedOut), None);
    }
    if active.in_flight(flow) == 0 {
        active.back_off();
        if flow.send_window() > 0 {
            return (Effects::only(Rule::SillyWindowOverridden), None);
        }
        active.arm(now);
        return (Effects::only(Rule::WindowProbe), Some(window_probe(flow, active)));
    }
    let mss = u32::from(flow.mss);
    match repair {
        Some(repair) => {
            repair.on_time_out(flow, active, offer.congestion);
            active.resend_nxt = flow.snd_nxt;
        }
        None => {
            if active.retries == 0 {
                active.ssthresh = (active.in_flight(flow) / 2).max(2 * mss);
            }
            active.cwnd = mss;
            active.resend_nxt = active.snd_una;
        }
    }
    active.abandon_round_trip();
    active.back_off();
    let soft_error = (active.retries == R1_RETRIES).then_some(SoftError::Unanswered);
    (Effects { soft_error, ..Effects::only(Rule::RetransmissionTimeout) }, None)
}

fn on_handshake_timer(flow: &Flow, active: &mut Active) -> Effects {
    if active.retries >= SYN_RETRIES_MAX {
        let reason = if flow.is_active_open() { CloseReason::TimedOut } else { CloseReason::HandshakeFailed };
        return Effects::closed(Rule::HandshakeGivenUp, reason);
    }
    active.resend_nxt = active.snd_una;
    active.abandon_round_trip();
    active.back_off();
    // An application that has not asked for the connection does not know of it yet.
    let is_told = flow.is_active_open() && active.retries == R1_RETRIES;
    let soft_error = is_told.then_some(SoftError::Unanswered);
    Effects { soft_error, ..Effects::only(Rule::RetransmissionTimeout) }
}

/// Whether the application goes on reading after it has closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// It does: a half-close.
    GoesOn,
    /// It does not: what the peer sends from now on has no reader.
    Ends,
}

/// The application closes: FIN after what is queued (RFC 9293 §3.10.4), if that has not happened yet. Says whether that
/// changes anything.
pub fn on_close(flow: &mut Flow, reading: Reading) -> bool {
    let is_news = reading == Reading::Ends && !flow.is_orphaned();
    match flow.state() {
        State::Established | State::CloseWait => {
            let changes = !flow.is_close_queued() || is_news;
            flow.set_close_queued(true);
            flow.set_orphaned(flow.is_orphaned() || is_news);
            changes
        }
        State::FinWait1 | State::FinWait2 if is_news => {
            flow.set_orphaned(true);
            true
        }
        State::Free
        | State::SynSent
        | State::SynReceived
        | State::FinWait1
        | State::FinWait2
        | State::Closing
        | State::LastAck
        | State::TimeWait => false,
    }
}

/// The application aborts: RST, but where both sides have closed only the connection goes (RFC 9293 §3.10.5).
pub fn abort(flow: &Flow) -> (Effects, Reply) {
    let reply = match flow.state() {
        State::Free | State::SynSent | State::Closing | State::LastAck | State::TimeWait => Reply::None,
        State::SynReceived | State::Established | State::FinWait1 | State::FinWait2 | State::CloseWait => {
            Reply::Reset { seq: flow.snd_nxt }
        }
    };
    (Effects::closed(Rule::AbortSent, CloseReason::Aborted), reply)
}

/// Whether the application may still queue bytes.
pub fn is_open_for_push(flow: &Flow) -> bool {
    match flow.state() {
        State::Established | State::CloseWait => !flow.is_close_queued(),
        State::Free
        | State::SynSent
        | State::SynReceived
        | State::FinWait1
        | State::FinWait2
        | State::Closing
        | State::LastAck
        | State::TimeWait => false,
    }
}

/// How long idle connections may be what they are, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TIME-WAIT (2 MSL).
    pub time_wait_s: u32,
    /// FIN-WAIT-2 without a word from the peer.
    pub fin_wait_2_s: u32,
    /// Silence after which a keepalive probe is sent, and between probes; 0 for none unless a connection asks for it
    /// (MUST-25).
    pub keepalive_s: u32,
    /// Unanswered probes after which the connection is given up.
    pub keepalive_probes: u8,
    /// Silence after which the connection is closed; 0 for never.
    pub idle_s: u32,
}

/// The keepalive interval of a connection that asks for it where none is configured (MUST-28).
const KEEPALIVE_DEFAULT_S: u32 = 7_200;

impl Timeouts {
    /// The keepalive interval of a connection; 0 for none.
    fn keepalive_of(&self, flow: &Flow) -> u32 {
        match flow.keepalive() {
            Keepalive::Default => self.keepalive_s,
            Keepalive::On if self.keepalive_s == 0 => KEEPALIVE_DEFAULT_S,
            Keepalive::On => self.keepalive_s,
            Keepalive::Off => 0,
        }
    }
}

/// What the clock hand finds at an idle flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sweep {
    /// Nothing to do.
    Nothing,
    /// The connection has ended.
    Ends(Effects),
    /// A keepalive probe is due.
    Probes,
}

/// What the clock hand does when it passes. `spread` is any number that differs between connections: their keepalive
/// probes are spread by up to a tenth of the interval.
pub fn on_sweep(flow: &Flow, active: Option<&Active>, timeouts: &Timeouts, spread: u32, now: Time) -> Sweep {
    let waited_s = now.seconds().saturating_sub(flow.heard_s);
    match flow.state() {
        State::TimeWait if waited_s >= timeouts.time_wait_s => {
            Sweep::Ends(Effects::closed(Rule::TimeWaitExpired, CloseReason::BothClosed))
        }
        State::FinWait2 if waited_s >= timeouts.fin_wait_2_s => {
            Sweep::Ends(Effects::closed(Rule::FinWait2Expired, CloseReason::PeerNeverClosed))
        }
        State::Established | State::CloseWait => on_sweep_open(flow, active, timeouts, spread, waited_s),
        State::Free
        | State::SynSent
        | State::SynReceived
        | State::FinWait1
        | State::FinWait2
        | State::Closing
        | State::LastAck
        | State::TimeWait => Sweep::Nothing,
    }
}

fn on_sweep_open(flow: &Flow, active: Option<&Active>, timeouts: &Timeouts, spread: u32, waited_s: u32) -> Sweep {
    let reset = Reply::Reset { seq: flow.snd_nxt };
    if timeouts.idle_s != 0 && waited_s >= timeouts.idle_s {
        let effects = Effects::closed(Rule::IdleExpired, CloseReason::IdleTimedOut);
        return Sweep::Ends(Effects { reply: reset, ..effects });
    }
    // With bytes in flight the retransmission timer finds out whether the peer lives (RFC 9293 §3.8.4).
    let is_sending = active.is_some_and(|active| active.in_flight(flow) > 0 || active.queued_bytes() > 0);
    let interval_s = timeouts.keepalive_of(flow);
    if interval_s == 0 || is_sending {
        return Sweep::Nothing;
    }
    let probes = flow.unanswered_probes();
    let jitter_s = spread % (interval_s / 10 + 1);
    if waited_s < interval_s.saturating_mul(u32::from(probes) + 1).saturating_add(jitter_s) {
        return Sweep::Nothing;
    }
    if probes >= timeouts.keepalive_probes {
        let effects = Effects::closed(Rule::KeepaliveGivenUp, CloseReason::KeepaliveTimedOut);
        return Sweep::Ends(Effects { reply: reset, ..effects });
    }
    Sweep::Probes
}

/// The keepalive probe: no byte, one left of SND.NXT, which the peer must answer (RFC 9293 §3.8.4).
pub fn keepalive_probe(flow: &mut Flow) -> Outgoing {
    flow.count_probe();
    Outgoing::bare(flow.snd_nxt.minus(1), flow.rcv_nxt, Control::ACK, flow.receive_window_field())
}
