//! Books: what is known of each connection from notices and calls, against what may be told of it.
//!
//! Held: every push has one fate, in order; the bytes that are received are those that were sent, without a gap;
//! nothing is told of a connection before it is open or after it is over.

use std::collections::VecDeque;

use holdline::shard::{FlowId, Ticket};

/// A push that is, or may be, in a send queue.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    pub ticket: Ticket,
    pub bytes: u32,
    pub salt: u8,
    /// It may not be there, and nothing may ever be told of it.
    pub is_uncertain: bool,
    /// Where in the stream it begins, once it was seen on the wire.
    pub start: Option<u32>,
}

impl Pushed {
    pub fn new(ticket: Ticket, bytes: u32, salt: u8) -> Pushed {
        Pushed { ticket, bytes, salt, is_uncertain: false, start: None }
    }
}

/// The content of a push, whose first byte is its salt, so that those of pushes that follow each other differ.
pub fn server_bytes(salt: u8, bytes: usize) -> &'static [u8] {
    &PATTERN[usize::from(STARTS[usize::from(salt)])..][..bytes]
}

/// What every peer sends from a sequence number on.
pub fn peer_bytes(seq: u32, bytes: usize) -> &'static [u8] {
    &PATTERN[seq as usize % PERIOD..][..bytes]
}

/// Most bytes that can be asked for at once.
pub const BYTES_MAX: usize = 8_000;
const PERIOD: usize = 8_192;

/// Bytes without order, twice, so that pieces can be compared as a whole.
static PATTERN: [u8; 2 * PERIOD] = {
    let mut pattern = [0; 2 * PERIOD];
    let (mut at, mut state) = (0, 1u32);
    while at < PERIOD {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        pattern[at] = (state >> 24) as u8;
        pattern[at + PERIOD] = pattern[at];
        at += 1;
    }
    pattern
};

/// Where in it each byte stands.
static STARTS: [u16; 256] = {
    let mut starts = [0; 256];
    let mut at = PERIOD;
    while at > 0 {
        at -= 1;
        starts[PATTERN[at] as usize] = at as u16;
    }
    starts
};

/// What is known of one connection that was opened.
#[derive(Clone, Debug)]
pub struct Book {
    pub id: FlowId,
    /// Number of the peer.
    pub peer: usize,
    /// The peer's initial sequence number, once known.
    pub irs: Option<u32>,
    pub pushes: VecDeque<Pushed>,
    /// How many bytes of the stream to the peer are seen to belong to a push.
    assigned_bytes: u32,
    consumed_bytes: u32,
    /// It was opened in the operation under way.
    pub is_new: bool,
    pub is_peer_closed: bool,
    pub is_close_asked: bool,
    pub is_paused: bool,
    /// A process died and took with it what it had to tell.
    pub is_blurred: bool,
}

type Held = Result<(), &'static str>;

impl Book {
    pub fn new(id: FlowId, peer: usize, irs: Option<u32>) -> Book {
        Book {
            id,
            peer,
            irs,
            pushes: VecDeque::new(),
            assigned_bytes: 0,
            consumed_bytes: 0,
            is_new: true,
            is_peer_closed: false,
            is_close_asked: false,
            is_paused: false,
            is_blurred: false,
        }
    }

    /// Payload, and perhaps the FIN, of our stream on the wire, from an offset on.
    pub fn on_wire(&mut self, offset: u32, payload: &[u8], has_fin: bool) -> Held {
        if self.is_blurred {
            return Ok(());
        }
        let mut at = offset;
        let mut rest = payload;
        while !rest.is_empty() {
            let pushed = match at.cmp(&self.assigned_bytes) {
                std::cmp::Ordering::Greater => return Err("bytes are sent that leave a gap behind them"),
                std::cmp::Ordering::Equal => self.assign_next(rest[0])?,
                std::cmp::Ordering::Less => self.push_at(at)?,
            };
            let start = pushed.start.ok_or("a push that was seen on the wire begins somewhere")?;
            let inside = at - start;
            let piece = rest.len().min((pushed.bytes - inside) as usize);
            let content = server_bytes(pushed.salt, pushed.bytes as usize);
            if rest[..piece] != content[inside as usize..][..piece] {
                return Err("bytes are sent that are not those of the push");
            }
            rest = &rest[piece..];
            at += piece as u32;
        }
        let is_waiting = |pushed: &Pushed| pushed.start.is_none() && !pushed.is_uncertain;
        if has_fin && (at != self.assigned_bytes || self.pushes.iter().any(is_waiting)) {
            return Err("a FIN is sent before everything that was queued");
        }
        Ok(())
    }

