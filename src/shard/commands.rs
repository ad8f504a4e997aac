//! Commands: what an application asks of a connection, through its service or from outside.
//!
//! Pushes, closes, pause. They change the batch's copies; what they let out leaves when the batch is committed.

use super::batch::Batch;
use super::service::Service;
use super::types::{CloseHow, Notice, Push, PushError, Ticket};
use super::{BATCH_MAX, Shard};
use crate::flows::{FlowId, Label, Payload};
use crate::tcp::{self, Active, Flow, Reading, Rule, Time};

impl<S: Service> Shard<S> {
    /// Takes pushes, 64 to a batch. Each is answered by a notice, `Queued` or `Refused`.
    pub fn push(&mut self, now: Time, pushes: &[Push<'_>]) {
        for chunk in pushes.chunks(BATCH_MAX) {
            self.in_batch(now, |shard| {
                for push in chunk {
                    shard.batch.tables.storage.flows.prefetch(push.flow.slot());
                }
                for push in chunk {
                    let flow = push.flow;
                    let notice = match shard.batch.push(push) {
                        Ok(ticket) => Notice::Queued { flow, ticket },
                        Err(error) => Notice::Refused { flow, ticket: push.ticket, error },
                    };
                    shard.batch.put_notice(notice);
                }
            });
        }
        self.has_untrimmed = true;
    }

    /// Closes a connection. Errors: as for a push.
    pub fn close(&mut self, now: Time, flow: FlowId, how: CloseHow) -> Result<(), PushError> {
        self.in_batch(now, |shard| {
            let result = shard.batch.close(flow, how);
            shard.end_aborted();
            result
        })
    }

    /// Keeps the flow's received bytes from the service; the window closes when as many wait as it has room for.
    /// Errors: as for a push.
    pub fn pause(&mut self, now: Time, flow: FlowId) -> Result<(), PushError> {
        self.in_batch(now, |shard| shard.batch.set_paused(flow, true)).map(drop)
    }

    /// Offers the flow's received bytes to the service again, those first that waited. Errors: as for a push.
    pub fn resume(&mut self, now: Time, flow: FlowId) -> Result<(), PushError> {
        self.in_batch(now, |shard| shard.batch.set_paused(flow, false).map(|position| shard.offer_again(position)))
    }

    /// Offers the flow's unconsumed bytes to the service again, for a service that was waiting for something else than
    /// an acknowledgment.
    pub fn offer(&mut self, now: Time, flow: FlowId) {
        self.in_batch(now, |shard| {
            if let Ok(position) = shard.batch.position_of(flow) {
                shard.offer_again(position);
            }
        });
    }
}

impl Batch {
    /// Queues a push and counts how it went. Returns the ticket of the push, or of the first one with its key.
    pub fn push(&mut self, push: &Push<'_>) -> Result<Ticket, PushError> {
        if let Some(ticket) = push.key.and_then(|key| self.ticket_of_key(&key)) {
            self.tables.count(Rule::PushRepeated);
            return Ok(ticket);
        }
        let result = self.try_push(push);
        self.tables.count(if result.is_ok() { Rule::PushQueued } else { Rule::PushRefused });
        if let (Ok(()), Some(key)) = (result, push.key) {
            self.remember_key(key, push.flow, push.ticket);
        }
        result.map(|()| push.ticket)
    }

    fn try_push(&mut self, push: &Push<'_>) -> Result<(), PushError> {
        let bytes = push.bytes;
        let queue_bytes = self.tables.config.send_queue_bytes as usize;
        if bytes.is_empty() {
            return Err(PushError::Empty);
        }
        if bytes.len() > queue_bytes {
            return Err(PushError::TooLarge);
        }
        let position = self.position_of(push.flow)?;
        if !tcp::is_open_for_push(&self.touched[position].flow) {
            return Err(PushError::Gone);
        }
        let label = Label { ticket: push.ticket.0, expires_s: self.expiry(push.expires_in_s) };
        self.queue(position, bytes.len(), label, |payload, active| payload.append_to_send(active, bytes, label))?;
        if push.is_urgent {
            self.touched[position].active.mark_urgent();
        }
        Ok(())
    }

