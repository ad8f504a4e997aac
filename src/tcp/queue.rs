//! Queues of payload: chains of spans over blocks that somebody else owns.
//!
//! A span names a block and a range in it. A queue is the chain from its head to its tail; the `next` of the tail means
//! nothing, so that appending to a queue that is then not committed does it no harm: whoever walks a queue stops at the
//! tail. The arenas implement [`Spans`].
//!
//! Invariant: nothing here frees or overwrites what a committed queue still names; `release` only marks.

use bytemuck::{Pod, Zeroable};

use super::{Active, SeqNum, Time};

/// No span.
pub const NO_SPAN: u32 = u32::MAX;

/// A range of a block, as one element of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Span {
    /// Index of the block.
    pub block: u32,
    /// Next span of the queue.
    pub next: u32,
    /// Where in the block the range begins.
    pub offset: u16,
    /// Length of the range; at least 1.
    pub bytes: u16,
    /// 1 where the range ends a push.
    pub is_last_of_push: u32,
    /// How many bytes of the push lie before the range.
    pub push_offset: u32,
    /// The push is dropped if it is not begun by then, in seconds of the stack's clock; 0 for never.
    pub expires_s: u32,
    /// The push that the range belongs to; 0 where nobody asked for a receipt.
    pub ticket: u64,
}

const _: () = assert!(size_of::<Span>() == 32);

/// The owner of spans. Its bound is its own: `append` is handed a span that exists already.
pub trait Spans {
    /// The span with this index.
    fn span(&self, index: u32) -> Span;
    /// Makes `next` follow `index`.
    fn link(&mut self, index: u32, next: u32);
    /// The queue names this span no longer.
    fn release(&mut self, index: u32);
}

/// The spans from `head` to `tail` with their indices, in order; none where `head` is `NO_SPAN`.
pub fn chain(spans: &impl Spans, head: u32, tail: u32) -> impl Iterator<Item = (u32, Span)> {
    let first = (head != NO_SPAN).then(|| (head, spans.span(head)));
    std::iter::successors(first, move |&(index, span)| (index != tail).then(|| (span.next, spans.span(span.next))))
}

