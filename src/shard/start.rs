//! A shard starts: on an empty storage, or on one that a process left behind.
//!
//! The log is brought to its end, every flow is checked and entered into what is rebuilt, and the service is told of
//! each. A state that contradicts itself is refused: better no start than a wrong byte.

use super::addresses::is_host;
use super::batch::Batch;
use super::commit::{self, LogEnd};
use super::config::Config;
use super::hops::{GATEWAY_IPV4, GATEWAY_IPV6, NEIGHBORS_START};
use super::service::Service;
use super::tables::Tables;
use super::types::{Effort, Resumption};
use super::{BATCH_MAX, Shard, StartError};
use crate::flows::{Address, JOBS_MAX, JobState, LOCALS_MAX, NEXT_HOPS_MAX, NextHop, PushKeys, Storage};
use crate::tcp::{Active, COOKIE_LIFE_S, Flow, Keepalive, State, Time};

impl<S: Service> Shard<S> {
    /// Starts at `now`, which must not be earlier than the storage's last time. `secret` keys index and sequence
    /// numbers of a fresh storage; another one has its own. Errors: the configuration, or what the storage holds, is
    /// impossible.
    pub fn new(
        config: Config,
        storage: Storage,
        service: S,
        secret: [u8; 32],
        now: Time,
    ) -> Result<Shard<S>, StartError> {
        let mut shard = Shard::open(config, storage, service, secret, now)?;
        shard.tell_all_resumed(now);
        Ok(shard)
    }

    /// The first half of a start: the service is told of nothing yet, and nothing is committed. Worlds call the halves
    /// apart, to kill the process in the second.
    pub(crate) fn open(
        config: Config,
        mut storage: Storage,
        service: S,
        secret: [u8; 32],
        now: Time,
    ) -> Result<Shard<S>, StartError> {
        config.check()?;
        let is_fresh = storage.is_fresh();
        storage.enter_place(config.shard, config.shards)?;
        let log_end = if is_fresh {
            storage.head_mut().secret = secret;
            LogEnd::Clean
        } else {
            commit::recover(&mut storage).map_err(|what| storage.broken(what))?
        };
        enter_locals(&config, &mut storage, is_fresh)?;
        enter_gateways(&config, &mut storage, is_fresh);
        storage.head_mut().starts += 1;
        let mut tables = Tables::new(config, storage, now)?;
        let connections = if is_fresh { 0 } else { rebuild(&mut tables, now)? };
        tables.rebuild_hops();
        if !is_fresh {
            // The process before may have sent cookies.
            tables.cookies_until = now.plus_ms(u64::from(COOKIE_LIFE_S) * 1_000);
        }
        if connections > 0 {
            // Some may have been waiting for an active block to close.
            tables.await_clock_hand();
        }
        let resumption = Resumption {
            is_fresh,
            connections,
            records_discarded: u32::from(log_end == LogEnd::Discarded),
            records_applied_again: u32::from(log_end == LogEnd::AppliedAgain),
        };
        Ok(Shard {
            batch: Batch::new(tables),
            service,
            resumption,
            tickets: Vec::new(),
            piece: Vec::new(),
            due: Vec::new(),
            strays: Vec::new(),
            arp_at: now,
            trim_at: now,
            has_untrimmed: true,
            effort: Effort::default(),
        })
    }

    /// The second half.
    pub(crate) fn tell_all_resumed(&mut self, now: Time) {
        let end = self.batch.tables.storage.head().flows_end;
        let mut slot = 0;
        while slot < end {
            self.in_batch(now, |shard| {
                let mut told = 0;
                while slot < end && told < BATCH_MAX {
                    told += usize::from(shard.tell_slot_resumed(slot));
                    slot += 1;
                }
            });
        }
    }

