//! Commands: what an application asks of a connection, through its service or from outside.
//!
//! Pushes, closes, pause. They change the batch's copies; what they let out leaves when the batch is committed.

use super::batch::{Batch, STARVED_ROUNDS};
use super::types::{CloseHow, Push, PushError, Ticket};
use crate::flows::{FlowId, Label};
use crate::tcp::{self, Keepalive, Reading, Rule, UserTimeout};

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
        let touched = &self.touched[position];
        if !tcp::is_open_for_push(&touched.flow) {
            return Err(PushError::Gone);
        }
        if touched.active.queued_bytes() as usize + bytes.len() > queue_bytes {
            return Err(PushError::FlowFull);
        }
        if !self.borrow_active(position) {
            return Err(PushError::ShardFull);
        }
        let label = Label { ticket: push.ticket.0, expires_s: self.expiry(push.expires_in_s) };
        let active = &mut self.touched[position].active;
        if !self.tables.storage.payload.append_to_send(active, bytes, label) {
            return Err(PushError::ShardFull);
        }
        if label.expires_s != 0 {
            active.set_send_limit(active.snd_end);
        }
        if push.is_urgent {
            active.mark_urgent();
        }
        Ok(())
    }

    /// When a push of now expires, in seconds of the stack's clock; 0 for never.
    pub(super) fn expiry(&self, expires_in_s: u32) -> u32 {
        if expires_in_s == 0 { 0 } else { self.now.seconds().saturating_add(expires_in_s).max(1) }
    }

    /// A push by the service, which gets a ticket of its own.
    pub fn push_from_service(&mut self, id: FlowId, bytes: &[u8], is_urgent: bool) -> Result<Ticket, PushError> {
        let ticket = Ticket(self.service_tickets + 1);
        let result = self.push(&Push { is_urgent, ..Push::new(id, ticket, bytes) });
        if result == Err(PushError::ShardFull) {
            self.starved_rounds = STARVED_ROUNDS;
        }
        result?;
        self.service_tickets += 1;
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
            self.starved_rounds = STARVED_ROUNDS;
            return 0;
        }
        let queued = self.touched[position].active.queued_bytes() as usize;
        let room = (self.tables.config.send_queue_bytes as usize).saturating_sub(queued);
        let shard_room = self.tables.storage.payload.room_bytes(1);
        if shard_room < room {
            self.starved_rounds = STARVED_ROUNDS;
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

    /// Whether small segments of this connection wait while something is in flight.
    pub fn set_nagle(&mut self, id: FlowId, has: bool) -> Result<(), PushError> {
        let position = self.position_of(id)?;
        self.touched[position].flow.set_nagle(has);
        Ok(())
    }

    /// The differentiated services codepoint of what this connection sends, six bits.
    pub fn set_dscp(&mut self, id: FlowId, dscp: u8) -> Result<(), PushError> {
        let position = self.position_of(id)?;
        self.touched[position].flow.set_dscp(dscp & 0x3f);
        Ok(())
    }

    /// Whether the peer of this connection is probed when it is silent.
    pub fn set_keepalive(&mut self, id: FlowId, keepalive: Keepalive) -> Result<(), PushError> {
        let position = self.position_of(id)?;
        self.touched[position].flow.set_keepalive(keepalive);
        Ok(())
    }

    /// How long what this connection sends may stay unacknowledged.
    pub fn set_user_timeout(&mut self, id: FlowId, timeout: UserTimeout) -> Result<(), PushError> {
        let position = self.position_of(id)?;
        self.touched[position].flow.set_user_timeout(timeout);
        Ok(())
    }

    /// Keeps received bytes from the service, or no longer. Returns the flow's position.
    pub fn set_paused(&mut self, id: FlowId, is_paused: bool) -> Result<usize, PushError> {
        let position = self.position_of(id)?;
        self.touched[position].flow.set_paused(is_paused);
        self.tables.count(if is_paused { Rule::Paused } else { Rule::Resumed });
        Ok(position)
    }
}