/// Releases them. Returns how many there were.
pub fn release_chain(spans: &mut impl Spans, head: u32, tail: u32) -> usize {
    let (mut index, mut count) = (head, 0);
    while index != NO_SPAN {
        let next = spans.span(index).next;
        spans.release(index);
        index = if index == tail { NO_SPAN } else { next };
        count += 1;
    }
    count
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

/// Drops the pushes that are too old and not begun, calls `expired` with their tickets, and says by
/// `Active::set_send_limit` how far the queue may be sent. A push behind bytes in flight is dropped once those are
/// acknowledged, and not sent meanwhile.
pub fn drop_expired(
    active: &mut Active,
    snd_nxt: SeqNum,
    spans: &mut impl Spans,
    now: Time,
    mut expired: impl FnMut(u64),
) {
    let is_expired = |span: &Span| span.push_offset == 0 && span.expires_s != 0 && now.seconds() >= span.expires_s;
    while active.send_head != NO_SPAN && active.send_head_seq == snd_nxt {
        let span = spans.span(active.send_head);
        if !is_expired(&span) {
            break;
        }
        drop_head_push(active, spans);
        expired(span.ticket);
    }
    let mut seq = active.send_head_seq;
    for (_, span) in chain(spans, active.send_head, active.send_tail) {
        if !seq.before(snd_nxt) && is_expired(&span) {
            break;
        }
        seq = seq.plus(u32::from(span.bytes));
    }
    active.set_send_limit(seq);
}

/// Releases the spans of the first push; what is behind it moves up to its sequence number.
fn drop_head_push(active: &mut Active, spans: &mut impl Spans) {
    loop {
        let index = active.send_head;
        let span = spans.span(index);
        spans.release(index);
        active.snd_end = active.snd_end.minus(u32::from(span.bytes));
        if index == active.send_tail {
            active.send_head = NO_SPAN;
            active.send_tail = NO_SPAN;
            return;
        }
        active.send_head = span.next;
        if span.is_last_of_push == 1 {
            return;
        }
    }
}

/// Calls `take` with the ticket of each push in the send queue that has one, and how many of its bytes are
/// acknowledged.
pub fn for_each_pending_push(active: &Active, spans: &impl Spans, mut take: impl FnMut(u64, u32)) {
    let acknowledged = active.snd_una.since(active.send_head_seq);
    for (index, span) in chain(spans, active.send_head, active.send_tail) {
        let is_first = index == active.send_head;
        if span.ticket != 0 && (is_first || span.push_offset == 0) {
            take(span.ticket, if is_first { span.push_offset + acknowledged } else { 0 });
        }
    }
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

/// A place in the send queue: a span, and the sequence number of its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    index: u32,
    seq: SeqNum,
}

impl Place {
    /// The beginning of the queue.
    pub fn head(active: &Active) -> Place {
        Place { index: active.send_head, seq: active.send_head_seq }
    }
}

/// Calls `take` with block, offset and length of each piece of the send queue from `seq` on, `bytes` in all. Looks from
/// `place` on, where that does not lie behind, and leaves there where the last piece was found: so the segments of a
/// burst are found without beginning anew for each. Panics if the queue does not hold them.
#[inline]
pub fn gather(
    active: &Active,
    spans: &impl Spans,
    place: &mut Place,
    seq: SeqNum,
    bytes: u32,
    mut take: impl FnMut(u32, usize, usize),
) {
    if seq.before(place.seq) {
        *place = Place::head(active);
    }
    let mut skip = seq.since(place.seq);
    let mut left = bytes;
    while left > 0 {
        assert!(place.index != NO_SPAN, "a segment carries only bytes that are queued");
        let span = spans.span(place.index);
        let length = u32::from(span.bytes);
        if skip < length {
            let piece = (length - skip).min(left);
            take(span.block, usize::from(span.offset) + skip as usize, piece as usize);
            left -= piece;
            skip += piece;
        }
        if left == 0 {
            return;
        }
        skip -= length;
        let next = if place.index == active.send_tail { NO_SPAN } else { span.next };
        *place = Place { index: next, seq: place.seq.plus(length) };
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
    active.recv_spans += 1;
}

/// Appends the chain of spans from `head` to `tail` to the receive queue.
pub fn append_chain_to_recv_queue(active: &mut Active, spans: &mut impl Spans, head: u32, tail: u32) {
    let mut index = head;
    loop {
        let span = spans.span(index);
        append_to_recv_queue(active, spans, index, span.bytes);
        if index == tail {
            return;
        }
        index = span.next;
    }
}

/// Consumes `bytes` of the first span of the receive queue, at most what it holds.
pub fn consume_recv_queue(active: &mut Active, spans: &mut impl Spans, bytes: u32) {
    let span = spans.span(active.recv_head);
    active.recv_bytes -= bytes;
    active.recv_head_offset += bytes;
    assert!(active.recv_head_offset <= u32::from(span.bytes), "no more is consumed than was offered");
    if active.recv_head_offset == u32::from(span.bytes) {
        spans.release(active.recv_head);
        active.recv_spans -= 1;
        let is_last = active.recv_head == active.recv_tail;
        active.recv_head = if is_last { NO_SPAN } else { span.next };
        active.recv_head_offset = 0;
    }
}

/// Releases both queues.
pub fn release_all(active: &mut Active, spans: &mut impl Spans) {
    release_chain(spans, active.send_head, active.send_tail);
    release_chain(spans, active.recv_head, active.recv_tail);
    active.send_head = NO_SPAN;
    active.recv_head = NO_SPAN;
    active.recv_bytes = 0;
    active.recv_spans = 0;
}
