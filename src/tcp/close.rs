//! The application closes or aborts (RFC 9293 §3.10.4, §3.10.5).
//!
//! In: the flow. Out: what changes; the FIN leaves behind what is queued.

use super::{CloseReason, Effects, Flow, Reply, Rule, State};

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
