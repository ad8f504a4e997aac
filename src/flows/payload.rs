//! Payload: spans and the blocks that they name.
//!
//! Bytes are written into free blocks and named by free spans before anything committed knows of them, so neither needs
//! to be logged. What a batch releases stays untouched until the batch is applied (`reclaim`): the state before it may
//! still be needed. Blocks are counted, so that one payload can stand in many queues.
//!
//! Invariant: a block or span that a committed queue names is never written, but for the `next` of a queue's tail.

use std::io;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::ahead::Area;
use super::arena::Arena;
use super::slots::Slots;
use crate::tcp::{self, Active, NO_SPAN, Span, Spans};

/// Payload bytes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub struct Block(pub [u8; BLOCK_BYTES]);
/// How many bytes a block holds: a full segment of an Ethernet, with room.
pub const BLOCK_BYTES: usize = 2048;

/// What the spans of one push have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Label {
    /// The push; 0 where nobody asked for a receipt.
    pub ticket: u64,
    /// When it expires, in seconds of the stack's clock; 0 for never.
    pub expires_s: u32,
}

/// Why a committed queue cannot be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokenQueue;

/// Owner of spans and blocks.
pub struct Payload {
    spans: Arena<Span>,
    blocks: Arena<Block>,
    taken_spans: Slots,
    taken_blocks: Slots,
    /// How many spans name each block.
    references: Arena<u32>,
    /// How far each block is written.
    filled: Arena<u16>,
    released: Vec<u32>,
    /// Spans of the chain that was stored last.
    stored: Vec<u32>,
}

impl Payload {
    /// Over these arenas, with nothing taken. Errors: the address space cannot be had.
    pub fn new(spans: Arena<Span>, blocks: Arena<Block>, spans_max: u32, blocks_max: u32) -> io::Result<Payload> {
        Ok(Payload {
            spans,
            blocks,
            taken_spans: Slots::new(spans_max),
            taken_blocks: Slots::new(blocks_max),
            references: Arena::anonymous(blocks_max, false)?,
            filled: Arena::anonymous(blocks_max, false)?,
            released: Vec::new(),
            stored: Vec::new(),
        })
    }

    /// Forgets what is taken, as a process that ends does; `adopt` finds it again.
    pub fn forget(&mut self) {
        self.taken_spans = Slots::new(self.taken_spans.capacity());
        self.taken_blocks = Slots::new(self.taken_blocks.capacity());
        self.references.release_from(0);
        self.filled.release_from(0);
        self.released.clear();
    }

    /// How many spans and blocks are taken.
    pub fn used(&self) -> (u32, u32) {
        (self.taken_spans.used(), self.taken_blocks.used())
    }

    /// Appends bytes to the send queue. `false` where there is no room for all of them; then nothing is taken.
    pub fn append_to_send(&mut self, active: &mut Active, bytes: &[u8], label: Label) -> bool {
        if active.send_head == NO_SPAN && (1..=BLOCK_BYTES).contains(&bytes.len()) {
            return self.begin_send(active, bytes, label);
        }
        let tail = if active.send_head == NO_SPAN { NO_SPAN } else { active.send_tail };
        let is_stored = self.store(bytes, label, tail, 0);
        self.append_stored(active, tcp::append_to_send_queue);
        is_stored
    }

    /// The same for what fits into a block where the queue is empty, as most pushes find it.
    fn begin_send(&mut self, active: &mut Active, bytes: &[u8], label: Label) -> bool {
        if self.taken_spans.free() == 0 {
            return false;
        }
        let Some(block) = self.taken_blocks.take_lowest() else { return false };
        let index = self.name_piece(block, bytes, 0, label);
        self.spans.records_mut()[index as usize].is_last_of_push = 1;
        tcp::append_to_send_queue(active, self, index, bytes.len() as u16);
        true
    }

    /// Appends what a queue of its own holds, from `head` to `tail`, to the send queue: the bytes are not copied.
    /// `false` where there is no room for the spans; then nothing is taken.
    pub fn append_shared_to_send(&mut self, active: &mut Active, head: u32, tail: u32, label: Label) -> bool {
        self.stored.clear();
        let mut index = head;
        while index != NO_SPAN {
            let span = self.spans.records()[index as usize];
            let Some(copy) = self.taken_spans.take_lowest() else {
                self.forget_stored();
                return false;
            };
            self.spans.touch(copy);
            self.references.records_mut()[span.block as usize] += 1;
            let Label { ticket, expires_s } = label;
            self.spans.records_mut()[copy as usize] = Span { ticket, expires_s, next: NO_SPAN, ..span };
            self.stored.push(copy);
            index = if index == tail { NO_SPAN } else { span.next };
        }
        self.append_stored(active, tcp::append_to_send_queue);
        true
    }

