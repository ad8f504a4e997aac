//! Look: what must hold of the frames that came out, and of the shard, after every operation.

use std::net::SocketAddr;

use holdline::shard::{FlowView, PushError, State};

use super::book::Book;
use super::frame::{self, Came, Ends};
use super::translate::{Family, off_wire};
use super::wire::Standing;
use super::world::World;
use holdline::shard::Notice;

/// The ends of a connection, without an Ethernet address.
pub fn ends_of(local: SocketAddr, remote: SocketAddr) -> Ends {
    Ends {
        mac: [0; 6],
        remote: off_wire(remote.ip()),
        remote_port: remote.port(),
        local: off_wire(local.ip()),
        local_port: local.port(),
    }
}

/// Whether the state ends by itself some time, or by what a timer repeats.
fn is_passing(state: State) -> bool {
    match state {
        State::SynSent
        | State::SynReceived
        | State::FinWait1
        | State::FinWait2
        | State::Closing
        | State::LastAck
        | State::TimeWait => true,
        State::Free | State::Established | State::CloseWait => false,
    }
}

impl World {
    /// Reads the frames that came out against what is known of their connections.
    pub(super) fn read_coming(&mut self) {
        let came = std::mem::take(&mut self.came);
        let mut start = 0;
        for at in 0..self.came_ends.len() {
            let end = self.came_ends[at];
            if let Err(what) = self.read_frame(&came[start..end]) {
                self.fail(&format!("{what}: {:02x?}", &came[start..end]));
            }
            start = end;
        }
        self.came = came;
    }

    fn read_frame(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let (ends, segment) = match frame::read_coming(bytes, self.config.mtu)? {
            Came::Tcp(ends, segment) => (ends, segment),
            Came::Other => return Ok(()),
        };
        if !self.macs.contains(&ends.mac) {
            return Err("a segment to an Ethernet address that nobody has");
        }
        let wires = self.wires.len();
        let wire = self.wire_of(&ends);
        if wire == wires && self.is_calling_from_any {
            self.wires[wire].is_called = true;
        } else if wire == wires && self.family == Family::Ipv6 {
            // Bytes at random may be a frame over IPv6, which is not read where it goes in.
            self.wires[wire].is_called = true;
            self.wires[wire].is_blurred = true;
        } else if wire == wires {
            return Err("a segment to somebody who has said nothing");
        }
        let book = self.books.iter().find(|book| book.peer == wire);
        let standing = match book.map(|book| book.is_new) {
            None => Standing::NotOpen,
            Some(true) => Standing::Opening,
            Some(false) => Standing::Open,
        };
        let offset = self.wires[wire].on_coming(&segment, standing)?;
        self.hear(wire, &segment);
        let Some(offset) = offset else { return Ok(()) };
        // A connection that ended in the same operation has no book any more.
        match self.books.iter_mut().find(|book| book.peer == wire) {
            Some(book) => book.on_wire(offset, segment.payload, segment.has(frame::FIN)),
            None => Ok(()),
        }
    }

    /// A push that was refused was refused for a reason.
    pub(super) fn on_refused(&mut self, notice: &Notice) -> Result<(), &'static str> {
        let Notice::Refused { flow, ticket, error } = *notice else { return Ok(()) };
        let offered = self.offered.iter().find(|(id, pushed)| *id == flow && pushed.ticket == ticket);
        let (_, pushed) = offered.ok_or("a push is refused that was not offered")?;
        let bytes = pushed.bytes;
        let queue_bytes = self.config.send_queue_bytes;
        let book = self.books.iter().find(|book| book.id == flow);
        let is_right = match error {
            PushError::Empty => bytes == 0,
            PushError::TooLarge => bytes > queue_bytes,
            // A connection that is half open, or closing, has ended for pushes.
            PushError::Unknown => book.is_none(),
            PushError::Gone => book.is_none_or(|book| book.is_close_asked || book.is_blurred),
            PushError::FlowFull => {
                book.is_some_and(|book| book.is_blurred || book.queued_bounds().1 + bytes > queue_bytes)
            }
            PushError::ShardFull => true,
        };
        if is_right { Ok(()) } else { Err("a push is refused for no reason") }
    }

    /// Looks at every connection and every count.
    pub(super) fn look(&mut self) {
        let now = self.now;
        let mut views: [Option<FlowView>; 64] = [None; 64];
        let mut count = 0;
        self.shard().flows(now, 0, |view| {
            views[count] = Some(view);
            count += 1;
            count < views.len()
        });
        let views = &views[..count];
        let mut half_open = 0;
        let mut is_something_due = false;
        let mut open = 0;
        let mut held = 0u64;
        for view in views.iter().flatten() {
            let is_half_open = matches!(view.state, State::SynSent | State::SynReceived);
            half_open += u32::from(is_half_open);
            is_something_due |= is_passing(view.state) || view.unacked_bytes > 0;
            let wire = self.wire_of(&ends_of(view.local, view.remote));
            self.wires[wire].is_called |= view.state == State::SynSent;
            if held >> wire & 1 == 1 {
                self.fail("two connections have the same ends");
            }
            held |= 1 << wire;
            if view.state == State::SynSent && self.wires[wire].talk.is_some_and(|talk| !talk.is_calling) {
                // The stack's SYN waits for ARP, and what was said here before is of another connection.
                self.wires[wire].talk = None;
            }
            let book = self.books.iter().find(|book| book.id == view.id);
            open += usize::from(book.is_some());
            if let (Some(talk), Some(book)) =
                (&self.wires[wire].talk, self.books.iter_mut().find(|it| it.id == view.id))
                && !talk.is_calling
                && !book.is_blurred
            {
                // What was opened by the answer to the stack's own SYN is known by now.
                book.irs = Some(talk.irs);
            }
            let book = self.books.iter().find(|book| book.id == view.id);
            let result = match book {
                Some(_) if is_half_open => Err("a connection was opened and is half open"),
                Some(book) => look_at(book, view),
                None if is_half_open => Ok(()),
                None => Err("a connection is open and nobody was told"),
            };
            if let Err(what) = result {
                self.fail(&format!("{what}: {view:?}, {book:?}"));
            }
        }
        if open != self.books.len() {
            self.fail("a connection is over and nobody was told");
        }
        for wire in 0..self.wires.len() {
            self.wires[wire].end_operation(held >> wire & 1 == 1);
        }
        self.books.iter_mut().for_each(|book| book.is_new = false);
        self.look_at_counts(count as u32, half_open, is_something_due);
    }

    fn look_at_counts(&mut self, flows: u32, half_open: u32, is_something_due: bool) {
        let stats = self.shard().stats();
        if stats.flows != flows || stats.half_open != half_open || stats.half_open + stats.established > flows {
            self.fail(&format!("{flows} connections, {half_open} half open, are there, but {stats:?}"));
        }
        if stats.actives > stats.flows {
            self.fail(&format!("there are more active blocks than connections: {stats:?}"));
        }
        if half_open > self.config.half_open_max && self.wires.iter().all(|wire| !wire.is_called) {
            self.fail("more connections are half open than may be");
        }
        if is_something_due && self.shard().next_deadline().is_none() {
            self.fail("something is under way and no timer runs");
        }
    }
}

fn look_at(book: &Book, view: &FlowView) -> Result<(), &'static str> {
    if book.is_paused != view.is_paused {
        return Err("a connection is paused, or not, against what was asked for");
    }
    let (least, most) = book.queued_bounds();
    if !book.is_blurred && !(least..=most).contains(&view.unacked_bytes) {
        return Err("a connection has other bytes in its queue than were pushed");
    }
    Ok(())
}
