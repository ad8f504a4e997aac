//! What one connection owes: the model against which everything that either side sees of it is checked.
//!
//! Sights of the client's application, notices of the shard and the ends of calls come in; a [`Breach`] comes out
//! when one of them cannot be right. Whether a push that was under way when the process died was committed is known
//! from the commit point (a complete record is a commit); whether the shard took or refused it is then told by nobody,
//! so such a push may stand in the stream or not, and what the client receives decides.
//!
//! `pushes` is the part that is about pushes and their receipts.
//!
//! Invariant: the ledger knows nothing of sequence numbers, segments or timers. It judges by streams, and by who has
//! asked for what.

use std::net::SocketAddr;

use crate::shard::{CloseHow, CloseReason, FlowId};

use super::client::Progress;
use super::pattern::{self, Stream};
use super::profile::{NodeParameters, Workload};
use super::report::Breach;

mod pushes;

/// One connection's account.
pub(super) struct Ledger {
    number: usize,
    seed: u64,
    /// Echo or hold.
    pub(super) workload: Workload,
    /// The client's end.
    pub(super) remote: SocketAddr,
    /// Its id, once the shard has told it.
    pub(super) flow: Option<FlowId>,
    /// Whether the shard has said that it is over, or did not have it any more after a restart.
    pub(super) is_closed: bool,
    has_ended_in_order: bool,
    /// Whether the service was told of the end of the client's stream.
    has_stream_ended: bool,
    /// What the shard was told to do with it, if that was committed or may have been.
    pub(super) asked_to_close: Option<CloseHow>,
    /// Whether the client has asked its TCP for the connection.
    pub(super) is_begun: bool,
    /// Whether another connection had the client's end before.
    pub(super) is_successor: bool,
    /// Whether the client has gone without a word, for good.
    pub(super) is_vanished: bool,
    /// Whether the client's side has nothing left to do.
    pub(super) is_over: bool,
    client: ClientSide,
    pushes: Vec<Push>,
    /// Where in the pushes the client's stream may stand: which push, and which byte of it.
    places: Vec<(usize, usize)>,
    received_bytes: u64,
    /// How many of its bytes the client's TCP has told as acknowledged, where it tells.
    own_delivered_bytes: u64,
    send_queue_bytes: u64,
    /// Whether the shard may have no room for a push.
    is_tight: bool,
}

/// What the client has done that the server may take as a reason.
#[derive(Clone, Copy, Default)]
struct ClientSide {
    is_established: bool,
    has_closed: bool,
    has_aborted: bool,
    written_bytes: u64,
}

struct Push {
    ticket: u64,
    bytes: usize,
    standing: Standing,
    /// In which life of the process it was told as delivered, the last time.
    told_in_life: Option<u64>,
    /// Whether a kill may have swallowed the receipt.
    may_be_untold: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// The call that pushes it has not returned.
    Called,
    /// The shard has said that it is queued.
    Committed,
    /// Committed or refused: the process died before it said which.
    Unknown,
}

impl Ledger {
    /// The account of a connection that has not begun.
    pub(super) fn new(application: &Progress, workload: Workload, seed: u64, node: &NodeParameters) -> Ledger {
        Ledger {
            number: application.number,
            seed,
            workload,
            remote: application.local,
            flow: None,
            is_closed: false,
            has_ended_in_order: false,
            has_stream_ended: false,
            asked_to_close: None,
            is_begun: false,
            is_successor: false,
            is_vanished: false,
            is_over: false,
            client: ClientSide::default(),
            pushes: Vec::new(),
            places: vec![(0, 0)],
            received_bytes: 0,
            own_delivered_bytes: 0,
            send_queue_bytes: u64::from(node.send_queue_bytes),
            is_tight: node.is_tight,
        }
    }

    /// Whether the shard holds it as far as we have been told.
    pub(super) fn is_held(&self) -> bool {
        self.flow.is_some() && !self.is_closed
    }

    /// Whether the shard holds it, and may do so for ever, as nobody at the other end will say anything.
    pub(super) fn is_abandoned(&self) -> bool {
        let may_be_silent = self.client.has_aborted || self.is_vanished || self.asked_to_close == Some(CloseHow::Reset);
        self.is_held() && may_be_silent
    }

