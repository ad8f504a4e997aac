//! Time that has passed, at a connection's timer and at an idle connection (RFC 9293 §3.8.1, §3.8.3, §3.8.4).
//!
//! In: the flow, its active block, the time. Out: effects, or a probe that is to be sent; what is to be sent again
//! leaves with the next [`poll_segment`](super::poll_segment).

use super::path;
use super::recovery::{TIMER_PROBE, TIMER_REORDERING, TIMER_RETRANSMISSION};
use super::send::{bare_ack, rearm};
use super::{
    Active, CloseReason, Effects, Flow, Keepalive, Offer, Outgoing, Repair, Reply, Rule, SoftError, State, Time,
};

/// SYNs and SYN-ACKs that are sent again before the connection is given up (183 s with doubling, MUST-23).
const SYN_RETRIES_MAX: u8 = 7;

/// Retransmissions of the same bytes after which the application is told and the way to the peer doubted (R1, SHLD-10).
const R1_RETRIES: u8 = 3;

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
    if flow.is_half_open() {
        return (on_handshake_timer(flow, active), None);
    }
    match repair {
        Some(repair) if repair.timer == TIMER_REORDERING => {
            repair.on_reordering_timer(flow, active, offer.congestion, now);
            rearm(flow, active, repair, now);
            (Effects::only(Rule::LateSegmentsLost), None)
        }
        Some(repair) if repair.timer == TIMER_PROBE => {
            repair.on_probe_timer(flow, active);
            repair.timer = TIMER_RETRANSMISSION;
            active.arm(now);
            (Effects::only(Rule::TailProbed), None)
        }
        repair => on_retransmission_timer(flow, active, repair, offer, user_timeout_s, now),
    }
}

fn on_retransmission_timer(
    flow: &mut Flow,
    active: &mut Active,
    mut repair: Option<&mut Repair>,
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
    let of_path = path::on_time_out(flow, active, repair.as_deref_mut(), offer);
    if let Some(effects) = of_path.filter(|effects| effects.rule == Rule::PathMtuConfirmed) {
        return (effects, None);
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
                active.note_reduced(flow);
            }
            active.cwnd = mss;
            active.resend_nxt = active.snd_una;
        }
    }
    active.abandon_round_trip();
    active.back_off();
    let soft_error = (active.retries == R1_RETRIES).then_some(SoftError::Unanswered);
    let effects = of_path.unwrap_or(Effects::only(Rule::RetransmissionTimeout));
    (Effects { soft_error, ..effects }, None)
}

/// Whether the SYN-ACK of a connection was sent twice and nobody has answered: under a flood its SYN was forged.
pub fn is_doubtful(flow: &Flow, active: &Active) -> bool {
    flow.is_in(State::SynReceived) && !flow.is_active_open() && active.retries > 0
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

/// A probe of a closed window: one byte left of SND.UNA, so that the peer answers and no byte is forced on it.
fn window_probe(flow: &Flow, active: &Active) -> Outgoing {
    bare_ack(flow, active.snd_una.minus(1))
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
    if flow.is_open() {
        return on_sweep_open(flow, active, timeouts, spread, waited_s);
    }
    // What has arrived and is not read yet would be lost with the connection.
    let is_read = || active.is_none_or(|active| !active.has_unread(flow));
    if flow.is_in(State::TimeWait) && waited_s >= timeouts.time_wait_s && is_read() {
        return Sweep::Ends(Effects::closed(Rule::TimeWaitExpired, CloseReason::BothClosed));
    }
    if flow.is_in(State::FinWait2) && waited_s >= timeouts.fin_wait_2_s {
        return Sweep::Ends(Effects::closed(Rule::FinWait2Expired, CloseReason::PeerNeverClosed));
    }
    Sweep::Nothing
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
    if probes >= timeouts.keepalive_probes && !is_own_silence(waited_s, interval_s, probes) {
        let effects = Effects::closed(Rule::KeepaliveGivenUp, CloseReason::KeepaliveTimedOut);
        return Sweep::Ends(Effects { reply: reset, ..effects });
    }
    Sweep::Probes
}

/// Whether a probe is late by more than the clock hand may be: then it was us who were silent, dead or standing still,
/// and an answer to the probe before may have been lost on us.
fn is_own_silence(waited_s: u32, interval_s: u32, probes: u8) -> bool {
    const LATE_S_MIN: u32 = 10;
    let due_s = interval_s.saturating_mul(u32::from(probes) + 1);
    waited_s >= due_s.saturating_add(interval_s.max(LATE_S_MIN))
}

/// The keepalive probe: no byte, one left of SND.NXT, which the peer must answer (RFC 9293 §3.8.4). After a silence of
/// our own the peer has an interval for its answer all the same, and if it was the last one another.
pub fn keepalive_probe(flow: &mut Flow, timeouts: &Timeouts, now: Time) -> Outgoing {
    let (interval_s, probes) = (timeouts.keepalive_of(flow), flow.unanswered_probes());
    let waited_s = now.seconds().saturating_sub(flow.heard_s);
    if probes < timeouts.keepalive_probes {
        flow.count_probe();
    }
    if is_own_silence(waited_s, interval_s, probes) {
        flow.heard_s = now.seconds() - interval_s * u32::from(flow.unanswered_probes());
    }
    bare_ack(flow, flow.snd_nxt.minus(1))
}
