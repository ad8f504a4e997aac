//! The machine under test: a shard that can be killed at any commit point and started again on what it left.
//!
//! The world calls the shard through [`Node::call`]; a call may end with the death of the process. What a dead shard
//! had not handed out is gone with it, its storage is not.
//!
//! Invariant: a kill prints nothing and unwinds only through the shard; whatever else unwinds is a defect of the
//! shard and is reported as one.

use std::any::Any;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use strum::{EnumCount, IntoEnumIterator};

use crate::shard::{Capacity, CommitPoint, Config, Resumption, Rule, Shard, Storage, Time};

use super::client::{self, NODE_IPV4, NODE_IPV6, NODE_PORT, prefix};
use super::host::{Findings, Host};
use super::network::NODE_MAC;
use super::profile::{NodeParameters, Operation, Parameters, Strike};
use super::report::Breach;

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Called {
    /// As it should.
    Returned,
    /// The process was killed at this point of a commit.
    Killed(CommitPoint),
}

/// The machine.
pub(super) struct Node {
    config: Config,
    secret: [u8; 32],
    seed: u64,
    connection_count: usize,
    findings: Rc<RefCell<Findings>>,
    trigger: Arc<Mutex<Trigger>>,
    rules: [u64; Rule::COUNT],
    shard: Option<Shard<Host>>,
    storage: Option<Storage>,
}

/// When the next kill within a commit strikes, and what the shard is called for.
#[derive(Default)]
struct Trigger {
    armed: Option<Strike>,
    operation: Option<Operation>,
}

/// What unwinds through a killed shard.
struct Killed(CommitPoint);

impl Node {
    /// A machine that has never run.
    pub(super) fn new(parameters: &Parameters, findings: Rc<RefCell<Findings>>) -> Result<Node, Breach> {
        let connection_count = parameters.connection_count();
        let mut secret = [0x5a; 32];
        secret[..8].copy_from_slice(&parameters.seed.to_le_bytes());
        let mut node = Node {
            config: config(&parameters.node),
            secret,
            seed: parameters.seed,
            connection_count,
            findings,
            trigger: Arc::default(),
            rules: [0; Rule::COUNT],
            shard: None,
            storage: None,
        };
        let (actives, spans, blocks) = parameters.node.capacity;
        let capacity = Capacity { flows: parameters.node.flows_max, actives, spans, blocks };
        let storage = Storage::in_memory_logged(capacity).map_err(|error| not_started(&error))?;
        node.storage = Some(storage);
        node.start(Time(0))?;
        Ok(node)
    }

    /// Starts the process on what the last one left.
    pub(super) fn start(&mut self, now: Time) -> Result<(Called, Resumption), Breach> {
        let storage = self.storage.take().expect("a machine is started only while it is down");
        let host = Host::new(self.seed, self.connection_count, Rc::clone(&self.findings));
        let (config, secret) = (self.config.clone(), self.secret);
        let started = catch_unwind(AssertUnwindSafe(|| Shard::open(config, storage, host, secret, now)));
        let mut shard = started.map_err(|payload| panicked(&*payload))?.map_err(|error| not_started(&error))?;
        let trigger = Arc::clone(&self.trigger);
        shard.set_interrupt(Some(Box::new(move |point| strike(&trigger, point))));
        let resumption = shard.resumption();
        self.shard = Some(shard);
        let (called, _) = self.call(Operation::Resume, |shard| shard.tell_all_resumed(now))?;
        Ok((called, resumption))
    }

    /// The shard, while the machine is up.
    pub(super) fn shard(&self) -> Option<&Shard<Host>> {
        self.shard.as_ref()
    }

    /// The initial sequence number that a client's connection would get at this time.
    pub(super) fn initial_sequence_number(&self, remote: SocketAddr, now: Time) -> u32 {
        let shard = self.shard.as_ref().expect("the machine has just been started");
        shard.initial_sequence_number(client::server(remote), remote, now)
    }

    /// Whether the machine is up.
    pub(super) fn is_up(&self) -> bool {
        self.shard.is_some()
    }

    /// Arms the next kill within a commit, or disarms it.
    pub(super) fn arm(&self, strike: Option<Strike>) {
        self.trigger.lock().unwrap_or_else(PoisonError::into_inner).armed = strike;
    }

    /// Calls the shard. The machine must be up.
    pub(super) fn call<R>(
        &mut self,
        operation: Operation,
        call: impl FnOnce(&mut Shard<Host>) -> R,
    ) -> Result<(Called, Option<R>), Breach> {
        self.trigger.lock().unwrap_or_else(PoisonError::into_inner).operation = Some(operation);
        let shard = self.shard.as_mut().expect("only a running shard is called");
        match catch_unwind(AssertUnwindSafe(|| call(shard))) {
            Ok(result) => Ok((Called::Returned, Some(result))),
            Err(payload) => match payload.downcast_ref::<Killed>() {
                Some(&Killed(point)) => {
                    self.kill();
                    Ok((Called::Killed(point), None))
                }
                None => Err(panicked(&*payload)),
            },
        }
    }

    /// Kills the process where it stands.
    pub(super) fn kill(&mut self) {
        self.arm(None);
        self.add_rules();
        self.storage = self.shard.take().map(Shard::into_storage);
    }

    /// How often each rule decided, in this life of the process and those before.
    pub(super) fn rules(&mut self) -> [u64; Rule::COUNT] {
        self.add_rules();
        self.rules
    }

    fn add_rules(&mut self) {
        if let Some(shard) = &self.shard {
            Rule::iter().zip(&mut self.rules).for_each(|(rule, sum)| *sum += shard.rule_count(rule));
        }
    }
}

fn config(parameters: &NodeParameters) -> Config {
    let mut addresses = vec![(NODE_IPV4.into(), prefix(NODE_IPV4.into()))];
    if parameters.is_dual {
        addresses.push((NODE_IPV6.into(), prefix(NODE_IPV6.into())));
    }
    Config {
        addresses,
        mac: NODE_MAC,
        mtu: parameters.mtu,
        window_bytes: parameters.window_bytes,
        send_queue_bytes: parameters.send_queue_bytes,
        time_wait_s: parameters.time_wait_s,
        keepalive_s: parameters.keepalive_s,
        // No outage of a client that comes back lasts for as long, nor does a middlebox drop as many in a row.
        keepalive_probes: 60,
        fin_wait_2_s: 300,
        // A repeated ACK may open an ended connection again by its cookie, for which the ledger has no word.
        syn_cookies: false,
        ..Config::new(NODE_IPV4, prefix(NODE_IPV4.into()), &[NODE_PORT])
    }
}

fn strike(trigger: &Mutex<Trigger>, point: CommitPoint) {
    let mut trigger = trigger.lock().unwrap_or_else(PoisonError::into_inner);
    let Trigger { armed, operation } = &mut *trigger;
    if let Some(Strike { point: at, offers, during }) = armed.as_mut()
        && *at == point
        && (during.is_none() || during == operation)
    {
        *offers = offers.saturating_sub(1);
        if *offers == 0 {
            *armed = None;
            drop(trigger);
            resume_unwind(Box::new(Killed(point)));
        }
    }
}

pub(super) fn panicked(payload: &(dyn Any + Send)) -> Breach {
    let message = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|message| (*message).to_owned()));
    Breach::Panicked { message: message.unwrap_or_else(|| "with something that is no sentence".to_owned()) }
}

pub(super) fn not_started(error: &dyn std::error::Error) -> Breach {
    Breach::NotStarted { message: error.to_string() }
}
