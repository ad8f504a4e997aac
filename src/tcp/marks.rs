//! Marks of an active block: bits, and the sequence numbers that some of them give a meaning.
//!
//! Urgent bytes in either direction, a congestion window that was reduced, CWR that is owed, a send queue that may be
//! sent in part only, and what the peer sends being lost.

use super::{Active, Flow, NO_SPAN, SeqNum};

const RECEIVING_URGENT: u8 = 1 << 0;
const SENDING_URGENT: u8 = 1 << 1;
pub(super) const REDUCED: u8 = 1 << 2;
pub(super) const OWES_CWR: u8 = 1 << 3;
const HAS_LIMIT: u8 = 1 << 4;
pub(super) const PEER_LOSING: u8 = 1 << 5;

impl Active {
    /// The peer has urgent bytes up to `up`. Returns whether that is news (MUST-32).
    pub(super) fn note_urgent(&mut self, up: SeqNum) -> bool {
        let is_news = self.marks & RECEIVING_URGENT == 0 || up.after(self.rcv_up);
        if is_news {
            self.marks |= RECEIVING_URGENT;
            self.rcv_up = up;
        }
        is_news
    }

    /// Everything that is queued by now is urgent.
    pub fn mark_urgent(&mut self) {
        self.marks |= SENDING_URGENT;
        self.snd_up = self.snd_end;
    }

    /// How many bytes from `seq` on are urgent, as far as the pointer can say; `None` where none are.
    pub(super) fn urgent_from(&self, seq: SeqNum) -> Option<u16> {
        let up = self.snd_up.earlier_of(self.snd_end);
        let is_urgent = self.marks & SENDING_URGENT != 0 && up.after(seq);
        is_urgent.then(|| up.since(seq).min(u32::from(u16::MAX)) as u16)
    }

    /// The congestion window was reduced, which says all that there is to say of what is in flight; the peer is told
    /// with the next new payload (RFC 3168 §6.1.2).
    pub(super) fn note_reduced(&mut self, flow: &Flow) {
        self.marks |= REDUCED | if flow.has_ecn() { OWES_CWR } else { 0 };
        self.reduced_end = flow.snd_nxt;
    }

    /// It need not have been.
    pub(super) fn forget_reduced(&mut self) {
        self.marks &= !(REDUCED | OWES_CWR);
    }

    /// Whether nothing that was sent after the last reduction was acknowledged yet.
    pub(super) fn is_reduced(&self) -> bool {
        self.marks & REDUCED != 0
    }

    /// What lies left of `ack` is acknowledged.
    pub(super) fn pass_reduction(&mut self, ack: SeqNum) {
        if ack.after(self.reduced_end) {
            self.marks &= !REDUCED;
        }
    }

    /// Whether CWR is owed to the peer; then it is no longer.
    pub(super) fn take_owed_cwr(&mut self) -> bool {
        let owes = self.marks & OWES_CWR != 0;
        self.marks &= !OWES_CWR;
        owes
    }

    /// One past the last byte that may be sent.
    pub(super) fn sendable_end(&self) -> SeqNum {
        if self.marks & HAS_LIMIT != 0 { self.send_limit } else { self.snd_end }
    }

    /// Whether some push in the send queue may expire.
    pub fn may_expire(&self) -> bool {
        self.marks & HAS_LIMIT != 0
    }

    /// The send queue is to be sent up to here only, as some push in it may expire.
    pub fn set_send_limit(&mut self, limit: SeqNum) {
        self.marks = self.marks & !HAS_LIMIT | if self.send_head == NO_SPAN { 0 } else { HAS_LIMIT };
        self.send_limit = limit;
    }

    /// Something that the peer has sent before what has come is missing.
    pub(super) fn note_peer_loss(&mut self) {
        self.marks |= PEER_LOSING;
    }

    /// Whether something that the peer has sent was lost not long ago. Its congestion window may be so small then that
    /// each ACK is waited for.
    pub(super) fn is_peer_losing(&self) -> bool {
        self.marks & PEER_LOSING != 0
    }

    /// RCV.NXT has moved on: a loss is forgotten at the next multiple of 32 KB, a dozen full segments later in the
    /// mean.
    pub(super) fn pass_peer_loss(&mut self, before: SeqNum, after: SeqNum) {
        const SPAN_BITS: u32 = 15;
        if before.0 >> SPAN_BITS != after.0 >> SPAN_BITS {
            self.marks &= !PEER_LOSING;
        }
    }
}
