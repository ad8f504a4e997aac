//! The tables: everything a shard keeps between batches.
//!
//! The storage, and beside it what is rebuilt at each start: index, taken slots, wheel, clock hand, counts. Reading
//! them here sees what is committed; the open batch has its own copies of what it changes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use siphasher::sip::SipHasher24;
use strum::EnumCount;

use super::addresses::no_peers;
use super::broadcast::Jobs;
use super::config::Config;
use super::destinations::Destinations;
use super::fragments::Fragments;
use super::hops::Hops;
use super::lookup::Lookups;
use super::neighbors::ProblemBudget;
use super::routers::Routers;
use super::trace::Trace;
use super::types::{ArenaUse, FlowView, Stats};
use crate::flows::{
    Address, Attachment, BLOCK_BYTES, ClockHand, FlowId, Index, KeyHasher, PushKeys, Slots, Storage, StorageError,
    Wheel,
};
use crate::tcp::{Active, Flow, Offer, Repair, Rule, Span, State, Time};

/// Rounds of the clock hand until it has looked everywhere, the one it is in not counted.
const STARVED_ROUNDS: u8 = 2;

/// See the module.
pub(super) struct Tables {
    pub config: Config,
    /// What we offer to peers over IPv4 and over IPv6.
    offers: [Offer; 2],
    pub storage: Storage,
    pub index: Index,
    pub flow_slots: Slots,
    pub active_slots: Slots,
    pub repair_slots: Slots,
    /// Records of addresses of peers over IPv6.
    pub peer_slots: Slots,
    pub wheel: Wheel,
    pub hand: ClockHand,
    /// Connections by state.
    pub states: [u32; State::COUNT],
    pub rules: [u64; Rule::COUNT],
    /// How often the clock hand is still to begin a round because of FINs that wait for an active block, or services
    /// that found no room for a push.
    pub starved_rounds: u8,
    /// Some connection has asked to be kept alive; it may be over.
    pub has_kept_alive: bool,
    /// From now on SYNs are answered by RST.
    pub is_draining: bool,
    /// Until when an ACK out of nowhere may bring back a cookie.
    pub cookies_until: Time,
    /// Connections that have asked for their peer's Ethernet address before they send a SYN.
    pub connecting: Vec<u32>,
    /// The last ticket of a push by the service.
    pub service_tickets: u64,
    pub push_keys: PushKeys,
    pub jobs: Jobs,
    pub frames_in: u64,
    pub frames_out: u64,
    /// What is noted of each frame, while somebody wants to know.
    pub trace: Option<Box<Trace>>,
    /// Our addresses, by the index that flows name them by, and which of them are of IPv6, as bits.
    pub locals: Vec<IpAddr>,
    pub ipv6_locals: u64,
    /// What no peer over IPv4 has: our addresses and the broadcast addresses of our networks.
    pub no_peers: Vec<u32>,
    /// Our link-local address, where there is any IPv6; nothing listens on it unless it was given.
    pub link_local: Option<Ipv6Addr>,
    pub routers: Routers,
    pub destinations: Destinations,
    pub fragments: Fragments,
    pub problems: ProblemBudget,
    /// For the index, and for all that others see.
    pub hasher: KeyHasher,
    pub isn_hasher: SipHasher24,
    pub hops: Hops,
    pub lookups: Lookups,
}

impl Tables {
    /// Over a storage whose content is not read yet. Errors: the index cannot be had.
    pub fn new(config: Config, storage: Storage, now: Time) -> Result<Tables, StorageError> {
        let (head, capacity) = (*storage.head(), storage.capacity());
        let (index_secret, isn_secret) = head.secret.split_at(16);
        let key = |half: &[u8]| <[u8; 16]>::try_from(half).expect("a secret is two keys of 16 bytes");
        let locals: Vec<IpAddr> =
            head.locals[..head.locals_count as usize].iter().filter_map(|local| local.ip()).collect();
        let ipv6_bits = locals.iter().enumerate().map(|(index, local)| u64::from(local.is_ipv6()) << index);
        let offer = |headers_bytes, mss_default, mtu_min| Offer {
            mss: config.mtu.saturating_sub(headers_bytes),
            path_mss: config.mtu.saturating_sub(headers_bytes),
            mss_default,
            headers_bytes,
            mtu_min,
            window_bytes: config.window_bytes,
            delayed_ack_ms: config.delayed_ack_ms,
            congestion: config.congestion,
            ecn: config.ecn,
        };
        Ok(Tables {
            offers: [offer(40, 536, 552), offer(60, 1_220, 1_280)],
            ipv6_locals: ipv6_bits.sum(),
            no_peers: no_peers(&config, &locals),
            locals,
            link_local: config.link_local(),
            routers: Routers::new(&config, now),
            destinations: Destinations::default(),
            fragments: Fragments::default(),
            problems: ProblemBudget::default(),
            index: Index::new(capacity.flows, head.flows_end.min(capacity.flows))?,
            flow_slots: Slots::new(capacity.flows),
            active_slots: Slots::new(capacity.actives),
            repair_slots: Slots::new(capacity.repairs()),
            peer_slots: Slots::new(capacity.flows),
            wheel: Wheel::new(now, capacity.actives),
            hand: ClockHand::new(now),
            states: [0; State::COUNT],
            rules: [0; Rule::COUNT],
            starved_rounds: 0,
            has_kept_alive: false,
            is_draining: false,
            cookies_until: Time(0),
            connecting: Vec::new(),
            service_tickets: (head.starts & 0x7fff) << 48 | u64::from(config.shard) << 40,
            push_keys: PushKeys::rebuild(&[]),
            jobs: Jobs::default(),
            frames_in: 0,
            frames_out: 0,
            trace: None,
            hasher: KeyHasher::new(&key(index_secret)),
            isn_hasher: SipHasher24::new_with_key(&key(isn_secret)),
            hops: Hops::default(),
            lookups: Lookups::default(),
            config,
            storage,
        })
    }

