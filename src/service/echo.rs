//! Echo: returns what it receives, in order, as fast as the peer takes it.
//!
//! Backpressure is the shard's: what the send queue has no room for is not consumed, stays in the arena and closes
//! the window, and is offered again when the peer has acknowledged something.

use crate::shard::{Context, FlowId, Service};

/// The echo service. It has no state of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        let room = context.push_room(flow).min(bytes.len());
        if room == 0 || context.push(flow, &bytes[..room]).is_err() {
            return 0;
        }
        room
    }
}
