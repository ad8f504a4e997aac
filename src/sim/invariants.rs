//! What must hold inside a shard after every call, whoever its peers are.
//!
//! A shard's connections come in as [`Inside`], a [`Breach`] goes out. Compared with what they were after the call
//! before, by RFC 9293 unless another is named:
//!
//! - SND.UNA <= what is sent next <= SND.NXT <= the end of the send queue and its FIN (§3.3.1);
//! - RCV.NXT and the right edge of the receive window never move to the left (§3.8.6, SHLD-14);
//! - what is sent exceeds the congestion window by no more than a probe of the tail (RFC 5681 §3.1, RFC 8985 §7.3);
//! - the timer runs if, and only if, something is unacknowledged or waits to be sent (RFC 6298 §5);
//! - nothing expires before the shard wants to be called;
//! - a time-out never becomes shorter while it is repeated (RFC 6298 §5.5);
//! - an active block is borrowed by who needs one, and by nobody else;
//! - what is counted as used is what connections name.
//!
//! Invariant: it looks, and never touches.

use strum::IntoEnumIterator;

use crate::shard::{Inside, Named, Shard, State, Stats, Time};

use super::report::Breach;

/// One thing that must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::EnumIter)]
pub enum Invariant {
    /// Sequence numbers of our direction are in order.
    SendOrder,
    /// What the peer was promised stays promised.
    RightEdge,
    /// What is under way is no more than the congestion window allows.
    CongestionWindow,
    /// The timer runs where something is unacknowledged or waits.
    TimerRuns,
    /// And only there.
    TimerRests,
    /// The shard wants to be called before anything expires.
    Deadline,
    /// Repeated time-outs do not become shorter.
    BackOff,
    /// Idle connections have no active block.
    IdleIsIdle,
    /// Used is what is named.
    Memory,
}

/// A shard's connections as they were after the last call.
#[derive(Default)]
pub(super) struct Invariants {
    before: Vec<Inside>,
    after: Vec<Inside>,
    calls: u64,
}

/// Going through all queues is slow: it is done after one of so many calls.
const CALLS_PER_WALK: u64 = 32;

impl Invariants {
    /// Looks at the shard after a call. `is_one_batch` says whether it was one batch at most: in several the congestion
    /// window may have moved up and down. `lie` may change what is seen, and says what that breaks.
    pub(super) fn check<S: crate::service::Service>(
        &mut self,
        shard: &Shard<S>,
        now: Time,
        is_one_batch: bool,
        mut lie: impl FnMut(&mut Inside) -> Option<Invariant>,
    ) -> Result<(), Breach> {
        let Invariants { before, after, calls } = self;
        after.clear();
        shard.inspect(now, |inside| after.push(inside));
        let wanted_ms = shard.next_deadline().map(|deadline| deadline.ms());
        let mut is_miscounted = false;
        for (position, inside) in after.iter_mut().enumerate() {
            // Nearly always nothing has come or gone.
            let is_it = |before: &&Inside| before.id == inside.id;
            let before = before.get(position).filter(is_it).or_else(|| before.iter().find(is_it));
            // What is overdue is due by the next tick.
            inside.deadline_ms = inside.deadline_ms.map(|at_ms| at_ms.max(now.ms()));
            is_miscounted |= lie(inside) == Some(Invariant::Memory);
            let broken = Invariant::iter().find(|it| !it.holds(inside, before, wanted_ms, is_one_batch));
            if let Some(invariant) = broken {
                return Err(Breach::Broken { invariant, seen: format!("{inside:?} after {before:?}") });
            }
        }
        std::mem::swap(before, after);
        *calls += 1;
        if is_miscounted || *calls % CALLS_PER_WALK == 0 {
            return check_memory(shard.stats(), shard.named_records(), is_miscounted);
        }
        Ok(())
    }

    /// The process has died: what it had not committed has not been.
    pub(super) fn forget(&mut self) {
        self.before.clear();
    }
}