    /// Counts a decision.
    #[inline]
    pub fn count(&mut self, rule: Rule) {
        self.rules[rule as usize] += 1;
        self.trace_rule(rule);
    }

    /// Something waits for the clock hand to pass.
    pub fn await_clock_hand(&mut self) {
        self.starved_rounds = STARVED_ROUNDS;
    }

    /// What we offer to peers of a connection on this address of ours.
    #[inline]
    pub fn offer(&self, local_index: u8) -> Offer {
        self.offers[usize::from(self.is_ipv6(local_index))]
    }

    /// Whether there are so many half-open connections that those nobody answers for are given up early.
    pub fn is_half_full(&self) -> bool {
        self.in_state(State::SynReceived) > self.config.half_open_max / 2
    }

    /// Whether an id is one of a connection that is or was. Generations only grow.
    pub fn was_given_out(&self, id: FlowId) -> bool {
        let is_in_table = id.shard() == self.config.shard && id.slot() < self.storage.head().flows_end;
        let is_past = || id.generation() < self.storage.flows.records()[id.slot() as usize].generation();
        is_in_table && (self.flow_of(id).is_some() || is_past())
    }

    /// The committed connection that has this id.
    pub fn flow_of(&self, id: FlowId) -> Option<&Flow> {
        let flow = self.storage.flows.records().get(id.slot() as usize)?;
        (flow.is_live() && self.id_of(id.slot(), flow) == id).then_some(flow)
    }

    /// The active block of a flow, or what it would be.
    #[inline]
    pub fn active_of(&self, slot: u32, flow: &Flow) -> Active {
        match flow.active() {
            Some(index) => self.storage.actives.records()[index as usize],
            None => Active::quiet(slot, flow),
        }
    }

    /// The id of the connection in a slot.
    pub fn id_of(&self, slot: u32, flow: &Flow) -> FlowId {
        FlowId::new(self.config.shard, flow.generation(), slot)
    }

    /// Both ends of a connection.
    pub fn ends_of(&self, flow: &Flow) -> (SocketAddr, SocketAddr) {
        let local = self.local(flow.local_index());
        (SocketAddr::new(local, flow.local_port), SocketAddr::new(self.remote(flow), flow.remote_port))
    }

    /// A committed connection as it looks from outside.
    pub fn view(&self, slot: u32, now: Time) -> Option<FlowView> {
        let flow = self.storage.flows.records().get(slot as usize).filter(|flow| flow.is_live())?;
        let active = self.active_of(slot, flow);
        let (local, remote) = self.ends_of(flow);
        Some(FlowView {
            id: self.id_of(slot, flow),
            local,
            remote,
            state: flow.state(),
            opened_s_ago: now.seconds().saturating_sub(flow.opened_s),
            idle_s: now.seconds().saturating_sub(flow.heard_s),
            srtt_us: active.srtt_us(),
            unacked_bytes: active.queued_bytes(),
            is_paused: flow.is_paused(),
        })
    }

    /// Connections in a state.
    pub fn in_state(&self, state: State) -> u32 {
        self.states[state as usize]
    }

    /// The counts.
    pub fn stats(&self) -> Stats {
        let (spans, blocks) = self.storage.payload.used();
        let flows = self.flow_slots.used();
        let half_open = self.in_state(State::SynReceived) + self.in_state(State::SynSent);
        let established = self.in_state(State::Established);
        Stats {
            flows,
            half_open,
            established,
            closing: flows.saturating_sub(half_open + established),
            actives: self.active_slots.used(),
            repairs: self.repair_slots.used(),
            spans,
            blocks,
            peers: self.peer_slots.used(),
            batches: self.storage.head().applied,
            frames_in: self.frames_in,
            frames_out: self.frames_out,
        }
    }

    /// How much of each arena is used.
    pub fn memory(&self) -> [ArenaUse; 7] {
        let capacity = self.storage.capacity();
        let (spans, blocks) = self.storage.payload.used();
        let arena = |name, used: u32, capacity: u32, record_bytes: usize| ArenaUse {
            name,
            used: u64::from(used),
            capacity: u64::from(capacity),
            record_bytes: record_bytes as u64,
        };
        [
            arena("flows", self.flow_slots.used(), capacity.flows, size_of::<Flow>()),
            arena("actives", self.active_slots.used(), capacity.actives, size_of::<Active>()),
            arena("repairs", self.repair_slots.used(), capacity.repairs(), size_of::<Repair>()),
            arena("peers", self.peer_slots.used(), capacity.flows, size_of::<Address>()),
            arena("spans", spans, capacity.spans, size_of::<Span>()),
            arena("blocks", blocks, capacity.blocks, BLOCK_BYTES),
            arena("attachments", self.storage.attachments.touched_end(), capacity.flows, size_of::<Attachment>()),
        ]
    }

    /// The name of the committed connection in a slot.
    pub fn name_at(&self, slot: u32) -> Option<&[u8]> {
        let has_attachment = self.storage.flows.records()[slot as usize].has_attachment();
        if has_attachment { self.storage.attachments.records()[slot as usize].name() } else { None }
    }
}
