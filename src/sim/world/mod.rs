//! The loop of a world: from event to event until everything is over, or something is wrong.
//!
//! Events are frames that arrive, the shard's deadline, the clients' clocks, scripted pushes and closes, kills and
//! restarts. A world has three phases: faults until `heal_at_us`; then none, and every connection has to finish in
//! bounded time; then what nobody ends by himself (clients that have gone without a word) is reset, and the shard has
//! to be empty when TIME-WAIT is over.
//!
//! Invariant: time only jumps from one event to the next, and events at the same time have one order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use strum::IntoEnumIterator;

use crate::shard::{CloseHow, FlowId, Stats, Time};

use super::client::Client;
use super::clock::Clock;
use super::host::Findings;
use super::invariants::{Invariant, Invariants};
use super::ledger::Ledger;
use super::middlebox::Middlebox;
use super::network::Network;
use super::node::Node;
use super::profile::{ClockFrom, Ending, Parameters};
use super::report::{Breach, Report, Statistics};
use super::trace::Trace;
use super::wiretap::Wiretap;

mod carriage;
mod client_side;
mod script;
mod server;

/// A lie that is told to the checkers once, so that they can be seen to find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// What is seen inside a shard breaks this.
    Break(Invariant),
    /// The service seems not to have been told of the end of a stream.
    SwallowStreamEnd,
    /// A client's receipt is given twice.
    RepeatOwnReceipt,
    /// A client's receipt is for more than the node has acknowledged.
    HurryOwnReceipt,
    /// Connections are given no names.
    WithholdNames,
    /// A segment of the node seems to be a reset.
    SendReset,
    /// One bit of what a client received is flipped.
    FlipDeliveredBit,
    /// One piece of what a client received is given twice.
    RepeatDeliveredBytes,
    /// A client's stream seems to end early.
    EndEarly,
    /// A client seems to be reset.
    ResetClient,
    /// A receipt is withheld.
    SwallowReceipt,
    /// A receipt is given twice.
    RepeatReceipt,
    /// The answer to a push is withheld.
    SwallowQueued,
    /// A connection seems to be missing after a restart.
    HideFlow,
    /// The shard seems to hold one payload block in the end.
    LeakBlock,
    /// The shard seems to hold the address of one peer in the end.
    LeakPeer,
    /// A segment of the node has one bit of its payload flipped before it is looked at.
    SpoilSegment,
}

impl Sabotage {
    /// All of them.
    pub fn all() -> Vec<Sabotage> {
        let others = [
            Sabotage::SwallowStreamEnd,
            Sabotage::RepeatOwnReceipt,
            Sabotage::HurryOwnReceipt,
            Sabotage::WithholdNames,
            Sabotage::SendReset,
            Sabotage::FlipDeliveredBit,
            Sabotage::RepeatDeliveredBytes,
            Sabotage::EndEarly,
            Sabotage::ResetClient,
            Sabotage::SwallowReceipt,
            Sabotage::RepeatReceipt,
            Sabotage::SwallowQueued,
            Sabotage::HideFlow,
            Sabotage::LeakBlock,
            Sabotage::LeakPeer,
            Sabotage::SpoilSegment,
        ];
        Invariant::iter().map(Sabotage::Break).chain(others).collect()
    }
}

/// A world.
pub struct World {
    parameters: Parameters,
    now_us: u64,
    random: Xoshiro256PlusPlus,
    network: Network,
    middleboxes: Vec<Option<Middlebox>>,
    clients: Vec<Client>,
    /// Which client and which of its applications a connection's number means.
    seats: Vec<(usize, usize)>,
    /// Clients to which something has arrived.
    are_called: Vec<bool>,
    node: Node,
    findings: Rc<RefCell<Findings>>,
    ledgers: Vec<Ledger>,
    wiretaps: Vec<Wiretap>,
    numbers: BTreeMap<FlowId, usize>,
    actions: BTreeMap<(u64, u64), Action>,
    action_count: u64,
    /// Which life of the process this is.
    life: u64,
    is_kill_between: bool,
    /// Whether the batch in which the process died last had its record complete.
    is_death_committed: bool,
    /// How long the machine will be down after the kill that is armed.
    downtime_us: u64,
    /// Which kill strikes again after the next start, and how often still.
    kill_again: Option<(usize, u32)>,
    is_healed: bool,
    inbox: Vec<Vec<u8>>,
    inbox_due_us: Option<u64>,
    /// When a link that was full takes frames again.
    link_free_us: Option<u64>,
    ticket_count: u64,
    sabotage: Option<Sabotage>,
    statistics: Statistics,
    trace: Trace,
    invariants: Invariants,
    /// The node's clock.
    clock: Clock,
    /// A deadline of the shard's, and when it is called for that.
    tick_due: Option<(Time, u64)>,
}