    /// Whether its client was ever established.
    pub(super) fn is_established(&self) -> bool {
        self.client.is_established
    }

    /// How many pushes stand as committed.
    pub(super) fn committed_count(&self) -> u64 {
        self.pushes.iter().filter(|push| push.standing == Standing::Committed).count() as u64
    }

    /// Takes over what the application has done so far.
    pub(super) fn follow(&mut self, application: &Progress) {
        self.is_begun = application.is_begun;
        self.client.is_established |= application.is_established;
        self.client.has_closed |= application.is_closed;
        self.client.has_aborted |= application.is_aborted;
        self.client.written_bytes = application.written_bytes;
        self.is_over |= application.is_over;
    }

    /// The client's application has received the next bytes.
    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> Result<(), Breach> {
        match self.workload {
            Workload::Echo => {
                // The first byte of the client's stream is not echoed.
                let offset = self.received_bytes + 1;
                let is_too_much = offset + bytes.len() as u64 > self.client.written_bytes;
                let difference = pattern::first_difference(self.seed, Stream::FromClient(self.number), offset, bytes);
                if is_too_much || difference.is_some() {
                    return Err(self.wrong_byte(difference.unwrap_or(0)));
                }
            }
            Workload::Hold => {
                let mut done = 0;
                while done < bytes.len() {
                    match self.advance(&bytes[done..]) {
                        0 => return Err(self.wrong_byte(done)),
                        taken => done += taken,
                    }
                }
            }
        }
        self.received_bytes += bytes.len() as u64;
        Ok(())
    }

    fn wrong_byte(&self, at: usize) -> Breach {
        Breach::WrongBytesDelivered { connection: self.number, offset: self.received_bytes + at as u64 }
    }

