//! Plays: a script from its first line to its end, by a process that lasts or by ones that die.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use holdline::shard::{CloseHow, CommitPoint, Shard};
use holdline::tcp::Time;

use super::application::Application;
use super::packet::{Packet, Tcp};
use super::script::{Act, Script, Step};
use super::stage::{Stage, start_shard};

/// What becomes of the process that runs the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Process {
    /// It lives as long as the script.
    Lasts,
    /// It dies before each thing that happens, and another goes on with the state.
    DiesBeforeEachStep,
    /// It dies within each thing that happens, in its first batch at this point, where the batch's record is not
    /// complete yet. Nothing has come out, and it is as if the thing had not happened; it happens again to the next
    /// process.
    DiesAt(CommitPoint),
}

/// Plays a script to its end. Returns the rules that it names; the error names the line, and what was wrong there.
pub fn play(script: &Script, process: Process) -> Result<BTreeSet<&'static str>, (usize, String)> {
    let first = Time::from_ms(1_000);
    let start = match probe(script, first)? {
        Some(iss) => Time(first.0 + 4 * u64::from(script.listen.iss.wrapping_sub(iss))),
        None => first,
    };
    let mut stage = Stage::new(&script.listen, start).map_err(|what| (1, what))?;
    let mut last = 1;
    for (line, step) in &script.steps {
        let at_line = |what| (*line, what);
        match step {
            Step::Expect(expected) => stage.expect(expected).map_err(at_line)?,
            Step::Act(act) => {
                stage.expect_no_more().map_err(at_line)?;
                stage = match process {
                    Process::Lasts => stage.acted(act),
                    Process::DiesBeforeEachStep => stage.restarted().and_then(|stage| stage.acted(act)),
                    Process::DiesAt(point) => stage.killed_within(act, point),
                }
                .map_err(at_line)?;
            }
        }
        last = *line;
    }
    stage.finish().map_err(|what| (last, format!("{what}, and the script is over")))
}

/// Has the process die in the next batch that passes this point.
pub fn die_at(shard: &mut Shard<Application>, point: CommitPoint) {
    shard.set_interrupt(Some(Box::new(move |passed| {
        if passed == point {
            resume_unwind(Box::new("the process dies"));
        }
    })));
}

/// The initial sequence number that the stack takes for the first connection of a script that begins at `start`.
fn probe(script: &Script, start: Time) -> Result<Option<u32>, (usize, String)> {
    let mut stage = Stage::new(&script.listen, start).map_err(|what| (1, what))?;
    for (line, step) in &script.steps {
        let Step::Act(act @ (Act::Into(_) | Act::At(_) | Act::Tick | Act::Drain)) = step else { continue };
        stage.act(act).map_err(|what| (*line, what))?;
        for came in stage.came.drain(..) {
            if let Packet::Tcp(Tcp { syn: true, seq, .. }) = came.packet {
                return Ok(seq);
            }
        }
    }
    Ok(None)
}

impl Stage {
    /// The same stage with another process that goes on with the shard's state.
    fn restarted(mut self) -> Result<Stage, String> {
        let application = self.shard.service_mut().taken();
        let storage = self.shard.into_storage();
        let mut shard = start_shard(&self.listen, &self.ends, storage, application, [9; 32], self.now)?;
        if self.is_draining {
            shard.refuse_new();
        }
        let mut stage = Stage { shard, ..self };
        stage.take_up()?;
        stage.expect_silence().map_err(|what| format!("after a restart {what}"))?;
        Ok(stage)
    }

    /// The same stage after a step that a process has died in, and that has happened again to the next process.
    fn killed_within(mut self, act: &Act, point: CommitPoint) -> Result<Stage, String> {
        let application = self.shard.service().clone();
        let held = self.held.clone();
        die_at(&mut self.shard, point);
        let now = self.now;
        let played = catch_unwind(AssertUnwindSafe(|| self.act(act)));
        self.shard.set_interrupt(None);
        if let Ok(done) = played {
            // No batch of this step had anything to record: it is done, and nobody has died.
            return done.map(|()| self);
        }
        self.take_up()?;
        self.expect_silence().map_err(|what| format!("from a batch that was never recorded: {what}"))?;
        *self.shard.service_mut() = application;
        self.now = now;
        self.held = held;
        self.restarted()?.acted(act)
    }

    fn acted(mut self, act: &Act) -> Result<Stage, String> {
        self.act(act)?;
        Ok(self)
    }

    /// The end: nothing is left to be said, and when every connection is aborted nothing is left in the arenas.
    fn finish(mut self) -> Result<BTreeSet<&'static str>, String> {
        self.expect_no_more()?;
        let mut ids = Vec::new();
        self.shard.flows(self.now, 0, |view| {
            ids.push(view.id);
            true
        });
        for id in ids {
            self.shard.close(self.now, id, CloseHow::Reset).map_err(|error| format!("no abort: {error}"))?;
        }
        let stats = self.shard.stats();
        match (stats.flows, stats.actives, stats.spans, stats.blocks) {
            (0, 0, 0, 0) => Ok(self.named),
            left => Err(format!("of flows, active blocks, spans and payload blocks {left:?} are left")),
        }
    }
}