/// What the node's clock has to show when the world begins.
fn clock_offset_us(parameters: &Parameters, node: &Node, ledgers: &[Ledger]) -> u64 {
    const US_PER_NUMBER: u64 = 4;
    match parameters.node.clock_from {
        ClockFrom::At(at_us) => at_us,
        ClockFrom::Wrap { connection, before } => {
            let connection = connection % ledgers.len();
            let starts = parameters.clients.iter().flat_map(|client| &client.connections);
            let start_us = starts.map(|it| it.start_us).nth(connection).unwrap_or(0);
            // Two ways for the question where the node is, one for the SYN.
            let asked_us = start_us + 3 * parameters.network.delay_us.1 + parameters.node.gather_us;
            let isn = node.initial_sequence_number(ledgers[connection].remote, Time(asked_us));
            u64::from(before.wrapping_neg().wrapping_sub(isn)) * US_PER_NUMBER
        }
    }
}

/// Something that the script or a fault has set for a time.
#[derive(Clone, Copy, Debug)]
enum Action {
    Push { number: usize, bytes: usize },
    Close { number: usize, how: CloseHow },
    Offer { number: usize },
    Kill { index: usize },
    Restart,
    Heal,
}

/// How long everything may take to finish once all faults have ended: some of the longest RTOs, and the slow readers.
const FINISH_US: u64 = 400_000_000;
/// The same where payload blocks are scarce: bytes within an offered window are dropped for want of a block, and a peer
/// whose every round trip is a repetition waits for its longest RTO each time. Slow, but it has to end.
const FINISH_TIGHT_US: u64 = 10_000_000_000;
/// How long the shard may then take to be empty: TIME-WAIT, FIN-WAIT-2 and half-open flows of late duplicates.
const DRAIN_US: u64 = 700_000_000;
/// More events than this at one time are no progress.
const EVENTS_AT_ONCE_MAX: u32 = 20_000;