    /// The chain that was to be shared has no room.
    fn forget_stored(&mut self) {
        for taken in std::mem::take(&mut self.stored) {
            self.references.records_mut()[self.spans.records()[taken as usize].block as usize] -= 1;
            self.taken_spans.give_back(taken);
        }
    }

    /// Stores bytes that came out of order in a queue of their own and returns its first and last span; a quarter of
    /// all blocks is left to what is in order.
    /// `tail` is the span whose bytes they follow, or `NO_SPAN`: where its block has room they go there.
    pub fn store_held(&mut self, bytes: &[u8], tail: u32) -> Option<(u32, u32)> {
        self.store_apart(bytes, tail, self.taken_blocks.capacity() / 4)
    }

    /// Stores bytes in a queue of their own and returns its first and last span.
    pub fn store_shared(&mut self, bytes: &[u8]) -> Option<(u32, u32)> {
        self.store_apart(bytes, NO_SPAN, 0)
    }

    fn store_apart(&mut self, bytes: &[u8], tail: u32, reserve: u32) -> Option<(u32, u32)> {
        if !self.store(bytes, Label::default(), tail, reserve) {
            return None;
        }
        let stored = std::mem::take(&mut self.stored);
        for pair in stored.windows(2) {
            self.link(pair[0], pair[1]);
        }
        let ends = (*stored.first()?, *stored.last()?);
        self.stored = stored;
        Some(ends)
    }

    /// Releases a queue of its own.
    pub fn release_queue(&mut self, head: u32, tail: u32) {
        tcp::release_chain(self, head, tail);
    }

    /// Appends the spans that were stored last to a queue.
    fn append_stored(&mut self, active: &mut Active, append: impl Fn(&mut Active, &mut Payload, u32, u16)) {
        for position in 0..self.stored.len() {
            let index = self.stored[position];
            let span_bytes = self.span(index).bytes;
            append(active, self, index, span_bytes);
        }
    }

    /// Appends bytes to the receive queue; an eighth of all blocks is left to send queues, which give blocks back by
    /// themselves. `false` where there is no room for all of them; then nothing is taken.
    pub fn append_to_recv(&mut self, active: &mut Active, bytes: &[u8]) -> bool {
        let tail = if active.recv_head == NO_SPAN { NO_SPAN } else { active.recv_tail };
        let reserve = self.taken_blocks.capacity() / 8;
        let is_stored = self.store(bytes, Label::default(), tail, reserve);
        self.append_stored(active, tcp::append_to_recv_queue);
        is_stored
    }

    /// Copies bytes behind those of the queue's `tail` where its block has room, the rest into free blocks, and names
    /// them by new spans, which `stored` then lists. `reserve` blocks and spans are left free for others.
    fn store(&mut self, bytes: &[u8], label: Label, tail: u32, reserve: u32) -> bool {
        let (tail_block, tail_room) = self.room_behind(tail);
        let (first, rest) = bytes.split_at(bytes.len().min(tail_room));
        let blocks = rest.len().div_ceil(BLOCK_BYTES) as u32;
        let spans = blocks + u32::from(!first.is_empty());
        self.stored.clear();
        if self.taken_blocks.free() < blocks.saturating_add(reserve)
            || self.taken_spans.free() < spans.saturating_add(reserve)
        {
            return false;
        }
        if !first.is_empty() {
            let index = self.name_piece(tail_block, first, 0, label);
            self.stored.push(index);
        }
        for (position, piece) in rest.chunks(BLOCK_BYTES).enumerate() {
            let block = self.taken_blocks.take_lowest().expect("as many as needed were free");
            let index = self.name_piece(block, piece, first.len() + position * BLOCK_BYTES, label);
            self.stored.push(index);
        }
        if let Some(&last) = self.stored.last() {
            self.spans.records_mut()[last as usize].is_last_of_push = 1;
        }
        true
    }

    /// The block of a queue's tail and how many bytes fit behind it: none where somebody else has written on.
    fn room_behind(&self, tail: u32) -> (u32, usize) {
        if tail == NO_SPAN {
            return (0, 0);
        }
        let span = self.spans.records()[tail as usize];
        let end = span.offset + span.bytes;
        let is_last_writer = self.filled.records()[span.block as usize] == end;
        (span.block, if is_last_writer { BLOCK_BYTES - usize::from(end) } else { 0 })
    }

