//! The service of a client's shard: it reads as fast as its application does, and tells what it was told.
//!
//! It decides nothing: the application closes, and says how much it reads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::service::{Context, Service};
use crate::shard::{CloseReason, FlowId};

/// What the service was told in order, and how many bytes it still takes of each connection's.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) events: Vec<(FlowId, Event)>,
    pub(super) appetites: BTreeMap<FlowId, usize>,
}

/// One thing that it was told.
pub(super) enum Event {
    /// The connection is established.
    Opened,
    /// The next bytes of the stream.
    Bytes(Vec<u8>),
    /// The node has closed its direction.
    End,
    /// The connection is over.
    Closed(CloseReason),
}

/// The service of the shard.
pub(super) struct Guest {
    pub(super) heard: Rc<RefCell<Heard>>,
}

impl Guest {
    fn hears(&self, flow: FlowId, event: Event) {
        self.heard.borrow_mut().events.push((flow, event));
    }
}

impl Service for Guest {
    fn opened(&mut self, _context: &mut Context<'_>, flow: FlowId) {
        self.hears(flow, Event::Opened);
    }

    fn received(&mut self, _context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        let taken = {
            let mut heard = self.heard.borrow_mut();
            let Some(left) = heard.appetites.get_mut(&flow) else { return 0 };
            let taken = bytes.len().min(*left);
            *left -= taken;
            taken
        };
        if taken > 0 {
            self.hears(flow, Event::Bytes(bytes[..taken].to_vec()));
        }
        taken
    }

    fn peer_closed(&mut self, _context: &mut Context<'_>, flow: FlowId) {
        self.hears(flow, Event::End);
    }

    fn closed(&mut self, _context: &mut Context<'_>, flow: FlowId, reason: CloseReason) {
        self.hears(flow, Event::Closed(reason));
    }
}