    /// The next push that goes on the wire; those that need not be there may be passed over.
    fn assign_next(&mut self, first: u8) -> Result<Pushed, &'static str> {
        let start = self.assigned_bytes;
        for pushed in self.pushes.iter_mut().filter(|pushed| pushed.start.is_none()) {
            if pushed.salt == first {
                pushed.start = Some(start);
                self.assigned_bytes += pushed.bytes;
                return Ok(*pushed);
            }
            if !pushed.is_uncertain {
                return Err("bytes are sent that are not those of the next push");
            }
        }
        Err("bytes are sent that nobody has pushed")
    }

    fn push_at(&self, at: u32) -> Result<Pushed, &'static str> {
        let is_it = |pushed: &&Pushed| pushed.start.is_some_and(|start| at.wrapping_sub(start) < pushed.bytes);
        self.pushes.iter().find(is_it).copied().ok_or("bytes are sent again that were acknowledged")
    }

    /// The peer has acknowledged all of a push, says a notice; `acked_bytes` of the stream is what it did acknowledge.
    pub fn on_delivered(&mut self, ticket: Ticket, acked_bytes: Option<u32>) -> Held {
        let taken = self.take(ticket);
        if self.is_blurred {
            return Ok(());
        }
        let pushed = taken.ok_or("a push is delivered that is not next")?;
        let start = pushed.start.ok_or("a push is delivered that was never sent")?;
        match acked_bytes {
            Some(acked) if acked < start + pushed.bytes => Err("a push is delivered that the peer did not acknowledge"),
            _ => Ok(()),
        }
    }

    /// A push has expired, says a notice.
    pub fn on_expired(&mut self, ticket: Ticket) -> Held {
        let position = self.pushes.iter().position(|pushed| pushed.ticket == ticket && pushed.start.is_none());
        match position.and_then(|position| self.pushes.remove(position)) {
            Some(_) => Ok(()),
            None if self.is_blurred => Ok(()),
            None => Err("a push has expired that was begun, or was not there"),
        }
    }

    /// A push is lost with the connection, says a notice.
    pub fn on_undelivered(&mut self, ticket: Ticket, acked_bytes: u32) -> Held {
        let taken = self.take(ticket);
        if self.is_blurred {
            return Ok(());
        }
        let pushed = taken.ok_or("a push is undelivered that is not next")?;
        match acked_bytes <= pushed.bytes {
            true => Ok(()),
            false => Err("more of a push was acknowledged than it has"),
        }
    }

    /// Takes the push with this ticket out, and those in front of it, of which nothing need be told.
    fn take(&mut self, ticket: Ticket) -> Option<Pushed> {
        let position = self.pushes.iter().position(|pushed| pushed.ticket == ticket)?;
        let may_be_silent = |pushed: &Pushed| pushed.is_uncertain || pushed.ticket == Ticket::NONE;
        if !self.pushes.iter().take(position).all(|pushed| self.is_blurred || may_be_silent(pushed)) {
            return None;
        }
        self.pushes.drain(..=position).next_back()
    }

    /// The application has consumed bytes of the peer's stream. `is_true` where peers send what `peer_bytes` says.
    pub fn on_received(&mut self, offset: u32, bytes: &[u8], is_true: bool) -> Held {
        if self.is_peer_closed && !self.is_blurred {
            return Err("bytes are received behind the peer's FIN");
        }
        if offset != self.consumed_bytes && !self.is_blurred {
            return Err("bytes are received with a gap, or twice");
        }
        self.consumed_bytes = offset.wrapping_add(bytes.len() as u32);
        let Some(irs) = self.irs.filter(|_| is_true) else { return Ok(()) };
        let first = irs.wrapping_add(1).wrapping_add(offset);
        // The application may be offered more at once than any segment carries.
        let mut pieces = bytes.chunks(BYTES_MAX).enumerate();
        let is_right = |(number, piece): (usize, &[u8])| {
            piece == peer_bytes(first.wrapping_add((number * BYTES_MAX) as u32), piece.len())
        };
        match pieces.all(is_right) {
            true => Ok(()),
            false => Err("other bytes are received than were sent"),
        }
    }

    /// The peer has urgent bytes up to here, says a notice.
    pub fn on_urgent(&mut self, end: u32) -> Held {
        match self.is_blurred || (end.wrapping_sub(self.consumed_bytes) as i32) > 0 {
            true => Ok(()),
            false => Err("bytes are called urgent that were received before"),
        }
    }

    pub fn on_peer_closed(&mut self) -> Held {
        if self.is_peer_closed {
            return Err("the peer closes twice");
        }
        self.is_peer_closed = true;
        Ok(())
    }

    /// The connection is over: whether every push has its fate.
    pub fn on_closed(&self) -> Held {
        let may_be_silent = |pushed: &Pushed| pushed.is_uncertain || pushed.ticket == Ticket::NONE;
        match self.is_blurred || self.pushes.iter().all(may_be_silent) {
            true => Ok(()),
            false => Err("a connection is over and a push of it has no fate"),
        }
    }

    /// How many bytes are in the send queue at least, and at most.
    pub fn queued_bounds(&self) -> (u32, u32) {
        let waiting = self.pushes.iter().filter(|pushed| pushed.start.is_none() && !pushed.is_uncertain);
        (waiting.map(|pushed| pushed.bytes).sum(), self.pushes.iter().map(|pushed| pushed.bytes).sum())
    }

    /// A process has died after it had changed the connection and before it told anybody.
    pub fn blur(&mut self) {
        self.is_blurred = true;
        self.pushes.iter_mut().for_each(|pushed| pushed.is_uncertain = true);
        // The peer may have closed; that it does so twice is not seen any more.
        self.is_peer_closed = false;
    }
}
