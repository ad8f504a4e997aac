//! Records beside flows and active blocks: what services attach, idempotency keys, broadcast jobs.
//!
//! They change seldom, so the batch keeps the lines that it changes in a list, and whoever reads a record in the batch
//! sees them.

use std::hash::Hasher;

use bytemuck::{Pod, Zeroable};
use siphasher::sip128::Hasher128;

use super::batch::Batch;
use super::tables::Tables;
use super::types::{PushError, Ticket};
use crate::flows::{ATTACHMENT_BYTES_MAX, Attachment, FlowId, KEYS_MAX, KeyRecord, Line, Logged, LoggedLine, lines_of};

impl Tables {
    /// The idempotency key of a value that a client gave for a push to this connection.
    pub fn push_key(&self, flow: FlowId, value: &[u8]) -> [u8; 16] {
        let (_, secret) = self.storage.head().secret.split_at(16);
        let secret = <[u8; 16]>::try_from(secret).expect("a secret is two keys of 16 bytes");
        let mut hasher = siphasher::sip128::SipHasher24::new_with_key(&secret);
        hasher.write(&flow.to_bits().to_le_bytes());
        hasher.write(value);
        hasher.finish128().as_bytes()
    }
}

impl Batch {
    /// A record, as this batch leaves it.
    pub fn record_of<T: Pod>(&self, arena: Logged, index: u32) -> T {
        let mut record = T::zeroed();
        let lines: &mut [Line] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut record));
        let first = index * lines.len() as u32;
        for (number, line) in (first..).zip(lines) {
            let change = self.changes.iter().find(|change| change.is_at(arena, number));
            let committed = || self.tables.storage.lines(arena)[number as usize];
            *line = change.map_or_else(committed, |change| bytemuck::cast(change.image));
        }
        record
    }

    /// Changes a record.
    pub fn set_record<T: Pod>(&mut self, arena: Logged, index: u32, record: &T) {
        let images = lines_of(record);
        for (line, image) in (index * images.len() as u32..).zip(images) {
            let change = LoggedLine { arena: arena as u32, line, image: bytemuck::cast(*image) };
            match self.changes.iter_mut().find(|other| other.is_at(arena, line)) {
                Some(other) => *other = change,
                None => self.changes.push(change),
            }
        }
    }

    /// What the service has attached to a flow; empty where it has not.
    pub fn attachment(&mut self, id: FlowId) -> Vec<u8> {
        let Ok(position) = self.position_of(id) else { return Vec::new() };
        if !self.touched[position].flow.has_attachment() {
            return Vec::new();
        }
        let record: Attachment = self.record_of(Logged::Attachments, id.slot());
        record.content().to_vec()
    }

    /// Attaches bytes, which may be its name, to a flow in place of what was attached before.
    pub fn attach(&mut self, id: FlowId, bytes: &[u8], is_name: bool) -> Result<(), PushError> {
        if bytes.len() > ATTACHMENT_BYTES_MAX {
            return Err(PushError::TooLarge);
        }
        let position = self.position_of(id)?;
        self.touched[position].flow.set_has_attachment(!bytes.is_empty());
        self.tables.storage.attachments.touch(id.slot());
        self.set_record(Logged::Attachments, id.slot(), &Attachment::new(bytes, is_name));
        Ok(())
    }

    /// The ticket of the push that had this idempotency key, if it is still remembered.
    pub fn ticket_of_key(&self, key: &[u8; 16]) -> Option<Ticket> {
        let position = self.tables.push_keys.find(key)?;
        let record: KeyRecord = self.record_of(Logged::Keys, position);
        (record.key == *key).then_some(Ticket(record.ticket))
    }

    /// Remembers a key in place of the oldest one.
    pub fn remember_key(&mut self, key: [u8; 16], flow: FlowId, ticket: Ticket) {
        let sequence = self.tables.push_keys.next_sequence();
        let position = (sequence % u64::from(KEYS_MAX)) as u32;
        let oldest: KeyRecord = self.record_of(Logged::Keys, position);
        self.tables.push_keys.replace(&oldest, key, position);
        let record = KeyRecord { key, ticket: ticket.0, flow: flow.to_bits(), sequence, ..KeyRecord::zeroed() };
        self.set_record(Logged::Keys, position, &record);
    }
}
