//! Finish: the world comes to its end, and nothing is left in the shard.

use holdline::shard::{CloseHow, FlowId, State};

use super::application::Behaviour;
use super::heal::Healing;
use super::world::World;

/// How a world ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Every connection is aborted.
    Abort,
    /// Every connection is closed, no peer ever speaks again, and time passes.
    Wait,
}

/// Everything that repeats itself has been given up by then, one after the other where active blocks are scarce.
const ROUNDS_MAX: u32 = 400;
const ROUND_MS: u64 = 4_000;

impl World {
    /// Ends every connection and demands that every arena is empty then.
    pub fn finish(&mut self, (healing, end): (Healing, End)) {
        self.death = None;
        if self.going_count() > 0 {
            self.deliver();
        }
        for index in 0..self.jobs.len() {
            let id = self.jobs[index].id;
            self.perform(|shard, now| shard.cancel_job(now, id));
        }
        if healing == Healing::First {
            self.heal();
        }
        match end {
            End::Abort => self.abort_all(),
            End::Wait => self.wait_for_all(),
        }
        let stats = self.shard().stats();
        if [stats.flows, stats.half_open, stats.established, stats.closing] != [0; 4] {
            self.fail(&format!("all connections are over, and some are left: {stats:?}"));
        }
        if [stats.actives, stats.spans, stats.blocks] != [0; 3] {
            self.fail(&format!("all connections are over, and something leaked: {stats:?}"));
        }
    }

    fn ids(&mut self) -> Vec<(FlowId, State)> {
        let now = self.now;
        let mut ids = Vec::new();
        self.shard().flows(now, 0, |view| {
            ids.push((view.id, view.state));
            true
        });
        ids
    }

    fn abort_all(&mut self) {
        for (id, _) in self.ids() {
            if self.close_id(id, CloseHow::Reset) != Some(Ok(())) {
                self.fail("a connection cannot be aborted");
            }
        }
    }

    fn wait_for_all(&mut self) {
        self.shard().service_mut().behaviour = Behaviour::Hold;
        for (id, state) in self.ids() {
            if let Some(book) = self.books.iter_mut().find(|book| book.id == id) {
                book.is_paused = false;
            }
            self.perform(|shard, now| shard.resume(now, id));
            if state == State::SynReceived {
                continue;
            }
            self.close_id(id, CloseHow::Fin);
        }
        for _ in 0..ROUNDS_MAX {
            if self.shard().stats().flows == 0 {
                return;
            }
            let due = self.shard().next_deadline();
            let next = self.now.plus_ms(ROUND_MS);
            self.wait(due.map_or(next, |due| due.max(next)));
        }
        self.fail("a connection that was closed does not end");
    }
}