    fn tell_slot_resumed(&mut self, slot: u32) -> bool {
        let flow = &self.batch.tables.storage.flows.records()[slot as usize];
        let is_open = flow.is_live() && !matches!(flow.state(), State::SynSent | State::SynReceived);
        if is_open {
            let id = self.batch.tables.id_of(slot, flow);
            self.tell(|service, context| service.resumed(context, id));
        } else if flow.is_live() && flow.state() == State::SynSent {
            // Its SYN may have waited for the answer to an ARP request, and have died with that. One that was repeated
            // since has a timer that does so again.
            let is_known = self.batch.tables.next_hop(flow.next_hop).is_known == 1;
            if !(is_known && self.batch.tables.active_of(slot, flow).retries > 0) {
                self.batch.tables.connecting.push(slot);
            }
        }
        is_open
    }
}

/// Our addresses keep the numbers that flows know them by; new ones are added.
fn enter_locals(config: &Config, storage: &mut Storage, is_fresh: bool) -> Result<(), StartError> {
    let known = if is_fresh { 0 } else { storage.head().locals_count as usize };
    if known > LOCALS_MAX {
        return Err(storage.broken(format!("{known} addresses of its own")).into());
    }
    for &local in &storage.head().locals[..known] {
        let Some(address) = local.ip() else {
            return Err(storage.broken("no address where one of its own should be").into());
        };
        if !config.addresses.iter().any(|&(given, _)| given == address) {
            return Err(StartError::Config(format!(
                "the state has connections on {address}: give --address {address} again"
            )));
        }
    }
    let head = storage.head_mut();
    let mut count = known;
    for (address, _) in &config.addresses {
        let local = Address::from(*address);
        if head.locals[..count].contains(&local) {
            continue;
        }
        if count == LOCALS_MAX {
            return Err(StartError::Config(format!("a shard has at most {LOCALS_MAX} addresses")));
        }
        head.locals[count] = local;
        count += 1;
    }
    head.locals_count = count as u32;
    Ok(())
}

/// The first next hops are the gateways, whether there are any or not.
fn enter_gateways(config: &Config, storage: &mut Storage, is_fresh: bool) {
    for index in [GATEWAY_IPV4, GATEWAY_IPV6] {
        let mut gateways = config.gateways.iter().copied();
        let asked = gateways.find(|it| it.is_ipv6() == (index == GATEWAY_IPV6)).map_or(Address::NONE, Address::from);
        let hop = &mut storage.next_hops.records_mut()[usize::from(index)];
        if is_fresh || hop.asked != asked {
            // A router that has told of itself may still be where it was; it is asked for again.
            let known = if asked == Address::NONE && !is_fresh { *hop } else { NextHop::default() };
            *hop = NextHop { asked, ..known };
        }
    }
    let head = storage.head_mut();
    head.next_hops_end = head.next_hops_end.max(u32::from(NEIGHBORS_START));
}

/// Checks every flow and enters it into what is rebuilt. Returns how many connections there are.
fn rebuild(tables: &mut Tables, now: Time) -> Result<u32, StartError> {
    let head = *tables.storage.head();
    let capacity = tables.storage.capacity();
    if head.flows_end > capacity.flows || head.next_hops_end > NEXT_HOPS_MAX {
        return Err(tables.storage.broken("its tables end beyond their capacity").into());
    }
    for slot in 0..head.flows_end {
        let flow = tables.storage.flows.records()[slot as usize];
        let impossible = |what: &str| format!("connection {slot} has {what}");
        if !flow.is_valid() {
            return Err(tables.storage.broken(impossible("an impossible state")).into());
        }
        tables.storage.flows.touch(slot);
        if !flow.is_live() {
            continue;
        }
        let is_known =
            u32::from(flow.local_index()) < head.locals_count && u32::from(flow.next_hop) < head.next_hops_end;
        if !is_known || !rebuild_peer(tables, &flow) {
            return Err(tables.storage.broken(impossible("an impossible address")).into());
        }
        let key = tables.key_of(&flow);
        let hash = tables.hash(&key);
        if tables.find(hash, &key).is_some() {
            return Err(tables.storage.broken(impossible("the addresses and ports of another")).into());
        }
        tables.flow_slots.take(slot);
        tables.insert(hash, slot);
        tables.states[flow.state() as usize] += 1;
        tables.has_kept_alive |= flow.keepalive() == Keepalive::On;
        if let Some(index) = flow.active() {
            rebuild_active(tables, slot, index, now)
                .map_err(|what| StartError::from(tables.storage.broken(impossible(what))))?;
        } else if matches!(flow.state(), State::SynSent | State::SynReceived) {
            return Err(tables.storage.broken(impossible("no active block")).into());
        }
    }
    rebuild_records(tables, now)?;
    Ok(tables.flow_slots.used())
}

