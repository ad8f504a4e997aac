//! The trait that an application implements, and what it may do while it is called.

use super::batch::Batch;
use super::types::{CloseHow, PushError, Ticket};
use crate::flows::FlowId;
use crate::tcp::{CloseReason, Keepalive, UserTimeout};

/// An application over a shard. Every call belongs to the batch that is open: what it does through `context` is
/// committed with that batch or not at all.
pub trait Service {
    /// A connection is established.
    fn opened(&mut self, context: &mut Context<'_>, flow: FlowId) {
        let _ = (context, flow);
    }

    /// Bytes have arrived in order. Returns how many of them were consumed; the rest stays in the arena, closes the
    /// window, and is offered again after the peer has acknowledged something of ours.
    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize;

    /// The peer's TCP has acknowledged the last byte of the push that has this ticket.
    fn delivered(&mut self, context: &mut Context<'_>, flow: FlowId, ticket: Ticket) {
        let _ = (context, flow, ticket);
    }

    /// The peer has urgent bytes as far as `end` in its stream. They stay in the stream, and are offered there.
    fn urgent(&mut self, context: &mut Context<'_>, flow: FlowId, end: u32) {
        let _ = (context, flow, end);
    }

    /// The peer has sent its FIN and everything before it was consumed. Unless told otherwise we close too, after
    /// what is queued.
    fn peer_closed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        let _ = context.close(flow, CloseHow::Fin);
    }

    /// The connections that have this name, for a service that knows names.
    fn named(&self, name: &[u8]) -> Vec<FlowId> {
        let _ = name;
        Vec::new()
    }

    /// The connection ends. This is the last that is heard of it: what is done to it here has no effect, but its word
    /// and attachment may still be read.
    fn closed(&mut self, context: &mut Context<'_>, flow: FlowId, reason: CloseReason) {
        let _ = (context, flow, reason);
    }

    /// The process has started again on a state that holds this connection. Rebuild here what the service keeps in
    /// its own fields.
    fn resumed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        let _ = (context, flow);
    }
}

impl<S: Service + ?Sized> Service for Box<S> {
    fn opened(&mut self, context: &mut Context<'_>, flow: FlowId) {
        (**self).opened(context, flow);
    }
    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        (**self).received(context, flow, bytes)
    }
    fn delivered(&mut self, context: &mut Context<'_>, flow: FlowId, ticket: Ticket) {
        (**self).delivered(context, flow, ticket);
    }
    fn urgent(&mut self, context: &mut Context<'_>, flow: FlowId, end: u32) {
        (**self).urgent(context, flow, end);
    }
    fn peer_closed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        (**self).peer_closed(context, flow);
    }
    fn closed(&mut self, context: &mut Context<'_>, flow: FlowId, reason: CloseReason) {
        (**self).closed(context, flow, reason);
    }
    fn resumed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        (**self).resumed(context, flow);
    }
    fn named(&self, name: &[u8]) -> Vec<FlowId> {
        (**self).named(name)
    }
}

/// The open batch, as a service sees it.
pub struct Context<'a> {
    pub(super) batch: &'a mut Batch,
}

impl Context<'_> {
    /// How many bytes `push` would take for this flow now; 0 for a flow that is gone.
    pub fn push_room(&mut self, flow: FlowId) -> usize {
        self.batch.push_room(flow)
    }

    /// Queues bytes on the flow, all of them or none. Errors as in [`PushError`].
    pub fn push(&mut self, flow: FlowId, bytes: &[u8]) -> Result<Ticket, PushError> {
        self.batch.push_from_service(flow, bytes, false)
    }

    /// Queues bytes as `push`, and marks all that is queued as urgent.
    pub fn push_urgent(&mut self, flow: FlowId, bytes: &[u8]) -> Result<Ticket, PushError> {
        self.batch.push_from_service(flow, bytes, true)
    }

    /// Whether small segments of this flow wait while something is in flight; `Config::nagle` says what is so at first.
    pub fn set_nagle(&mut self, flow: FlowId, has: bool) -> Result<(), PushError> {
        self.batch.change_flow(flow, |it| it.set_nagle(has))
    }

    /// The differentiated services codepoint of what this flow sends, of which the lower six bits count;
    /// `Config::dscp` says what it is at first.
    pub fn set_dscp(&mut self, flow: FlowId, dscp: u8) -> Result<(), PushError> {
        self.batch.change_flow(flow, |it| it.set_dscp(dscp & 0x3f))
    }

    /// Whether the peer of this flow is probed when it is silent: after the configured interval, or after two hours
    /// where none is configured (RFC 9293 §3.8.4, MUST-24, MUST-28).
    pub fn set_keepalive(&mut self, flow: FlowId, keepalive: Keepalive) -> Result<(), PushError> {
        self.batch.change_flow(flow, |it| it.set_keepalive(keepalive))
    }

    /// How long what this flow sends may stay unacknowledged before it is given up; `Config::user_timeout_s` says what
    /// is so at first (RFC 9293 §3.8.3, MUST-21).
    pub fn set_user_timeout(&mut self, flow: FlowId, timeout: UserTimeout) -> Result<(), PushError> {
        self.batch.change_flow(flow, |it| it.set_user_timeout(timeout))
    }

    /// Closes the flow: by FIN after what is queued, or by RST now.
    pub fn close(&mut self, flow: FlowId, how: CloseHow) -> Result<(), PushError> {
        self.batch.close(flow, how)
    }

    /// What is attached to the flow; empty where nothing is.
    pub fn attachment(&mut self, flow: FlowId) -> Vec<u8> {
        self.batch.attachment(flow)
    }

    /// Attaches at most 124 bytes to the flow in place of what was attached before; they are committed and survive the
    /// process with it. Errors: too many bytes, or the flow is gone.
    pub fn attach(&mut self, flow: FlowId, bytes: &[u8]) -> Result<(), PushError> {
        self.batch.attach(flow, bytes, false)
    }

    /// Attaches a name, by which broadcasts pick their flows and listings show it.
    pub fn set_name(&mut self, flow: FlowId, name: &[u8]) -> Result<(), PushError> {
        self.batch.attach(flow, name, true)
    }

    /// The 64 bits that a service keeps with a flow; they are committed and survive the process with it.
    pub fn word(&mut self, flow: FlowId) -> Option<u64> {
        self.batch.word(flow)
    }

    /// Sets them. Does nothing for a flow that is gone.
    pub fn set_word(&mut self, flow: FlowId, word: u64) {
        let _ = self.batch.change_flow(flow, |it| it.word = [word as u32, (word >> 32) as u32]);
    }
}