fn check_memory(stats: Stats, named: Named, is_miscounted: bool) -> Result<(), Breach> {
    let Stats { actives, repairs, spans, blocks, peers, .. } = stats;
    let used = Named { actives, repairs, spans: spans + u32::from(is_miscounted), blocks, peers };
    if used == named {
        return Ok(());
    }
    Err(Breach::Broken { invariant: Invariant::Memory, seen: format!("used {used:?}, named {named:?}") })
}

impl Invariant {
    fn holds(self, now: &Inside, before: Option<&Inside>, wanted_ms: Option<u64>, is_one_batch: bool) -> bool {
        let is_in_flight = now.snd_una != now.snd_nxt;
        let has_unsent = now.has_active && is_up_to(now.snd_nxt.wrapping_add(1), now.snd_end);
        let is_half_open = matches!(now.state, State::SynSent | State::SynReceived);
        match self {
            Invariant::SendOrder => {
                let is_in_order = is_up_to(now.snd_una, now.resend_nxt) && is_up_to(now.resend_nxt, now.snd_nxt);
                is_in_order && is_up_to(now.snd_nxt, now.snd_end.wrapping_add(1))
            }
            Invariant::RightEdge => before.is_none_or(|before| {
                let is_new = before.state == State::SynSent;
                is_new || is_up_to(before.right_edge, now.right_edge) && is_up_to(before.rcv_nxt, now.rcv_nxt)
            }),
            Invariant::CongestionWindow => before.is_none_or(|before| {
                let has_sent = is_up_to(before.snd_nxt.wrapping_add(1), now.snd_nxt);
                // A probe of the tail goes whatever the window is, and whatever is under way.
                let probe_bytes = if now.is_probed { before.pipe_bytes + now.mss_bytes } else { 0 };
                let allowed_bytes = now.cwnd_bytes.max(probe_bytes);
                !has_sent || !is_one_batch || now.pipe_bytes <= allowed_bytes
            }),
            Invariant::TimerRuns => now.is_armed || !(is_in_flight || has_unsent),
            Invariant::TimerRests => !now.is_armed || is_in_flight || has_unsent || is_half_open,
            Invariant::Deadline => {
                now.deadline_ms.is_none_or(|at_ms| wanted_ms.is_some_and(|it| it <= at_ms + WHEEL_MS))
            }
            Invariant::BackOff => before.is_none_or(|before| {
                let is_repeated = before.retries > 0 && now.retries >= before.retries && now.snd_una == before.snd_una;
                !is_repeated || now.rto_ms >= before.rto_ms
            }),
            Invariant::IdleIsIdle => !now.has_active || now.is_busy,
            Invariant::Memory => true,
        }
    }
}

/// By how much the wheel may be late.
const WHEEL_MS: u64 = 8;

/// Whether `b` is `a` or lies to the right of it on the circle of sequence numbers.
fn is_up_to(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) as i32 >= 0
}

/// Changes what is seen so that the invariant is broken; false where that is not possible here.
pub(super) fn breaks(invariant: Invariant, inside: &mut Inside) -> bool {
    let is_in_flight = inside.snd_una != inside.snd_nxt;
    match invariant {
        Invariant::SendOrder => inside.snd_una = inside.snd_nxt.wrapping_add(1),
        Invariant::RightEdge if inside.state == State::Established => {
            inside.right_edge = inside.right_edge.wrapping_sub(1 << 20);
        }
        Invariant::CongestionWindow if is_in_flight && inside.state == State::Established => {
            inside.pipe_bytes = inside.cwnd_bytes.saturating_mul(2).saturating_add(1 << 20);
        }
        Invariant::TimerRuns if is_in_flight => inside.is_armed = false,
        Invariant::TimerRests if !inside.has_active => inside.is_armed = true,
        Invariant::Deadline => inside.deadline_ms = Some(0),
        Invariant::BackOff if inside.retries > 1 => inside.rto_ms = 0,
        Invariant::IdleIsIdle if !inside.is_busy => inside.has_active = true,
        Invariant::Memory => {}
        _ => return false,
    }
    true
}