    /// Has `append` put so many bytes with this label into the send queue of a touched flow, if there is room for them;
    /// it answers false where the shard has none.
    #[inline]
    pub fn queue(
        &mut self,
        position: usize,
        bytes: usize,
        label: Label,
        append: impl FnOnce(&mut Payload, &mut Active) -> bool,
    ) -> Result<(), PushError> {
        let queued = self.touched[position].active.queued_bytes() as usize;
        if queued + bytes > self.tables.config.send_queue_bytes as usize {
            return Err(PushError::FlowFull);
        }
        if !self.borrow_active(position) {
            return Err(PushError::ShardFull);
        }
        let active = &mut self.touched[position].active;
        if !append(&mut self.tables.storage.payload, active) {
            return Err(PushError::ShardFull);
        }
        if label.expires_s != 0 {
            active.set_send_limit(active.snd_end);
        }
        Ok(())
    }

    /// When a push of now expires, in seconds of the stack's clock; 0 for never.
    pub fn expiry(&self, expires_in_s: u32) -> u32 {
        if expires_in_s == 0 { 0 } else { self.now.seconds().saturating_add(expires_in_s).max(1) }
    }

    /// A push by the service, which gets a ticket of its own.
    pub fn push_from_service(&mut self, id: FlowId, bytes: &[u8], is_urgent: bool) -> Result<Ticket, PushError> {
        let ticket = Ticket(self.tables.service_tickets + 1);
        let result = self.push(&Push { is_urgent, ..Push::new(id, ticket, bytes) });
        if result == Err(PushError::ShardFull) {
            self.tables.await_clock_hand();
        }
        result?;
        self.tables.service_tickets += 1;
        Ok(ticket)
    }

    /// How many bytes a push to this flow may have now. Where the shard has less room than the flow, the clock hand
    /// will offer the service again what it now leaves: no acknowledgment of this flow need come to do so.
    pub fn push_room(&mut self, id: FlowId) -> usize {
        let Ok(position) = self.position_of(id) else { return 0 };
        if !tcp::is_open_for_push(&self.touched[position].flow) {
            return 0;
        }
        if !self.borrow_active(position) {
            self.tables.await_clock_hand();
            return 0;
        }
        let queued = self.touched[position].active.queued_bytes() as usize;
        let room = (self.tables.config.send_queue_bytes as usize).saturating_sub(queued);
        let shard_room = self.tables.storage.payload.room_bytes();
        if shard_room < room {
            self.tables.await_clock_hand();
        }
        room.min(shard_room)
    }

    /// Closes a connection. One that is aborted ends when the service has returned.
    pub fn close(&mut self, id: FlowId, how: CloseHow) -> Result<(), PushError> {
        let position = self.position_of(id)?;
        match how {
            CloseHow::Fin | CloseHow::Half => {
                let reading = if how == CloseHow::Half { Reading::GoesOn } else { Reading::Ends };
                if !tcp::on_close(&mut self.touched[position].flow, reading) {
                    return Err(PushError::Gone);
                }
                self.tables.count(Rule::CloseQueued);
            }
            CloseHow::Reset if self.aborted.contains(&position) => return Err(PushError::Gone),
            CloseHow::Reset => {
                let effects = tcp::on_abort(&self.touched[position].flow);
                self.tables.count(effects.rule);
                self.reply(position, effects.reply);
                self.aborted.push(position);
            }
        }
        Ok(())
    }

    /// Changes what a connection is told.
    pub fn change_flow(&mut self, id: FlowId, change: impl FnOnce(&mut Flow)) -> Result<(), PushError> {
        let position = self.position_of(id)?;
        change(&mut self.touched[position].flow);
        Ok(())
    }

    /// The service's word.
    pub fn word(&mut self, id: FlowId) -> Option<u64> {
        let position = self.position_of(id).ok()?;
        let [low, high] = self.touched[position].flow.word;
        Some(u64::from(low) | u64::from(high) << 32)
    }

    /// Keeps received bytes from the service, or no longer. Returns the flow's position.
    pub fn set_paused(&mut self, id: FlowId, is_paused: bool) -> Result<usize, PushError> {
        let position = self.position_of(id)?;
        self.touched[position].flow.set_paused(is_paused);
        self.tables.count(if is_paused { Rule::Paused } else { Rule::Resumed });
        Ok(position)
    }
}