/// The record of the peer's address, where it has one, is this flow's and nobody else's. Returns whether that can be.
fn rebuild_peer(tables: &mut Tables, flow: &Flow) -> bool {
    if !tables.is_ipv6(flow.local_index()) {
        return true;
    }
    let index = flow.remote_address;
    let is_free = index < tables.peer_slots.capacity() && tables.peer_slots.take(index);
    if is_free {
        tables.storage.peers.touch(index);
    }
    is_free && is_host(tables.remote(flow))
}

fn rebuild_active(tables: &mut Tables, slot: u32, index: u32, now: Time) -> Result<(), &'static str> {
    let is_free = index < tables.active_slots.capacity() && tables.active_slots.take(index);
    if !is_free {
        return Err("an active block that is not its own");
    }
    let active = tables.storage.actives.records()[index as usize];
    if active.flow != slot {
        return Err("an active block of another");
    }
    tables.storage.actives.touch(index);
    tables.storage.payload.adopt(&active).map_err(|_| "a broken queue")?;
    if let Some(repair_index) = active.repair() {
        rebuild_repair(tables, slot, index, repair_index, &active)?;
    }
    if let Some(deadline_ms) = active.next_deadline(now) {
        tables.wheel.enter(index, deadline_ms);
    }
    Ok(())
}

fn rebuild_repair(
    tables: &mut Tables,
    slot: u32,
    active_index: u32,
    index: u32,
    active: &Active,
) -> Result<(), &'static str> {
    let is_free = index < tables.repair_slots.capacity() && tables.repair_slots.take(index);
    if !is_free {
        return Err("a repair block that is not its own");
    }
    tables.storage.repairs.touch(index);
    let repair = tables.storage.repairs.records()[index as usize];
    let flow = &tables.storage.flows.records()[slot as usize];
    if repair.active != active_index || !repair.is_valid(active.snd_una, flow.snd_nxt) {
        return Err("a broken repair block");
    }
    let spans_before = tables.storage.payload.used().0;
    for range in repair.held() {
        let bytes = tables.storage.payload.adopt_queue(range.head, range.tail);
        if bytes != Ok(range.end.since(range.start)) {
            return Err("a broken queue beyond a gap");
        }
    }
    if tables.storage.payload.used().0 - spans_before != u32::from(repair.held_spans()) {
        return Err("a wrong number of pieces beyond a gap");
    }
    Ok(())
}

/// Finds idempotency keys and broadcast jobs again.
fn rebuild_records(tables: &mut Tables, now: Time) -> Result<(), StartError> {
    tables.push_keys = PushKeys::rebuild(tables.storage.keys.records());
    for index in 0..JOBS_MAX as usize {
        let job = tables.storage.jobs.records()[index];
        tables.jobs.set_ticket(index, job.ticket);
        if job.state() != JobState::Running {
            continue;
        }
        tables.jobs.times[index] = Some(now);
        if tables.storage.payload.adopt_queue(job.head, job.tail) != Ok(job.bytes) {
            return Err(tables.storage.broken(format!("broadcast {} has a broken queue", job.id)).into());
        }
    }
    Ok(())
}
