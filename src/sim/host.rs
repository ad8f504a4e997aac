//! The service under test: echo or hold, whichever a connection's first byte asks for.
//!
//! Every received byte is checked against the stream it belongs to. Each connection is given a name with its first
//! byte.
//!
//! The shard calls it; what it finds wrong goes into [`Findings`], which the world reads after each call. It keeps
//! nothing between calls but what lies in a flow's service word, so a killed process takes nothing along: when a word
//! and the bytes it counts were not committed together, the next byte is compared with the wrong place and differs.
//!
//! ```text
//! word:  63..56 flags | 55..48 first byte of the stream | 47..0 bytes consumed
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use crate::service::{Context, Echo, Hold, Service};
use crate::shard::{CloseHow, FlowId, PushError, Ticket};

use super::application::from_tag;
use super::pattern::{self, Stream};
use super::profile::Workload;
use super::report::Breach;

/// What the service has found, shared with the world.
#[derive(Default)]
pub(super) struct Findings {
    /// What was wrong, in order.
    pub(super) breaches: Vec<Breach>,
    /// Streams that ended: connection number and how many bytes of it were consumed.
    pub(super) ended: Vec<(usize, u64)>,
    /// How many bytes the service still takes of each connection's before it waits for an offer; without, all.
    pub(super) appetites: Vec<Option<u64>>,
    /// Whether names are not set, which is a lie.
    pub(super) is_nameless: bool,
    /// How often a name was not set.
    pub(super) withheld_names: u64,
    /// Bytes consumed in all, those of batches that were lost included.
    pub(super) consumed_bytes: u64,
}

impl Findings {
    /// Nothing yet, for this many connections.
    pub(super) fn new(connection_count: usize) -> Findings {
        Findings { appetites: vec![None; connection_count], ..Findings::default() }
    }
}

/// The service.
pub(super) struct Host {
    seed: u64,
    connection_count: usize,
    findings: Rc<RefCell<Findings>>,
}

/// Set in a word when the connection is being closed from here and the rest of its bytes is dropped.
const DISCARDS: u64 = 1 << 56;
const CONSUMED: u64 = (1 << 48) - 1;

impl Host {
    /// A service that knows the streams of this many connections.
    pub(super) fn new(seed: u64, connection_count: usize, findings: Rc<RefCell<Findings>>) -> Host {
        Host { seed, connection_count, findings }
    }

    fn found(&self, breach: Breach) {
        self.findings.borrow_mut().breaches.push(breach);
    }

    /// The name is committed with the first bytes, or neither is.
    fn name(&self, context: &mut Context<'_>, flow: FlowId, number: usize) {
        let mut findings = self.findings.borrow_mut();
        if findings.is_nameless {
            findings.withheld_names += 1;
        } else if context.set_name(flow, &name_of(number)).is_err() {
            findings.breaches.push(Breach::NameLost { connection: number });
        }
    }

    fn check(&self, number: usize, consumed: u64, bytes: &[u8]) {
        // The first byte of a stream is its tag; it has been looked at already.
        let skipped = usize::from(consumed == 0);
        let offset = consumed + skipped as u64;
        let stream = Stream::FromClient(number);
        if let Some(at) = pattern::first_difference(self.seed, stream, offset, &bytes[skipped..]) {
            self.found(Breach::WrongBytesReceived { connection: number, offset: offset + at as u64 });
        }
    }
}

/// The name of a connection.
fn name_of(number: usize) -> Vec<u8> {
    format!("connection {number}").into_bytes()
}

impl Service for Host {
    fn opened(&mut self, context: &mut Context<'_>, flow: FlowId) {
        let word = context.word(flow);
        if word != Some(0) {
            self.found(Breach::WordNotClean { flow, word });
        }
    }

    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        let Some(&first) = bytes.first() else { return 0 };
        let word = context.word(flow).unwrap_or(0);
        let consumed = word & CONSUMED;
        let tag = if consumed == 0 { first } else { (word >> 48) as u8 };
        let (number, workload) = from_tag(tag);
        if number >= self.connection_count {
            self.found(Breach::UnknownStream { flow, tag });
            return bytes.len();
        }
        self.check(number, consumed, bytes);
        if consumed == 0 {
            self.name(context, flow, number);
        }
        let skipped = usize::from(consumed == 0);
        let mut flags = word & DISCARDS;
        let taken = match workload {
            Workload::Hold => {
                let appetite = self.findings.borrow().appetites[number];
                let room = appetite.map_or(bytes.len(), |left| bytes.len().min(left as usize));
                let taken = if room > 0 { Hold.received(context, flow, &bytes[..room]) } else { 0 };
                self.findings.borrow_mut().appetites[number] = appetite.map(|left| left - taken as u64);
                if taken == 0 {
                    return 0;
                }
                taken
            }
            Workload::Echo if flags & DISCARDS != 0 => bytes.len(),
            Workload::Echo if bytes.len() == skipped => skipped,
            Workload::Echo => match Echo.received(context, flow, &bytes[skipped..]) {
                0 => match context.push(flow, &bytes[skipped..=skipped]) {
                    Ok(_) => skipped + 1,
                    Err(PushError::Gone) => {
                        flags |= DISCARDS;
                        bytes.len()
                    }
                    Err(_) => skipped,
                },
                taken => taken + skipped,
            },
        };
        self.findings.borrow_mut().consumed_bytes += taken as u64;
        context.set_word(flow, flags | u64::from(tag) << 48 | (consumed + taken as u64));
        taken
    }

    fn delivered(&mut self, _context: &mut Context<'_>, flow: FlowId, ticket: Ticket) {
        if ticket == Ticket::NONE {
            self.found(Breach::ReceiptWithoutTicket { flow });
        }
    }

    fn peer_closed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        let word = context.word(flow).unwrap_or(0);
        if word & CONSUMED > 0 {
            let (number, _) = from_tag((word >> 48) as u8);
            self.findings.borrow_mut().ended.push((number, word & CONSUMED));
        }
        let _ = context.close(flow, CloseHow::Fin);
    }

    fn resumed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        let word = context.word(flow).unwrap_or(0);
        let (number, _) = from_tag((word >> 48) as u8);
        if word & CONSUMED > 0 && number >= self.connection_count {
            self.found(Breach::WordNotClean { flow, word: Some(word) });
        }
        if word & CONSUMED > 0 && context.attachment(flow) != name_of(number) {
            self.found(Breach::NameLost { connection: number });
        }
    }
}
