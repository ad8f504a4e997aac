//! A segment arrives that belongs to no connection (RFC 9293 §3.10.7.1 and §3.10.7.2).
//!
//! In: the segment and whether its port is listened on. Out: whether it opens a connection, and what is answered.

use super::ecn::is_setup_syn;
use super::{Active, CongestionControl, Control, Ecn, Effects, Flow, Reply, Rule, Segment, SeqNum, State, Time};

/// What becomes of a segment without a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmatched {
    /// It opens a connection: see [`on_syn`].
    Opens,
    /// It is answered or dropped.
    Ends(Effects),
}

/// What we can do, as far as the handshake tells it to the peer.
#[derive(Clone, Copy, Default, Debug)]
pub struct Offer {
    /// Largest payload of a segment on our link.
    pub mss: u16,
    /// The same on the path to the peer, as far as it is known.
    pub path_mss: u16,
    /// The peer's MSS where its SYN does not say: 536 over IPv4, 1,220 over IPv6 (MUST-15).
    pub mss_default: u16,
    /// What the headers of IP and TCP take of a packet, options not counted.
    pub headers_bytes: u16,
    /// A path MTU that is said to be smaller is not believed: 552 over IPv4, 1,280 over IPv6 (RFC 8201 §4).
    pub mtu_min: u16,
    /// The receive window that a connection starts with, in bytes.
    pub window_bytes: u32,
    /// How long an ACK may wait for something that it can go with, in ms; 0 for not at all.
    pub delayed_ack_ms: u32,
    /// How congestion is avoided.
    pub congestion: CongestionControl,
    /// Whether ECN may be agreed on.
    pub ecn: Ecn,
}

/// A peer may not make us send smaller segments than this: each costs us as much as a large one.
const MSS_MIN: u16 = 64;
/// What the timestamps option takes of each segment, with its padding.
pub(super) const TIMESTAMPS_BYTES: u16 = 12;
/// Largest window shift (RFC 7323 §2.3).
pub(super) const SHIFT_MAX: u8 = 14;

impl Offer {
    /// The smallest shift that lets the window field say `window_bytes`.
    pub fn shift(&self) -> u8 {
        let mut shift = 0;
        while shift < SHIFT_MAX && self.window_bytes >> shift > u32::from(u16::MAX) {
            shift += 1;
        }
        shift
    }
}

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

/// The largest payload of a segment that both ends, the path and the options allow (MUST-16).
pub(super) fn set_mss(flow: &mut Flow, syn: &Segment, offer: Offer) {
    let options_bytes = if syn.timestamps.is_some() { TIMESTAMPS_BYTES } else { 0 };
    flow.mss = syn.mss.unwrap_or(offer.mss_default).clamp(MSS_MIN, offer.path_mss.max(MSS_MIN)) - options_bytes;
}

/// Makes the connection that a SYN opens, in SYN-RECEIVED. The caller fills in addresses, ports and next hop; the
/// SYN-ACK leaves with the next [`poll_segment`](super::poll_segment), but counts as sent at once: a segment that comes
/// in the same batch must not find SND.NXT at the ISS. Payload on the SYN is not taken: the peer sends it again.
pub fn on_syn(slot: u32, flow: &mut Flow, segment: &Segment, iss: SeqNum, offer: Offer, now: Time) -> Active {
    flow.set_state(State::SynReceived);
    flow.snd_nxt = iss;
    set_mss(flow, segment, offer);
    if let Some(timestamps) = segment.timestamps {
        flow.begin_timestamps(timestamps.value);
    }
    flow.set_takes_sack(segment.sack_permitted);
    if is_setup_syn(segment) && offer.ecn != Ecn::Off {
        flow.begin_ecn();
    }
    if let Some(shift) = segment.window_shift {
        flow.begin_window_scaling(shift.min(SHIFT_MAX), offer.shift());
    }
    flow.begin_receiving(segment.seq);
    // The window of a SYN is never scaled, and we send nothing before the next one.
    flow.set_send_window(segment.window);
    flow.extend_receive_window(offer.window_bytes.min(u32::from(u16::MAX)));
    flow.heard_s = now.seconds();
    flow.opened_s = now.seconds();
    flow.allow_challenge(now);
    let active = Active::quiet(slot, flow);
    flow.snd_nxt = iss.plus(1);
    active
}