    /// Writes a piece into a block, behind what is in it, and names it by a new span.
    fn name_piece(&mut self, block: u32, piece: &[u8], push_offset: usize, label: Label) -> u32 {
        let index = self.taken_spans.take_lowest().expect("as many as needed were free");
        self.touch(index, block);
        let offset = self.filled.records()[block as usize];
        let start = usize::from(offset);
        self.blocks.records_mut()[block as usize].0[start..start + piece.len()].copy_from_slice(piece);
        self.filled.records_mut()[block as usize] = offset + piece.len() as u16;
        self.references.records_mut()[block as usize] += 1;
        self.spans.records_mut()[index as usize] = Span {
            block,
            next: NO_SPAN,
            offset,
            bytes: piece.len() as u16,
            is_last_of_push: 0,
            push_offset: push_offset as u32,
            expires_s: label.expires_s,
            ticket: label.ticket,
        };
        index
    }

    /// How many bytes could be stored behind a block that has room for some of them.
    pub fn room_bytes(&self) -> usize {
        let blocks = self.taken_blocks.free().min(self.taken_spans.free()).saturating_sub(1);
        blocks as usize * BLOCK_BYTES
    }

    /// The bytes that a span names, from an offset on.
    pub fn bytes(&self, span: &Span, from: u32) -> &[u8] {
        let start = usize::from(span.offset) + from as usize;
        let end = usize::from(span.offset) + usize::from(span.bytes);
        self.piece(span.block, start, end - start)
    }

    /// A piece of a block.
    pub fn piece(&self, block: u32, offset: usize, bytes: usize) -> &[u8] {
        &self.blocks.records()[block as usize].0[offset..offset + bytes]
    }

    /// The batch is applied: what it released may be used again.
    pub fn reclaim(&mut self) {
        for position in 0..self.released.len() {
            let index = self.released[position];
            let block = self.spans.records()[index as usize].block;
            self.taken_spans.give_back(index);
            self.references.records_mut()[block as usize] -= 1;
            if self.references.records()[block as usize] == 0 {
                self.filled.records_mut()[block as usize] = 0;
                self.taken_blocks.give_back(block);
            }
        }
        self.released.clear();
    }

    /// Counts what an active block's queues name; called for each at a start. Errors: the queues are not possible.
    pub fn adopt(&mut self, active: &Active) -> Result<(), BrokenQueue> {
        let send = self.adopt_queue(active.send_head, active.send_tail)?;
        let spans_before = self.taken_spans.used();
        let recv = self.adopt_queue(active.recv_head, active.recv_tail)?;
        let recv_spans = self.taken_spans.used() - spans_before;
        let send_bytes = if active.send_head == NO_SPAN { 0 } else { active.snd_end.since(active.send_head_seq) };
        let recv_bytes = if active.recv_head == NO_SPAN { 0 } else { active.recv_bytes + active.recv_head_offset };
        if send == send_bytes && recv == recv_bytes && recv_spans == active.recv_spans {
            Ok(())
        } else {
            Err(BrokenQueue)
        }
    }

    /// Counts what a queue of its own names, and how many bytes that are.
    pub fn adopt_queue(&mut self, head: u32, tail: u32) -> Result<u32, BrokenQueue> {
        let mut bytes = 0u32;
        let mut index = head;
        if head == NO_SPAN {
            return Ok(0);
        }
        loop {
            // A chain that ends before its tail names no span in the end.
            if index >= self.taken_spans.capacity() || !self.taken_spans.take(index) {
                return Err(BrokenQueue);
            }
            let span = self.spans.records()[index as usize];
            let is_inside = usize::from(span.offset) + usize::from(span.bytes) <= BLOCK_BYTES;
            if span.block >= self.taken_blocks.capacity() || span.bytes == 0 || !is_inside {
                return Err(BrokenQueue);
            }
            self.touch(index, span.block);
            self.taken_blocks.take(span.block);
            self.references.records_mut()[span.block as usize] += 1;
            let filled = &mut self.filled.records_mut()[span.block as usize];
            *filled = (*filled).max(span.offset + span.bytes);
            bytes = bytes.wrapping_add(u32::from(span.bytes));
            if index == tail {
                return Ok(bytes);
            }
            index = span.next;
        }
    }

    fn touch(&mut self, span: u32, block: u32) {
        self.spans.touch(span);
        self.blocks.touch(block);
        self.references.touch(block);
        self.filled.touch(block);
    }

    /// Gives some memory behind the last used span and block back to the system. Returns how many bytes; 0 when there
    /// is nothing more.
    pub fn trim(&mut self) -> u64 {
        let notes = self.references.trim(&self.taken_blocks) + self.filled.trim(&self.taken_blocks);
        notes + self.spans.trim(&self.taken_spans) + self.blocks.trim(&self.taken_blocks)
    }

