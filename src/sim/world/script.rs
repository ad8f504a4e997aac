//! What a world has planned: pushes, closes, kills, restarts and the end of all faults.
//!
//! The script is written from the parameters when the world begins; what cannot be done when its time comes (the
//! machine is down, the connection not yet there) is put off.

use crate::shard::CloseHow;

use super::super::middlebox::Middlebox;
use super::super::profile::{KillParameters, Operation};
use super::super::report::Breach;
use super::{Action, Ending, World};

/// How long something is put off that cannot be done yet.
const PUT_OFF_US: u64 = 100_000;
/// How many pushes go into one call: one batch, which is committed whole or not at all.
const PUSHES_AT_ONCE_MAX: usize = 64;

impl World {
    pub(super) fn write_script(&mut self) {
        for number in 0..self.seats.len() {
            let (client, seat) = self.seats[number];
            let connection = &self.parameters.clients[client].connections[seat];
            let (pushes, ending) = (connection.pushes.clone(), connection.ending);
            if let Some((_, every_us)) = connection.appetite {
                self.findings.borrow_mut().appetites[number] = Some(0);
                let at_us = connection.start_us + every_us;
                self.plan(at_us, Action::Offer { number });
            }
            for (at_us, bytes) in pushes {
                self.plan(at_us, Action::Push { number, bytes });
            }
            match ending {
                Ending::ServerFin(at_us) => self.plan(at_us, Action::Close { number, how: CloseHow::Half }),
                Ending::ServerReset(at_us) => self.plan(at_us, Action::Close { number, how: CloseHow::Reset }),
                Ending::ClientFin(_) | Ending::ClientReset(_) => {}
            }
        }
        for index in 0..self.parameters.kills.len() {
            self.plan(self.parameters.kills[index].from_us, Action::Kill { index });
        }
        self.plan(self.parameters.heal_at_us, Action::Heal);
    }

    pub(super) fn plan(&mut self, at_us: u64, action: Action) {
        self.action_count += 1;
        self.actions.insert((at_us, self.action_count), action);
    }

    fn put_off(&mut self, action: Action) {
        self.plan(self.now_us + PUT_OFF_US, action);
    }

    /// Does what is due.
    pub(super) fn act(&mut self) -> Result<(), Breach> {
        let mut pushes = Vec::new();
        while let Some(entry) = self.actions.first_entry()
            && entry.key().0 <= self.now_us
        {
            let action = entry.remove();
            match action {
                Action::Push { number, bytes } if self.can_reach(number) => {
                    pushes.push((number, bytes));
                    if pushes.len() == PUSHES_AT_ONCE_MAX {
                        self.push(&std::mem::take(&mut pushes))?;
                    }
                }
                Action::Close { number, how } if self.can_reach(number) => {
                    // In the order in which they were planned.
                    self.push(&std::mem::take(&mut pushes))?;
                    if self.node.is_up() {
                        self.close(number, how)?;
                    } else {
                        self.put_off(action);
                    }
                }
                Action::Offer { number } if self.can_reach(number) => self.offer(number)?,
                Action::Push { number, .. } | Action::Close { number, .. } | Action::Offer { number } => {
                    // What the client has left behind unread waits for an offer, whether the client is there or not.
                    let ledger = &self.ledgers[number];
                    let is_unread = matches!(action, Action::Offer { .. }) && ledger.is_held();
                    if is_unread || !ledger.is_over && !ledger.is_vanished {
                        self.put_off(action);
                    }
                }
                Action::Kill { index } => self.on_kill_due(index),
                Action::Restart if self.pause_end_us(self.now_us).is_some() => self.put_off(action),
                Action::Restart => self.restart()?,
                Action::Heal => self.heal(),
            }
        }
        self.push(&pushes)
    }

    fn can_reach(&self, number: usize) -> bool {
        self.node.is_up() && self.pause_end_us(self.now_us).is_none() && self.ledgers[number].flow.is_some()
    }

    fn on_kill_due(&mut self, index: usize) {
        if self.is_healed {
            return;
        }
        if !self.node.is_up() || self.pause_end_us(self.now_us).is_some() {
            self.put_off(Action::Kill { index });
            return;
        }
        self.kill_again = Some((index, self.parameters.kills[index].repeats)).filter(|&(_, repeats)| repeats > 0);
        self.begin_kill(index);
    }

    /// Kills the process, or sees to it that it dies in a commit.
    pub(super) fn begin_kill(&mut self, index: usize) {
        let KillParameters { at, downtime_us, .. } = self.parameters.kills[index];
        self.downtime_us = downtime_us;
        // Who is to die as it starts has to die before.
        if at.is_none_or(|strike| strike.during == Some(Operation::Resume)) {
            self.node.kill();
            self.on_death(None);
        }
        self.node.arm(at);
    }

    /// The service may take some more of what the client sends: all of it when the faults have ended.
    fn offer(&mut self, number: usize) -> Result<(), Breach> {
        let (client, seat) = self.seats[number];
        let Some((bytes, every_us)) = self.parameters.clients[client].connections[seat].appetite else { return Ok(()) };
        let appetite = Some(bytes).filter(|_| !self.is_healed);
        self.findings.borrow_mut().appetites[number] = appetite;
        if self.ledgers[number].is_held() {
            self.call_offer(number)?;
            // Once more after all faults have ended: a kill may have taken the last offer along.
            if !self.is_healed || !self.node.is_up() {
                self.plan(self.now_us + every_us, Action::Offer { number });
            }
        }
        Ok(())
    }

    /// All faults end.
    fn heal(&mut self) {
        self.trace.event(self.now_us, "heal", &());
        self.is_healed = true;
        self.node.arm(None);
        self.kill_again = None;
        self.network.heal(self.now_us);
        self.middleboxes.iter_mut().flatten().for_each(Middlebox::heal);
        self.tick_due = None;
        for client in &mut self.clients {
            client.heal();
        }
        self.are_called.fill(true);
    }
}
