//! The gate: what a batch lets out waits here until the batch may speak.
//!
//! Frames and notices are put in with the number of their batch and come out in order once that batch is durable. In
//! memory, and with a state directory, that is as soon as it is applied.
//!
//! Invariant: there is no other way out of a shard.

use std::collections::VecDeque;

use super::batch::Batch;
use super::types::Notice;

/// Capacity that an empty frame buffer keeps, in bytes.
const KEPT_BYTES: usize = 1 << 18;
/// Capacity that empty queues keep, in elements.
const KEPT_COUNT: usize = 1 << 10;

/// Everything that waits to leave.
#[derive(Default)]
pub(super) struct Gate {
    /// Frames, one after the other, from `sent` on.
    bytes: Vec<u8>,
    sent_bytes: usize,
    /// Those that wait are from `sent_frames` on.
    frames: Vec<Waiting<usize>>,
    sent_frames: usize,
    notices: VecDeque<Waiting<Notice>>,
    /// Batches up to this one may speak.
    durable: u64,
}

struct Waiting<T> {
    batch: u64,
    /// A notice, or where a frame ends in `bytes`.
    what: T,
}

impl Gate {
    /// Puts in the frame that `emit` appends.
    #[inline]
    pub fn put_frame(&mut self, batch: u64, emit: impl FnOnce(&mut Vec<u8>)) {
        emit(&mut self.bytes);
        self.frames.push(Waiting { batch, what: self.bytes.len() });
    }

    /// Puts in a notice.
    pub fn put_notice(&mut self, batch: u64, notice: Notice) {
        self.notices.push_back(Waiting { batch, what: notice });
    }

    /// Batches up to this one may speak.
    pub fn open_up_to(&mut self, batch: u64) {
        self.durable = batch;
    }

    fn may_speak(&self, batch: u64) -> bool {
        batch <= self.durable
    }

    /// Whether a frame may leave.
    pub fn has_frames(&self) -> bool {
        self.frames.get(self.sent_frames).is_some_and(|frame| self.may_speak(frame.batch))
    }

    /// Hands out frames until `send` answers false; that one stays.
    pub fn take_frames(&mut self, mut send: impl FnMut(&[u8]) -> bool) {
        while let Some(frame) = self.frames.get(self.sent_frames) {
            if !self.may_speak(frame.batch) || !send(&self.bytes[self.sent_bytes..frame.what]) {
                self.compact();
                return;
            }
            self.sent_bytes = frame.what;
            self.sent_frames += 1;
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.frames.clear();
        self.frames.shrink_to(KEPT_COUNT);
        (self.sent_bytes, self.sent_frames) = (0, 0);
    }

    /// How many bytes of frames wait.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.sent_bytes
    }

    /// Forgets what was sent, where that is most of the buffer.
    fn compact(&mut self) {
        if self.sent_bytes <= self.bytes.len() / 2 || self.sent_bytes < KEPT_BYTES {
            return;
        }
        self.bytes.drain(..self.sent_bytes);
        self.frames.drain(..self.sent_frames);
        for frame in &mut self.frames {
            frame.what -= self.sent_bytes;
        }
        (self.sent_bytes, self.sent_frames) = (0, 0);
    }

    /// Hands out notices.
    pub fn take_notices(&mut self, mut take: impl FnMut(Notice)) {
        while let Some(notice) = self.notices.pop_front_if(|notice| notice.batch <= self.durable) {
            take(notice.what);
        }
        self.notices.shrink_to(KEPT_COUNT);
    }
}

impl Batch {
    /// Sends a frame that is of no flow.
    pub fn put_frame(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        self.gate.put_frame(self.number, emit);
        self.count_frame(None);
    }

    /// Counts a frame that was put into the gate, of the flow at `position` if it is of one.
    pub fn count_frame(&mut self, position: Option<usize>) {
        self.tables.frames_out += 1;
        self.tables.trace_sent(position);
    }

    pub fn put_notice(&mut self, notice: Notice) {
        self.gate.put_notice(self.number, notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(gate: &mut Gate, most: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        gate.take_frames(|frame| {
            let has_room = sent.len() < most;
            if has_room {
                sent.push(frame.to_vec());
            }
            has_room
        });
        sent
    }

    #[test]
    fn nothing_leaves_before_its_batch_may_speak() {
        let mut gate = Gate::default();
        gate.put_frame(1, |bytes| bytes.extend_from_slice(b"one"));
        gate.put_frame(2, |bytes| bytes.extend_from_slice(b"two"));
        assert!(!gate.has_frames() && sent(&mut gate, 9).is_empty());
        gate.open_up_to(1);
        assert_eq!(sent(&mut gate, 9), [b"one"]);
        assert!(!gate.has_frames());
        gate.open_up_to(2);
        assert_eq!(sent(&mut gate, 9), [b"two"]);
    }

    #[test]
    fn a_frame_that_is_not_taken_stays_first() {
        let mut gate = Gate::default();
        for frame in [b"a", b"b", b"c"] {
            gate.put_frame(1, |bytes| bytes.extend_from_slice(frame));
        }
        gate.open_up_to(1);
        assert_eq!(sent(&mut gate, 1), [b"a"]);
        assert_eq!(sent(&mut gate, 9), [b"b", b"c"]);
    }
}