    /// See [`Arena::keep_ahead`].
    pub fn keep_ahead(&mut self, spans_bytes: usize, blocks_bytes: usize) -> [Arc<Area>; 2] {
        [self.spans.keep_ahead(spans_bytes), self.blocks.keep_ahead(blocks_bytes)]
    }
}

impl Spans for Payload {
    fn span(&self, index: u32) -> Span {
        self.spans.records()[index as usize]
    }

    fn link(&mut self, index: u32, next: u32) {
        self.spans.records_mut()[index as usize].next = next;
    }

    fn release(&mut self, index: u32) {
        self.released.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(count: u32) -> Payload {
        let spans = Arena::anonymous(count, false).unwrap();
        Payload::new(spans, Arena::anonymous(count, false).unwrap(), count, count).unwrap()
    }

    /// Stores bytes behind `tail` and returns the last span that names them.
    fn stored(payload: &mut Payload, bytes: &[u8], tail: u32) -> u32 {
        assert!(payload.store(bytes, Label::default(), tail, 0));
        *payload.stored.last().unwrap()
    }

    #[test]
    fn stored_bytes_are_read_back_piece_by_piece() {
        let mut payload = payload(8);
        let bytes: Vec<u8> = (0..5_000u32).map(|i| (i / 7) as u8).collect();
        assert!(payload.store(&bytes, Label::default(), NO_SPAN, 0));
        let chain = payload.stored.clone();
        let read: Vec<u8> = chain.iter().flat_map(|&index| payload.bytes(&payload.span(index), 0).to_vec()).collect();
        assert_eq!(read, bytes);
        let ends: Vec<u32> = chain.iter().map(|&index| payload.span(index).is_last_of_push).collect();
        assert_eq!(ends, [0, 0, 1]);
    }

    #[test]
    fn what_is_released_is_used_again_only_after_the_batch() {
        let mut payload = payload(2);
        let first = stored(&mut payload, &[1; 10], NO_SPAN);
        assert!(!payload.store(&[2; 10], Label::default(), NO_SPAN, 1), "a reserve is left");
        stored(&mut payload, &[2; 10], NO_SPAN);
        payload.release(first);
        assert!(!payload.store(&[3; 10], Label::default(), NO_SPAN, 0));
        payload.reclaim();
        assert!(payload.store(&[3; 10], Label::default(), NO_SPAN, 0));
        assert_eq!(payload.used(), (2, 2));
    }

    #[test]
    fn small_pieces_share_a_block_until_it_is_full() {
        let mut payload = payload(8);
        let mut tail = NO_SPAN;
        for round in 0..3u8 {
            tail = stored(&mut payload, &[round; 800], tail);
        }
        assert_eq!(payload.used(), (4, 2), "the third piece is cut at the end of the first block");
        let stranger = stored(&mut payload, &[9; 10], NO_SPAN);
        let own = stored(&mut payload, &[8; 10], tail);
        assert_eq!(payload.bytes(&payload.span(own), 0), [8; 10]);
        assert_eq!(payload.bytes(&payload.span(stranger), 0), [9; 10]);
    }

    #[test]
    fn a_queue_that_ends_before_its_tail_is_broken() {
        let mut payload = payload(8);
        let (head, tail) = payload.store_shared(&[5; 5_000]).unwrap();
        payload.forget();
        assert_eq!(payload.adopt_queue(head, tail), Ok(5_000));
        payload.forget();
        payload.link(head, NO_SPAN);
        assert_eq!(payload.adopt_queue(head, tail), Err(BrokenQueue));
    }

    #[test]
    fn shared_bytes_are_stored_once_and_go_with_their_last_queue() {
        let mut payload = payload(16);
        let (head, tail) = payload.store_shared(&[5; 5_000]).unwrap();
        let mut actives = [Active::zeroed(), Active::zeroed()];
        for active in &mut actives {
            active.send_head = NO_SPAN;
            active.recv_head = NO_SPAN;
            assert!(payload.append_shared_to_send(active, head, tail, Label { ticket: 3, expires_s: 0 }));
        }
        assert_eq!(payload.used(), (9, 3));
        payload.release_queue(head, tail);
        tcp::release_all(&mut actives[0], &mut payload);
        payload.reclaim();
        assert_eq!(payload.used(), (3, 3));
        let mut read = Vec::new();
        let mut place = tcp::Place::head(&actives[1]);
        tcp::gather(&actives[1], &payload, &mut place, actives[1].send_head_seq, 5_000, |block, offset, bytes| {
            read.extend_from_slice(payload.piece(block, offset, bytes));
        });
        assert_eq!(read, [5; 5_000]);
        tcp::release_all(&mut actives[1], &mut payload);
        payload.reclaim();
        assert_eq!(payload.used(), (0, 0));
    }
}