    /// Moves on by as many of `bytes` as can be taken at once; 0 if the next one fits nowhere.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        self.places = self.places_with_skips();
        let (seed, pushes) = (self.seed, &self.pushes);
        let rest = |&(index, offset): &(usize, usize)| pushes.get(index).map_or(0, |push| push.bytes - offset);
        // All places can take this many without leaving their push.
        let Some(count) = self.places.iter().map(rest).filter(|&rest| rest > 0).min() else { return 0 };
        let count = count.min(bytes.len());
        let fits = |&(index, offset): &(usize, usize)| {
            let Some(push) = pushes.get(index) else { return false };
            let stream = Stream::Push(push.ticket);
            pattern::first_difference(seed, stream, offset as u64, &bytes[..count]).is_none()
        };
        let mut next: Vec<(usize, usize)> = self.places.iter().copied().filter(fits).collect();
        for place in &mut next {
            place.1 += count;
            if place.1 == pushes[place.0].bytes {
                *place = (place.0 + 1, 0);
            }
        }
        if next.is_empty() {
            return 0;
        }
        self.places = next;
        count
    }

    /// The places, and those reached from them by leaving out pushes that may have been refused.
    fn places_with_skips(&self) -> Vec<(usize, usize)> {
        let mut places = self.places.clone();
        let mut at = 0;
        while let Some(&(index, offset)) = places.get(at) {
            let may_skip = offset == 0 && self.pushes.get(index).is_some_and(|push| push.standing == Standing::Unknown);
            if may_skip && !places.contains(&(index + 1, 0)) {
                places.push((index + 1, 0));
            }
            at += 1;
        }
        places
    }

    /// The client's application has seen the end of the stream.
    pub(super) fn on_end(&mut self) -> Result<(), Breach> {
        if !self.client.has_closed && self.asked_to_close != Some(CloseHow::Half) {
            return Err(Breach::EndUnasked { connection: self.number });
        }
        let is_complete = match self.workload {
            Workload::Echo if self.asked_to_close.is_some() => true,
            Workload::Echo => self.received_bytes + 1 == self.client.written_bytes,
            Workload::Hold => self.places_with_skips().contains(&(self.pushes.len(), 0)),
        };
        if is_complete {
            return Ok(());
        }
        Err(Breach::EndTooEarly { connection: self.number, received: self.received_bytes })
    }

    /// The client's TCP says that so many of its bytes are acknowledged; the node's has acknowledged `taken_bytes`.
    pub(super) fn on_own_delivered(&mut self, bytes: u64, taken_bytes: u64) -> Result<(), Breach> {
        let (connection, ticket) = (self.number, bytes);
        if bytes <= self.own_delivered_bytes {
            return Err(Breach::ReceiptTwice { connection, ticket });
        }
        if taken_bytes < bytes {
            return Err(Breach::ReceiptTooEarly { connection, ticket, held: taken_bytes, needed: bytes });
        }
        self.own_delivered_bytes = bytes;
        Ok(())
    }

    /// The client's connection was reset.
    pub(super) fn on_reset(&self) -> Result<(), Breach> {
        if self.asked_to_close == Some(CloseHow::Reset) {
            return Ok(());
        }
        Err(Breach::ResetUnasked { connection: self.number })
    }

    /// The shard has told the id of the connection, by a notice or in its table.
    pub(super) fn on_id(&mut self, flow: FlowId) -> Result<(), Breach> {
        match self.flow.replace(flow) {
            Some(before) if before != flow => Err(Breach::IdChanged { connection: self.number, before, after: flow }),
            _ => Ok(()),
        }
    }

    /// A restarted shard does not have the connection. `is_kill_between` when the process died between two calls, so
    /// that no notice can have been lost with it.
    pub(super) fn on_missing(&mut self, is_kill_between: bool) -> Result<(), Breach> {
        let client = self.client;
        let has_reason =
            client.has_closed || client.has_aborted || self.is_over || self.asked_to_close == Some(CloseHow::Reset);
        if is_kill_between || !has_reason {
            return Err(Breach::Lost { connection: self.number });
        }
        self.is_closed = true;
        Ok(())
    }

    /// The service was told that the client's stream has ended.
    pub(super) fn on_stream_ended(&mut self, consumed: u64) -> Result<(), Breach> {
        let written = self.client.written_bytes;
        self.has_stream_ended = true;
        if self.client.has_closed && consumed == written {
            return Ok(());
        }
        Err(Breach::StreamCutShort { connection: self.number, consumed, written })
    }

    /// The shard says that the peer has closed.
    pub(super) fn on_peer_closed(&self) -> Result<(), Breach> {
        if self.client.has_closed {
            return Ok(());
        }
        let (consumed, written) = (0, self.client.written_bytes);
        Err(Breach::StreamCutShort { connection: self.number, consumed, written })
    }

    /// The shard says that the connection is over.
    pub(super) fn on_closed(&mut self, reason: CloseReason) -> Result<(), Breach> {
        let client = self.client;
        let is_gone = client.has_aborted || self.is_over || self.is_vanished;
        let has_reason = match reason {
            CloseReason::BothClosed => client.has_closed,
            CloseReason::PeerReset => client.has_aborted || self.is_over,
            CloseReason::Aborted => self.asked_to_close == Some(CloseHow::Reset),
            CloseReason::TimedOut | CloseReason::PeerNeverClosed | CloseReason::KeepaliveTimedOut => is_gone,
            CloseReason::HandshakeFailed | CloseReason::IdleTimedOut => false,
            CloseReason::DataAfterClose => self.asked_to_close == Some(CloseHow::Half),
            CloseReason::Refused | CloseReason::Unreachable => false,
        };
        if self.is_closed || !has_reason {
            return Err(Breach::ClosedUnasked { connection: self.number, reason });
        }
        self.is_closed = true;
        self.has_ended_in_order = reason == CloseReason::BothClosed;
        Ok(())
    }

    /// Everything is over: of a connection that ended in order the service has read all, and it has all its receipts.
    /// (Otherwise the client's last acknowledgment may have been lost, and the client gone when it was asked again.)
    pub(super) fn settle(&self) -> Result<(), Breach> {
        if !self.has_ended_in_order {
            return Ok(());
        }
        let written = self.client.written_bytes;
        if written > 0 && !self.has_stream_ended {
            return Err(Breach::StreamUnread { connection: self.number, written });
        }
        let is_due =
            |push: &&Push| push.standing == Standing::Committed && push.told_in_life.is_none() && !push.may_be_untold;
        match self.pushes.iter().find(is_due) {
            Some(push) => Err(Breach::ReceiptMissing { connection: self.number, ticket: push.ticket }),
            None => Ok(()),
        }
    }
}
