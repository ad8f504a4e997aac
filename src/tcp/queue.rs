//! Queues of payload: chains of spans over blocks that somebody else owns.
//!
//! A span names a block and a range in it. A queue is the chain from its head to its tail; the `next` of the tail means
//! nothing, so that appending to a queue that is then not committed does it no harm: whoever walks a queue stops at the
//! tail. The arenas implement [`Spans`].
//!
//! Invariant: nothing here frees or overwrites what a committed queue still names; `release` only marks.

use bytemuck::{Pod, Zeroable};

use super::{Active, SeqNum};

/// No span.
pub const NO_SPAN: u32 = u32::MAX;

/// A range of a block, as one element of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Span {
    /// Index of the block.
    pub block: u32,
    /// Where in the block the range begins.
    pub offset: u16,
    /// Length of the range; at least 1.
    pub bytes: u16,
    /// Next span of the queue.
    pub next: u32,
    /// 1 where the range ends a push.
    pub is_last_of_push: u32,
    /// The push that the range belongs to; 0 where nobody asked for a receipt.
    pub ticket: u64,
}

const _: () = assert!(size_of::<Span>() == 24);

/// The owner of spans. Its bound is its own: `append` is handed a span that exists already.
pub trait Spans {
    /// The span with this index.
    fn span(&self, index: u32) -> Span;
    /// Makes `next` follow `index`.
    fn link(&mut self, index: u32, next: u32);
    /// The queue names this span no longer.
    fn release(&mut self, index: u32);
}

/// Appends span `index`, which holds `bytes`, to the send queue.
pub fn append_to_send_queue(active: &mut Active, spans: &mut impl Spans, index: u32, bytes: u16) {
    if active.send_head == NO_SPAN {
        active.send_head = index;
        active.send_head_seq = active.snd_end;
    } else {
        spans.link(active.send_tail, index);
    }
    active.send_tail = index;
    active.snd_end = active.snd_end.plus(u32::from(bytes));
}

/// Releases the spans left of SND.UNA and calls `delivered` with the ticket of each push that ends there.
pub fn release_acknowledged(active: &mut Active, spans: &mut impl Spans, mut delivered: impl FnMut(u64)) {
    while active.send_head != NO_SPAN {
        let span = spans.span(active.send_head);
        let end = active.send_head_seq.plus(u32::from(span.bytes));
        if end.after(active.snd_una) {
            return;
        }
        if span.is_last_of_push == 1 && span.ticket != 0 {
            delivered(span.ticket);
        }
        spans.release(active.send_head);
        active.send_head_seq = end;
        let is_last = active.send_head == active.send_tail;
        active.send_head = if is_last { NO_SPAN } else { span.next };
    }
    active.send_tail = NO_SPAN;
}

/// Calls `take` with block, offset and length of each piece of the send queue from `seq` on, `bytes` in all.
/// Panics if the queue does not hold them.
pub fn gather(active: &Active, spans: &impl Spans, seq: SeqNum, bytes: u32, mut take: impl FnMut(u32, usize, usize)) {
    let mut index = active.send_head;
    let mut skip = seq.since(active.send_head_seq);
    let mut left = bytes;
    while left > 0 {
        assert!(index != NO_SPAN, "a segment carries only bytes that are queued");
        let span = spans.span(index);
        let length = u32::from(span.bytes);
        if skip < length {
            let piece = (length - skip).min(left);
            take(span.block, usize::from(span.offset) + skip as usize, piece as usize);
            left -= piece;
            skip = 0;
        } else {
            skip -= length;
        }
        index = if index == active.send_tail { NO_SPAN } else { span.next };
    }
}

/// Appends span `index`, which holds `bytes`, to the receive queue.
pub fn append_to_recv_queue(active: &mut Active, spans: &mut impl Spans, index: u32, bytes: u16) {
    if active.recv_head == NO_SPAN {
        active.recv_head = index;
        active.recv_head_offset = 0;
    } else {
        spans.link(active.recv_tail, index);
    }
    active.recv_tail = index;
    active.recv_bytes += u32::from(bytes);
}

/// Consumes `bytes` of the first span of the receive queue, at most what it holds.
pub fn consume_recv_queue(active: &mut Active, spans: &mut impl Spans, bytes: u32) {
    let span = spans.span(active.recv_head);
    active.recv_bytes -= bytes;
    active.recv_head_offset += bytes;
    assert!(active.recv_head_offset <= u32::from(span.bytes), "no more is consumed than was offered");
    if active.recv_head_offset == u32::from(span.bytes) {
        spans.release(active.recv_head);
        let is_last = active.recv_head == active.recv_tail;
        active.recv_head = if is_last { NO_SPAN } else { span.next };
        active.recv_head_offset = 0;
    }
}

/// Releases both queues.
pub fn release_all(active: &mut Active, spans: &mut impl Spans) {
    for (head, tail) in [(active.send_head, active.send_tail), (active.recv_head, active.recv_tail)] {
        let mut index = head;
        while index != NO_SPAN {
            let next = spans.span(index).next;
            spans.release(index);
            index = if index == tail { NO_SPAN } else { next };
        }
    }
    active.send_head = NO_SPAN;
    active.recv_head = NO_SPAN;
    active.recv_bytes = 0;
}
