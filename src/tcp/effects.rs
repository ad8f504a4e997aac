//! Effects: what a step of the machine asks of its caller.
//!
//! Bounded plain data. The caller (a shard) applies them in the order of the fields; the flow and its active block
//! have already changed where the step says so.

use super::{Rule, SeqNum, Signals};

/// Why a connection ended.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, strum::Display, strum::EnumCount, strum::EnumIter, strum::IntoStaticStr,
)]
#[strum(serialize_all = "kebab-case")]
pub enum CloseReason {
    /// Both sides have sent and acknowledged their FINs.
    BothClosed,
    /// The peer sent an RST.
    PeerReset,
    /// The application aborted the connection.
    Aborted,
    /// The peer stopped acknowledging for the user timeout.
    TimedOut,
    /// The peer never completed the handshake, or reset it.
    HandshakeFailed,
    /// We closed, and the peer never sent its own FIN.
    PeerNeverClosed,
    /// The peer answered no keepalive probe.
    KeepaliveTimedOut,
    /// Nothing was heard from the peer for the idle time-out.
    IdleTimedOut,
    /// The peer sent data after the application had closed.
    DataAfterClose,
    /// The peer refused the connection that we asked for.
    Refused,
    /// The network says that the peer we asked for a connection cannot be reached.
    Unreachable,
}

/// Trouble that does not end a connection, for the application to know (RFC 9293 §3.9.1.8, MUST-47).
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum SoftError {
    /// Nothing was acknowledged for R1 retransmissions (RFC 9293 §3.8.3, SHLD-9).
    Unanswered,
    /// ICMP: destination unreachable.
    Unreachable,
    /// ICMP: time exceeded.
    TimeExceeded,
    /// ICMP: parameter problem.
    ParameterProblem,
}

/// A control segment to send at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Nothing.
    None,
    /// An ACK for the present state: `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`.
    Ack,
    /// `<SEQ=seq><CTL=RST>`.
    Reset {
        /// Sequence number of the RST.
        seq: SeqNum,
    },
    /// `<SEQ=0><ACK=ack><CTL=RST,ACK>`.
    ResetAck {
        /// Acknowledgment number of the RST.
        ack: SeqNum,
    },
}

/// The outcome of one segment, timer or call.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effects {
    /// What decided.
    pub rule: Rule,
    /// A control segment to send at once.
    pub reply: Reply,
    /// The handshake was completed by this segment.
    pub is_opened: bool,
    /// SND.UNA moved: release what the send queue holds left of it.
    pub is_acknowledged: bool,
    /// In-order payload to offer: skip so many bytes of the segment's payload, then take so many.
    pub payload_skip: u32,
    /// See `payload_skip`; 0 where there is none.
    pub payload_take: u32,
    /// The peer's FIN follows what was taken, or held.
    pub has_fin: bool,
    /// Payload beyond a gap: so many bytes of the segment's payload may be held.
    pub payload_hold: u32,
    /// An ACK leaves once the payload has been dealt with, whatever else is to be sent.
    pub is_ack_due: bool,
    /// The peer has urgent bytes up to here, which is news to the application.
    pub urgent_end: Option<SeqNum>,
    /// What it says of congestion.
    pub signals: Signals,
    /// Trouble for the application to know.
    pub soft_error: Option<SoftError>,
    /// The largest packet that gets through to the peer, in bytes, which is news.
    pub path_mtu: Option<u16>,
    /// The connection is over and its flow free.
    pub closed: Option<CloseReason>,
}

impl Effects {
    /// Nothing but the rule.
    pub fn only(rule: Rule) -> Effects {
        Effects {
            rule,
            reply: Reply::None,
            is_opened: false,
            is_acknowledged: false,
            payload_skip: 0,
            payload_take: 0,
            has_fin: false,
            payload_hold: 0,
            is_ack_due: false,
            urgent_end: None,
            signals: Signals::default(),
            soft_error: None,
            path_mtu: None,
            closed: None,
        }
    }

    /// The rule and a control segment.
    pub fn reply(rule: Rule, reply: Reply) -> Effects {
        Effects { reply, ..Effects::only(rule) }
    }

    /// The rule and the end of the connection.
    pub fn closed(rule: Rule, reason: CloseReason) -> Effects {
        Effects { closed: Some(reason), ..Effects::only(rule) }
    }
}