impl World {
    /// A world at its beginning. Fails if the shard does not start.
    pub fn new(parameters: Parameters) -> Result<World, Breach> {
        let seed = parameters.seed;
        let (mut clients, mut ledgers, mut seats): (Vec<Client>, _, _) = (Vec::new(), Vec::new(), Vec::new());
        for (index, client) in parameters.clients.iter().enumerate() {
            clients.push(Client::new(index, client, seed, ledgers.len())?);
            let applications = clients[index].progress();
            for (seat, (connection, application)) in client.connections.iter().zip(&applications).enumerate() {
                let mut ledger = Ledger::new(application, connection.workload, seed, &parameters.node);
                ledger.is_successor =
                    seat > 0 && ledgers.last().is_some_and(|before: &Ledger| before.remote == ledger.remote);
                ledgers.push(ledger);
                seats.push((index, seat));
            }
        }
        let findings = Rc::new(RefCell::new(Findings::new(ledgers.len())));
        let node = Node::new(&parameters, Rc::clone(&findings))?;
        let offset_us = clock_offset_us(&parameters, &node, &ledgers);
        let mut world = World {
            now_us: 0,
            random: Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x776f_726c_6400),
            middleboxes: parameters.clients.iter().map(|it| it.middlebox.as_ref().map(Middlebox::new)).collect(),
            clock: Clock::new(offset_us, &parameters.node.clock_stops_us),
            network: Network::new(parameters.network.clone(), seed, clients.len()),
            seats,
            are_called: vec![true; clients.len()],
            wiretaps: ledgers.iter().map(|ledger| Wiretap::new(ledger.is_successor)).collect(),
            clients,
            ledgers,
            node,
            findings,
            numbers: BTreeMap::new(),
            actions: BTreeMap::new(),
            action_count: 0,
            life: 0,
            is_kill_between: false,
            is_death_committed: false,
            downtime_us: 0,
            kill_again: None,
            is_healed: false,
            inbox: Vec::new(),
            inbox_due_us: None,
            link_free_us: None,
            tick_due: None,
            invariants: Invariants::default(),
            ticket_count: 0,
            sabotage: None,
            statistics: Statistics::default(),
            trace: Trace::new(false),
            parameters,
        };
        world.write_script();
        Ok(world)
    }

    /// The same, with one lie.
    #[must_use]
    pub fn with_sabotage(mut self, sabotage: Sabotage) -> World {
        self.sabotage = Some(sabotage);
        self.findings.borrow_mut().is_nameless = sabotage == Sabotage::WithholdNames;
        self
    }

    /// The same, with every event printed to standard output.
    #[must_use]
    pub fn spoken(mut self) -> World {
        self.trace = Trace::new(true);
        self
    }

    /// Runs to the end.
    pub fn run(mut self) -> Report {
        let breach = self.live().err().map(|breach| (self.now_us, breach));
        self.statistics.simulated_us = self.now_us;
        self.statistics.add_rules(&self.node.rules());
        for client in &self.clients {
            self.statistics.add_rules(&client.rules());
        }
        self.count_gaps();
        self.statistics.rescues = self.clients.iter().map(Client::rescues).sum();
        let established = || self.ledgers.iter().filter(|ledger| ledger.is_established());
        self.statistics.connections = established().count() as u64;
        self.statistics.connections_ipv6 = established().filter(|ledger| ledger.remote.is_ipv6()).count() as u64;
        self.statistics.pushes = self.ledgers.iter().map(Ledger::committed_count).sum();
        for wrapped in self.wiretaps.iter().map(Wiretap::wrapped) {
            self.statistics.wraps[0] += u64::from(wrapped.0);
            self.statistics.wraps[1] += u64::from(wrapped.1);
        }
        self.statistics.lies += self.findings.borrow().withheld_names.min(1);
        self.statistics.bytes += self.findings.borrow().consumed_bytes;
        Report { trace_hash: self.trace.hash(), parameters: self.parameters, statistics: self.statistics, breach }
    }

    fn live(&mut self) -> Result<(), Breach> {
        let wait_us = if self.parameters.node.is_tight { FINISH_TIGHT_US } else { FINISH_US };
        let finish_us = self.parameters.heal_at_us + wait_us;
        if !self.run_until(finish_us, |world| world.is_healed && world.unfinished().is_empty())? {
            let connections = self.unfinished();
            return Err(Breach::NotFinished { connections, waited_s: wait_us / 1_000_000 });
        }
        self.reset_the_rest()?;
        let drained_us = self.now_us + DRAIN_US;
        let is_quiet = |world: &mut World| world.shard_stats().flows == 0 && world.network.next_arrival_us().is_none();
        let is_drained = self.run_until(drained_us, is_quiet)?;
        let mut stats = self.shard_stats();
        stats.blocks += u32::from(self.lies(Sabotage::LeakBlock));
        stats.peers += u32::from(self.lies(Sabotage::LeakPeer));
        let Stats { established, half_open, closing, flows, actives, repairs, spans, blocks, peers, .. } = stats;
        if !is_drained || [established, half_open, closing, flows, actives, repairs, spans, blocks, peers] != [0; 9] {
            return Err(Breach::Leaked { stats });
        }
        self.ledgers.iter().try_for_each(Ledger::settle)
    }

    /// Runs from event to event until something is so; false if it is not so by then.
    fn run_until(&mut self, until_us: u64, is_so: impl Fn(&mut World) -> bool) -> Result<bool, Breach> {
        let mut events_at_once = 0;
        while !is_so(self) {
            let Some(next_us) = self.next_event_us().filter(|&next_us| next_us <= until_us) else { return Ok(false) };
            events_at_once = if next_us > self.now_us { 0 } else { events_at_once + 1 };
            if events_at_once > EVENTS_AT_ONCE_MAX {
                return Err(Breach::Spinning { at_us: self.now_us });
            }
            self.now_us = self.now_us.max(next_us);
            self.deliver()?;
            self.act()?;
            self.run_node()?;
            self.run_clients()?;
        }
        Ok(true)
    }

    fn next_event_us(&self) -> Option<u64> {
        let clients = self.clients.iter().enumerate().filter(|&(index, _)| !self.has_vanished(index));
        let client_us = clients.filter_map(|(_, client)| client.wake_us(self.now_us));
        let called_us = self.are_called.contains(&true).then_some(self.now_us);
        let release_us = self.middleboxes.iter().flatten().filter_map(Middlebox::next_release_us).min();
        let action_us = self.actions.keys().next().map(|&(at_us, _)| at_us);
        let network_us = self.network.next_arrival_us();
        let node_us = [self.inbox_due_us, self.link_free_us, self.shard_due_us()].into_iter().flatten().min();
        // Whatever is due while the machine does nothing is due when it goes on.
        let node_us = node_us.map(|at_us| self.pause_end_us(at_us.max(self.now_us)).unwrap_or(at_us));
        let own_us = [called_us, action_us, network_us, release_us, node_us];
        client_us.chain(own_us.into_iter().flatten()).min()
    }

    /// Connections that have something left to do and somebody to do it.
    fn unfinished(&mut self) -> Vec<usize> {
        self.note_vanished();
        let mut open = Vec::new();
        let mut is_port_held = false;
        for (number, ledger) in self.ledgers.iter().enumerate() {
            // A client that has nothing to say never learns of a reset that was lost, and never gives its port away.
            let is_waiting_for_port = ledger.is_successor && !ledger.is_begun && is_port_held;
            let may_be_deaf = ledger.asked_to_close == Some(CloseHow::Reset);
            is_port_held = !ledger.is_over && (may_be_deaf || is_waiting_for_port);
            if !ledger.is_over && !ledger.is_vanished && !is_port_held {
                open.push(number);
            }
        }
        open
    }

    /// The connection that has this client's end now: the last that has begun.
    fn number_of(&self, remote: SocketAddr) -> Option<usize> {
        self.ledgers.iter().rposition(|ledger| ledger.remote == remote && ledger.is_begun)
    }

    /// The connection that a flow with this client's end is: the last whose handshake the client has seen complete.
    fn owner_of(&self, remote: SocketAddr) -> Option<usize> {
        self.ledgers.iter().rposition(|ledger| ledger.remote == remote && ledger.is_established())
    }

    /// Whether this lie is to be told now; it is told once.
    fn lies(&mut self, sabotage: Sabotage) -> bool {
        let is_time = self.sabotage == Some(sabotage);
        if is_time {
            self.sabotage = None;
            self.statistics.lies += 1;
        }
        is_time
    }
}
