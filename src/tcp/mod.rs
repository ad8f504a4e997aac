//! The protocol: `(flow, active, segment, now) -> effects`, and nothing else.
//!
//! In: a connection's record, what arrived or expired, the time. Out: the record changed, and [`Effects`] or
//! [`Outgoing`] segments that say what the caller is to do. It is called by `shard`, on copies.
//!
//! Reading order: `seq`, `time`, `segment`, `flow`, `settings`, `window`, `active`, `queue`, then the machine: `open`,
//! `cookie` and `connect` (no connection yet), `receive` and `timestamps` (a segment arrives), `send` (what may leave,
//! and when), with every outcome named in `rule`.
//!
//! Invariant: it reads no clock, draws no random number, does no I/O, allocates nothing and uses no other part of
//! holdline. What it must keep beyond a flow goes through the trait [`Spans`].

mod active;
mod congestion;
mod connect;
mod cookie;
mod effects;
mod flow;
mod held;
mod open;
mod queue;
mod receive;
mod recovery;
mod repair;
mod rule;
mod runs;
mod segment;
mod send;
mod seq;
mod settings;
mod time;
mod timestamps;
mod window;

pub use active::Active;
pub use congestion::CongestionControl;
pub use connect::{on_connect, on_syn_sent, on_unreachable};
pub use cookie::{COOKIE_LIFE_S, Cookie, on_cookie};
pub use effects::{CloseReason, Effects, Reply, SoftError};
pub use flow::{Flow, State};
pub use open::{Offer, Unmatched, on_closed, on_listen, on_syn, reset_for};
pub use queue::{
    NO_SPAN, Span, Spans, append_chain_to_recv_queue, append_to_recv_queue, append_to_send_queue, consume_recv_queue,
    drop_expired, for_each_pending_push, gather, release_acknowledged, release_all,
};
pub use receive::{InOrder, Payload, in_order_part, on_payload, on_segment};
pub use repair::{HELD_MAX, Held, Repair};
pub use rule::Rule;
pub use segment::{Control, Outgoing, SackBlocks, Segment, Timestamps};
pub use send::{
    Reading, Sweep, Timeouts, abort, begin_repair, immediate_ack, is_open_for_push, is_out_of_order, keepalive_probe,
    on_close, on_sweep, on_timer, poll_segment, syn_ack, wants_repair, window_probe,
};
pub use seq::SeqNum;
pub use settings::{Keepalive, PROBES_MAX, UserTimeout};
pub use time::Time;
pub use timestamps::is_reopening;
pub use window::is_window_update_due;
