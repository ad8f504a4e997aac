//! The protocol: `(flow, active, segment, now) -> effects`, and nothing else.
//!
//! In: a connection's record, what arrived or expired, the time. Out: the record changed, and [`Effects`] or
//! [`Outgoing`] segments that say what the caller is to do. It is called by `shard`, on copies.
//!
//! Reading order:
//!
//! 1. What there is: `seq`, `time`, `segment`, `flow` with its `settings` and `path_memory`, `offer`, `window`,
//!    `active` with its `marks`, `queue`; and what a step says: `effects`, with every outcome named in `rule`.
//! 2. The machine: `open`, `cookie` and `connect` (no connection yet), `receive`, `timestamps` and `payload` (a segment
//!    arrives), `send` (what may leave, and when), `expire` (time has passed), `close` (the application has had
//!    enough), and `predict`, the short way through all that.
//! 3. How fast, and what is lost: `round_trip`, `ecn`, `path`, `congestion`; `repair`, the block that this borrows,
//!    with what the peer sent (`held`) and what became of ours (`runs`); `recovery`, `recovery_timers`, `slow_start`.
//!
//! Invariant: it reads no clock, draws no random number, does no I/O, allocates nothing and uses no other part of
//! holdline. What it must keep beyond a flow goes through the trait [`Spans`].

mod active;
mod close;
mod congestion;
mod connect;
mod cookie;
mod ecn;
mod effects;
mod expire;
mod flow;
mod held;
mod marks;
mod offer;
mod open;
mod path;
mod path_memory;
mod payload;
mod predict;
mod queue;
mod receive;
mod recovery;
mod recovery_timers;
mod repair;
mod round_trip;
mod rule;
mod runs;
mod segment;
mod send;
mod seq;
mod settings;
mod slow_start;
mod time;
mod timestamps;
mod window;

pub use active::Active;
pub use close::{Reading, is_open_for_push, on_abort, on_close};
pub use congestion::CongestionControl;
pub use connect::{on_connect, on_syn_sent, on_unreachable};
pub use cookie::{COOKIE_LIFE_S, Cookie, on_cookie};
pub use ecn::{Ecn, Signals};
pub use effects::{CloseReason, Effects, Reply, SoftError};
pub use expire::{Sweep, Timeouts, is_doubtful, keepalive_probe, on_sweep, on_timer};
pub use flow::{Flow, State};
pub use offer::Offer;
pub use open::{Unmatched, on_closed, on_listen, on_syn, reset_for};
pub use path::{Claim, on_too_big};
pub use path_memory::PathMemory;
pub use payload::{InOrder, Payload, in_order_part, on_payload};
pub use predict::take_expected_ack;
pub use queue::{
    NO_SPAN, Place, Span, Spans, append_chain_to_recv_queue, append_to_recv_queue, append_to_send_queue, chain,
    consume_recv_queue, drop_expired, for_each_pending_push, gather, release_acknowledged, release_all, release_chain,
};
pub use receive::on_segment;
pub use repair::{HELD_MAX, Held, Repair, is_out_of_order};
pub use rule::Rule;
pub use segment::{Control, Outgoing, SackBlocks, Segment, Timestamps};
pub use send::{immediate_ack, poll_segment, syn_ack};
pub use seq::SeqNum;
pub use settings::{Keepalive, PROBES_MAX, UserTimeout};
pub use time::Time;
pub use timestamps::is_reopening;
pub use window::is_window_update_due;
