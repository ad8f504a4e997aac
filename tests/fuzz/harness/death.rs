//! Deaths: the process is killed between two operations, or within a batch, and the next one goes on.
//!
//! Held: a batch that was not recorded has never been; what was recorded is there, whoever was told of it; a start
//! changes nothing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use holdline::shard::{CommitPoint, FlowId, Shard, State, Time};

use super::application::Application;
use super::book::{Book, Pushed};
use super::look::ends_of;
use super::world::{SECRET, World};

/// A death that is to come in the next operation: at which point of which of its commits.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub point: CommitPoint,
    pub commit: u8,
}

/// What a dying process unwinds with.
struct Died;

/// A connection as it looks from outside, to be compared.
type Seen = (FlowId, State, u32, Option<u32>, bool, u32, u32);

impl World {
    pub(super) fn perform_dying<R>(
        &mut self,
        death: Death,
        call: impl FnOnce(&mut Shard<Application>, Time) -> R,
    ) -> Option<R> {
        let now = self.now;
        let before = self.seen();
        let mut passed = 0;
        self.shard().set_interrupt(Some(Box::new(move |point| {
            passed += u8::from(point == death.point);
            if point == death.point && passed == death.commit {
                resume_unwind(Box::new(Died));
            }
        })));
        let result = catch_unwind(AssertUnwindSafe(|| call(self.shard(), now)));
        match result {
            Ok(result) => {
                self.shard().set_interrupt(None);
                Some(result)
            }
            Err(payload) if payload.is::<Died>() => {
                let is_discarded = matches!(death.point, CommitPoint::BeforeRecord | CommitPoint::WithinRecord);
                self.restart();
                if is_discarded && death.commit == 1 {
                    self.forget_operation(&before);
                } else {
                    self.blur();
                }
                None
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// The process is killed between two operations.
    pub fn die(&mut self) {
        let (before, stats) = (self.seen(), self.shard().stats());
        let frames_out = stats.frames_out;
        self.restart();
        let mut after = self.shard().stats();
        (after.frames_out, after.frames_in) = (frames_out, stats.frames_in);
        after.batches = stats.batches;
        if format!("{after:?}") != format!("{stats:?}") || self.seen() != before {
            self.fail("a process that starts again finds another state than was left");
        }
        self.settle();
    }

    fn restart(&mut self) {
        self.note_rules();
        let mut shard = self.shard.take().expect("there is a shard between deaths");
        let application = std::mem::take(shard.service_mut());
        let storage = shard.into_storage();
        let shard = Shard::new(self.config.clone(), storage, application, SECRET, self.now);
        self.shard = Some(shard.unwrap_or_else(|error| panic!("what a process leaves is taken up: {error}")));
    }

    /// The batch in which the process died has never been.
    fn forget_operation(&mut self, before: &[Seen]) {
        let application = self.shard().service_mut();
        application.pushed.clear();
        application.closed.clear();
        self.offered.clear();
        for &(id, _, _, _, is_paused, ..) in before {
            self.books.iter_mut().filter(|book| book.id == id).for_each(|book| book.is_paused = is_paused);
        }
        if self.seen() != before {
            self.fail("a batch was not recorded and has left something");
        }
    }

    /// The batch in which the process died is there, and has told nothing.
    fn blur(&mut self) {
        let application = self.shard().service_mut();
        let (pushed, closed) = (std::mem::take(&mut application.pushed), std::mem::take(&mut application.closed));
        self.books.iter_mut().for_each(Book::blur);
        self.wires.iter_mut().for_each(|wire| wire.is_blurred = true);
        for (id, pushed) in pushed.into_iter().chain(std::mem::take(&mut self.offered)) {
            if let Some(book) = self.books.iter_mut().find(|book| book.id == id) {
                book.pushes.push_back(Pushed { is_uncertain: true, ..pushed });
            }
        }
        for book in self.books.iter_mut().filter(|book| closed.contains(&book.id)) {
            book.is_close_asked = true;
        }
        self.reconcile();
    }

    /// Books for exactly the connections that there are, whoever was told of them.
    fn reconcile(&mut self) {
        let now = self.now;
        let mut open = Vec::new();
        self.shard().flows(now, 0, |view| {
            open.push((view.id, view.state, ends_of(view.local, view.remote), view.is_paused));
            true
        });
        let is_half_open = |state: State| matches!(state, State::SynSent | State::SynReceived);
        self.calling = open.iter().filter(|(_, state, ..)| is_half_open(*state)).map(|(id, ..)| *id).collect();
        for (_, state, ends, _) in &open {
            let wire = self.wire_of(ends);
            self.wires[wire].is_called |= *state == State::SynSent;
            self.wires[wire].is_blurred = true;
        }
        open.retain(|(_, state, ..)| !is_half_open(*state));
        self.books.retain(|book| open.iter().any(|(id, ..)| *id == book.id));
        for (id, _, ends, is_paused) in open {
            let wire = self.wire_of(&ends);
            if !self.books.iter().any(|book| book.id == id) {
                let mut book = Book::new(id, wire, None);
                book.blur();
                self.books.push(book);
            }
            let book = self.books.iter_mut().find(|book| book.id == id).expect("it was made where it was not there");
            book.is_paused = is_paused;
        }
    }

    fn seen(&mut self) -> Vec<Seen> {
        let now = self.now;
        let mut seen = Vec::new();
        self.shard().flows(now, 0, |it| {
            seen.push((it.id, it.state, it.unacked_bytes, it.srtt_us, it.is_paused, it.opened_s_ago, it.idle_s));
            true
        });
        seen
    }
}
