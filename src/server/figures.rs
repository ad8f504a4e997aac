//! Figures: what shards and workers count, and all of them together.
//!
//! Comes in: the figures of each shard and of each worker, taken one after the other. Goes out: their sums, and which
//! worker drives which shard.
//!
//! Invariant: what is summed is destructured, so that a new figure does not build until someone has decided about it.

use strum::{EnumCount, IntoEnumIterator};

use crate::link::Count;
use crate::shard::{ArenaUse, CloseReason, Rule, State, Stats};

use super::histogram::Histogram;

/// Everything that is counted for a shard.
#[derive(Clone, Debug)]
pub(super) struct ShardFigures {
    pub(super) shard: u8,
    /// Who drives it.
    pub(super) worker: usize,
    pub(super) stats: Stats,
    pub(super) states: Vec<(State, u32)>,
    pub(super) rules: Vec<(Rule, u64)>,
    pub(super) memory: Vec<ArenaUse>,
    pub(super) told: Counts,
    pub(super) is_draining: bool,
    pub(super) delivery: Histogram,
}

/// Everything that is counted for a worker.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkerFigures {
    pub(super) worker: usize,
    pub(super) passes: u64,
    pub(super) frames_lost: u64,
    /// Frames that it has received for shards of other workers.
    pub(super) handed_over: u64,
    /// What its link counts beside.
    pub(super) link: Vec<Count>,
    pub(super) step: Histogram,
}

/// A server's figures.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// The sums over all shards.
    pub(super) whole: ShardFigures,
    /// The sums over all workers.
    pub(super) worker: WorkerFigures,
    /// Shard, who drives it, its connections.
    pub(super) shards: Vec<(u8, usize, u32)>,
    pub(super) workers: Vec<WorkerFigures>,
    /// What found no room between the threads.
    pub(super) lost: Lost,
}

/// What found no room between the threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    /// Notices that no reader took in time.
    pub(super) notices: u64,
    /// Frames on their way to another worker.
    pub(super) frames: u64,
}

impl Figures {
    /// Of all shards and all workers; `None` where there is no shard.
    pub(super) fn of(shards: Vec<ShardFigures>, workers: Vec<WorkerFigures>, lost: Lost) -> Option<Figures> {
        let seats = shards.iter().map(|figures| (figures.shard, figures.worker, figures.stats.flows)).collect();
        let mut shards = shards.into_iter();
        let mut whole = shards.next()?;
        shards.for_each(|figures| whole.add(&figures));
        let mut worker = WorkerFigures::default();
        workers.iter().for_each(|figures| worker.add(figures));
        Some(Figures { whole, worker, shards: seats, workers, lost })
    }

    /// How often a rule decided.
    pub(super) fn rule(&self, rule: Rule) -> u64 {
        self.whole.rules.iter().find(|(known, _)| *known == rule).map_or(0, |(_, count)| *count)
    }
}

impl ShardFigures {
    fn add(&mut self, other: &ShardFigures) {
        // Whose the sum is says `shards`.
        let ShardFigures { shard: _, worker: _, stats, states, rules, memory, told, is_draining, delivery } = other;
        add_stats(&mut self.stats, stats);
        self.states.iter_mut().zip(states).for_each(|((_, sum), (_, count))| *sum += count);
        self.rules.iter_mut().zip(rules).for_each(|((_, sum), (_, count))| *sum += count);
        for (sum, arena) in self.memory.iter_mut().zip(memory) {
            sum.used += arena.used;
            sum.capacity += arena.capacity;
        }
        self.told.add(told);
        self.is_draining |= is_draining;
        self.delivery.add(delivery);
    }
}

impl WorkerFigures {
    fn add(&mut self, other: &WorkerFigures) {
        let WorkerFigures { worker: _, passes, frames_lost, handed_over, link, step } = other;
        self.passes += passes;
        self.frames_lost += frames_lost;
        self.handed_over += handed_over;
        for count in link {
            match self.link.iter_mut().find(|sum| sum.name == count.name) {
                Some(sum) => sum.value += count.value,
                None => self.link.push(*count),
            }
        }
        self.step.add(step);
    }
}

/// Adds the counts of another shard.
pub(super) fn add_stats(sum: &mut Stats, other: &Stats) {
    let Stats {
        flows,
        half_open,
        established,
        closing,
        actives,
        repairs,
        spans,
        blocks,
        peers,
        batches,
        frames_in,
        frames_out,
    } = other;
    sum.flows += flows;
    sum.half_open += half_open;
    sum.established += established;
    sum.closing += closing;
    sum.actives += actives;
    sum.repairs += repairs;
    sum.spans += spans;
    sum.blocks += blocks;
    sum.peers += peers;
    sum.batches += batches;
    sum.frames_in += frames_in;
    sum.frames_out += frames_out;
}

/// What became of connections and pushes since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    /// By reason, in the order of the reasons.
    pub(super) closed: [u64; CloseReason::COUNT],
    pub(super) delivered: u64,
    pub(super) expired: u64,
    pub(super) undelivered: u64,
}

impl Counts {
    /// How many connections ended for each reason.
    pub(super) fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CloseReason::iter().map(<&str>::from).zip(self.closed)
    }

    fn add(&mut self, other: &Counts) {
        let Counts { opened, closed, delivered, expired, undelivered } = other;
        self.opened += opened;
        self.closed.iter_mut().zip(closed).for_each(|(sum, count)| *sum += count);
        self.delivered += delivered;
        self.expired += expired;
        self.undelivered += undelivered;
    }
}
