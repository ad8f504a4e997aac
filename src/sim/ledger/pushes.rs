//! Pushes in a ledger: called, answered, told as delivered.

use super::super::report::Breach;
use super::{Ledger, Push, Standing};
use crate::shard::PushError;

impl Ledger {
    /// The shard is called with this push.
    pub(in super::super) fn push(&mut self, ticket: u64, bytes: usize) {
        let standing = Standing::Called;
        self.pushes.push(Push { ticket, bytes, standing, told_in_life: None, may_be_untold: false });
    }

    /// The shard says that it has queued the push.
    pub(in super::super) fn on_queued(&mut self, ticket: u64) -> Result<(), Breach> {
        let number = self.number;
        match self.pushes.iter_mut().find(|push| push.ticket == ticket) {
            Some(push) if push.standing == Standing::Called => {
                push.standing = Standing::Committed;
                Ok(())
            }
            _ => Err(Breach::PushNotAnsweredOnce { connection: number, ticket }),
        }
    }

    /// The shard says that it has refused the push.
    pub(in super::super) fn on_refused(&mut self, ticket: u64, error: PushError) -> Result<(), Breach> {
        let position = self.pushes.iter().position(|push| push.ticket == ticket && push.standing == Standing::Called);
        let Some(position) = position else {
            return Err(Breach::PushNotAnsweredOnce { connection: self.number, ticket });
        };
        let bytes = self.pushes.remove(position).bytes as u64;
        let waiting =
            self.pushes.iter().filter(|push| push.told_in_life.is_none() && push.standing != Standing::Called);
        let waiting_bytes: u64 = waiting.map(|push| push.bytes as u64).sum();
        let client = self.client;
        let has_reason = match error {
            PushError::FlowFull => waiting_bytes + bytes > self.send_queue_bytes,
            PushError::TooLarge => bytes > self.send_queue_bytes,
            PushError::Gone => {
                client.has_closed
                    || client.has_aborted
                    || self.is_over
                    || self.is_closed
                    || self.asked_to_close.is_some()
            }
            PushError::ShardFull => self.is_tight,
            PushError::Unknown | PushError::Empty => false,
        };
        if has_reason {
            return Ok(());
        }
        Err(Breach::RefusedWithoutReason { connection: self.number, ticket, error })
    }

    /// The call with these pushes has returned: each must have been answered.
    pub(in super::super) fn on_push_returned(&self) -> Result<(), Breach> {
        match self.pushes.iter().find(|push| push.standing == Standing::Called) {
            Some(push) => Err(Breach::PushNotAnsweredOnce { connection: self.number, ticket: push.ticket }),
            None => Ok(()),
        }
    }

    /// The process died in a call. `is_committed` says whether the batch under way had its record complete;
    /// `held_bytes` is how much of the stream the client's TCP has.
    pub(in super::super) fn on_killed_in_call(&mut self, is_committed: bool, held_bytes: u64) {
        if is_committed {
            let called = self.pushes.iter_mut().filter(|push| push.standing == Standing::Called);
            called.for_each(|push| push.standing = Standing::Unknown);
        } else {
            self.pushes.retain(|push| push.standing != Standing::Called);
        }
        let mut end_bytes = 0;
        for push in &mut self.pushes {
            end_bytes += if push.standing == Standing::Committed { push.bytes as u64 } else { 0 };
            push.may_be_untold |= end_bytes <= held_bytes && push.told_in_life.is_none();
        }
    }

    /// The shard says that the client's TCP has acknowledged the push, of which `held_bytes` is all the client's TCP
    /// has, in this life of the process.
    pub(in super::super) fn on_delivered(&mut self, ticket: u64, life: u64, held_bytes: u64) -> Result<(), Breach> {
        let connection = self.number;
        let Some(index) = self.pushes.iter().position(|push| push.ticket == ticket) else {
            return Err(Breach::ReceiptUnknown { connection, ticket });
        };
        let before = self.pushes[..index].iter().filter(|push| push.standing == Standing::Committed);
        let needed = before.map(|push| push.bytes as u64).sum::<u64>() + self.pushes[index].bytes as u64;
        if held_bytes < needed {
            return Err(Breach::ReceiptTooEarly { connection, ticket, held: held_bytes, needed });
        }
        let push = &mut self.pushes[index];
        push.standing = Standing::Committed;
        match push.told_in_life.replace(life) {
            Some(earlier) if earlier == life => Err(Breach::ReceiptTwice { connection, ticket }),
            _ => Ok(()),
        }
    }
}
