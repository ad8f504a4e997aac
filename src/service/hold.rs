//! Hold: keeps connections open for pushes and drops what clients send.

use crate::shard::{Context, FlowId, Service};

/// The hold service: it consumes everything and answers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold;

impl Service for Hold {
    fn received(&mut self, _context: &mut Context<'_>, _flow: FlowId, bytes: &[u8]) -> usize {
        bytes.len()
    }
}
