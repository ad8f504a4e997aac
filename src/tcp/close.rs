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
    let queues_fin = flow.is_open() && !flow.is_close_queued();
    let may_receive = flow.is_open() || flow.is_in(State::FinWait1) || flow.is_in(State::FinWait2);
    let loses_reader = reading == Reading::Ends && may_receive && !flow.is_orphaned();
    if queues_fin {
        flow.set_close_queued(true);
    }
    if loses_reader {
        flow.set_orphaned(true);
    }
    queues_fin || loses_reader
}

/// The application aborts: RST, but where both sides have closed only the connection goes (RFC 9293 §3.10.5).
pub fn on_abort(flow: &Flow) -> Effects {
    let reply = match flow.state() {
        State::Free | State::SynSent | State::Closing | State::LastAck | State::TimeWait => Reply::None,
        State::SynReceived | State::Established | State::FinWait1 | State::FinWait2 | State::CloseWait => {
            Reply::Reset { seq: flow.snd_nxt }
        }
    };
    Effects { reply, ..Effects::closed(Rule::AbortSent, CloseReason::Aborted) }
}

/// Whether the application may still queue bytes.
pub fn is_open_for_push(flow: &Flow) -> bool {
    flow.is_open() && !flow.is_close_queued()
}
