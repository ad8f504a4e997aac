//! A shard as worlds check it: what is committed of each connection, and what all of them hold.
//!
//! Nothing here changes anything, and no program calls it: `sim` looks at it after every call.

use std::collections::BTreeSet;

use super::Shard;
use crate::flows::FlowId;
use crate::tcp::{self, State, Time};

/// A connection from inside. Sequence numbers are as on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside {
    pub id: FlowId,
    pub state: State,
    pub snd_una: u32,
    pub resend_nxt: u32,
    pub snd_nxt: u32,
    /// One past the last queued byte.
    pub snd_end: u32,
    pub rcv_nxt: u32,
    /// One past the last byte that the peer may send.
    pub right_edge: u32,
    /// What is taken to be under way, in bytes.
    pub pipe_bytes: u32,
    pub cwnd_bytes: u32,
    /// Whether new bytes were sent to probe the tail, and nothing new was acknowledged since.
    pub is_probed: bool,
    pub mss_bytes: u32,
    pub retries: u8,
    pub rto_ms: u32,
    pub has_active: bool,
    /// Whether something is under way that an idle connection has no place for.
    pub is_busy: bool,
    /// Whether the timer runs that has unacknowledged bytes sent again.
    pub is_armed: bool,
    /// When something of it expires, in ms.
    pub deadline_ms: Option<u64>,
}

/// How many records of each arena connections name, as counted by going through all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Named {
    pub actives: u32,
    pub repairs: u32,
    pub spans: u32,
    pub blocks: u32,
    pub peers: u32,
}

impl<S> Shard<S> {
    /// Calls `take` with each connection.
    pub(crate) fn inspect(&self, now: Time, mut take: impl FnMut(Inside)) {
        let tables = &self.batch.tables;
        let slots = &tables.storage.flows.records()[..tables.storage.head().flows_end as usize];
        for (slot, flow) in (0..).zip(slots).filter(|(_, flow)| flow.is_live()) {
            let active = tables.active_of(slot, flow);
            let repair = flow.active().and(active.repair()).map(|it| tables.storage.repairs.records()[it as usize]);
            let pipe_bytes = match repair {
                Some(repair) => repair.pipe(active.snd_una),
                None => active.resend_nxt.since(active.snd_una),
            };
            take(Inside {
                id: tables.id_of(slot, flow),
                state: flow.state(),
                snd_una: active.snd_una.0,
                resend_nxt: active.resend_nxt.0,
                snd_nxt: flow.snd_nxt.0,
                snd_end: active.snd_end.0,
                rcv_nxt: flow.rcv_nxt.0,
                right_edge: flow.rcv_nxt.plus(flow.receive_window()).0,
                pipe_bytes,
                cwnd_bytes: active.cwnd,
                is_probed: repair.is_some_and(|repair| repair.has_probed()),
                mss_bytes: u32::from(flow.mss),
                retries: active.retries,
                rto_ms: active.rto_ms,
                has_active: flow.active().is_some(),
                is_busy: active.is_needed(flow),
                is_armed: active.deadline_ms().is_some(),
                deadline_ms: active.next_deadline(now),
            });
        }
    }

    /// Goes through everything that connections name.
    pub(crate) fn named_records(&self) -> Named {
        let tables = &self.batch.tables;
        let storage = &tables.storage;
        let mut named = Named::default();
        let mut blocks = BTreeSet::new();
        let mut walk = |head: u32, tail: u32| {
            for (_, span) in tcp::chain(&storage.payload, head, tail) {
                blocks.insert(span.block);
                named.spans += 1;
            }
        };
        let slots = &storage.flows.records()[..storage.head().flows_end as usize];
        let flows = || slots.iter().filter(|flow| flow.is_live());
        named.peers = flows().filter(|flow| tables.is_ipv6(flow.local_index())).count() as u32;
        for index in flows().filter_map(tcp::Flow::active) {
            let active = &storage.actives.records()[index as usize];
            named.actives += 1;
            walk(active.send_head, active.send_tail);
            walk(active.recv_head, active.recv_tail);
            if let Some(repair) = active.repair() {
                named.repairs += 1;
                storage.repairs.records()[repair as usize].held().iter().for_each(|range| walk(range.head, range.tail));
            }
        }
        named.blocks = blocks.len() as u32;
        named
    }
}
