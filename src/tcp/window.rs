//! Windows: how much either side may send (RFC 9293 §3.8.6, RFC 7323 §2).
//!
//! The peer's window is kept as its field says it. The right edge of ours is kept to the byte, in units of the window
//! scale from IRS on, so that it moves neither left nor beyond the room there is when the field is rounded.
//!
//! ```text
//!  IRS          RCV.NXT                edge = IRS + k * unit
//! --|--------------|----------------------|--------
//!                  |<-- field * unit -->|     the field is rounded down
//! ```

use super::{Active, Flow, Offer, SeqNum};

/// Largest window shift (RFC 7323 §2.3).
pub(super) const SHIFT_MAX: u8 = 14;

impl Flow {
    /// The peer's window in bytes.
    pub fn send_window(&self) -> u32 {
        u32::from(self.snd_wnd) << self.peer_shift()
    }

    /// The largest window that the peer ever offered, in bytes.
    pub fn send_window_max(&self) -> u32 {
        u32::from(self.snd_wnd_max) << self.peer_shift()
    }

    /// Takes over the window field of a segment.
    pub fn set_send_window(&mut self, window: u16) {
        self.snd_wnd = window;
        self.snd_wnd_max = self.snd_wnd_max.max(window);
    }

    /// Takes over the window field of a SYN, which is never scaled (RFC 7323 §2.2).
    pub fn set_send_window_of_syn(&mut self, window: u16) {
        self.snd_wnd_max = 0;
        self.set_send_window(window >> self.peer_shift());
    }

    /// How many bytes right of RCV.NXT we have promised to receive.
    #[inline]
    pub fn receive_window(&self) -> u32 {
        let received = self.rcv_nxt.since(self.irs);
        let units = received.div_ceil(1 << self.our_shift());
        let ahead = u32::from(self.rcv_edge.wrapping_sub(units as u16));
        (units << self.our_shift()) - received + (ahead << self.our_shift())
    }

    /// The promise as the window field of a segment, rounded down: as RCV.NXT moves on, the peer may see the edge less
    /// than a unit further left than before (RFC 7323 §2.4).
    pub fn receive_window_field(&self) -> u16 {
        (self.receive_window() >> self.our_shift()) as u16
    }

    /// Promises `bytes` right of RCV.NXT, rounded down to the units of the window field and as far as it can say. The
    /// edge never moves to the left.
    pub fn extend_receive_window(&mut self, bytes: u32) {
        let unit = 1 << self.our_shift();
        let largest = u32::from(u16::MAX) << self.our_shift();
        let received = self.rcv_nxt.since(self.irs);
        let edge = u64::from(received) + u64::from(bytes.min(largest));
        if edge / unit * unit > u64::from(received) + u64::from(self.receive_window()) {
            self.rcv_edge = (edge / unit) as u16;
        }
    }

    /// The peer's SYN: RCV.NXT is next to it, and nothing is promised beyond.
    pub fn begin_receiving(&mut self, irs: SeqNum) {
        self.irs = irs;
        self.rcv_nxt = irs.plus(1);
        self.rcv_edge = 1_u32.div_ceil(1 << self.our_shift()) as u16;
    }

    /// RCV.NXT moves over payload that lay in the window.
    pub fn receive(&mut self, bytes: u32) {
        assert!(bytes <= self.receive_window(), "only what was promised is taken");
        self.rcv_nxt = self.rcv_nxt.plus(bytes);
    }

    /// RCV.NXT moves over the peer's FIN, which may lie on the right edge.
    pub fn receive_fin(&mut self) {
        if self.receive_window() == 0 {
            self.rcv_edge = self.rcv_edge.wrapping_add(1);
        }
        self.rcv_nxt = self.rcv_nxt.plus(1);
    }
}

/// Moves the promised right edge as far as there is room, in steps that are worth telling (RFC 9293 §3.8.6.2.2) and
/// never to the left.
pub(super) fn offer_window(flow: &mut Flow, active: &Active, offer: Offer) {
    let free = offer.window_bytes.saturating_sub(active.received_share(offer.window_bytes));
    let step = u32::from(offer.mss).min(offer.window_bytes / 2);
    let promised = flow.receive_window();
    if free >= promised.saturating_add(step) {
        flow.extend_receive_window(free);
    }
}

/// The service has consumed what waited: whether the peer should be told of the room at once. Only as much of it counts
/// as the window field can say.
pub fn is_window_update_due(flow: &Flow, active: &Active, offer: Offer) -> bool {
    let largest = offer.window_bytes.min(u32::from(u16::MAX) << flow.our_shift());
    let free = offer.window_bytes.saturating_sub(active.received_share(offer.window_bytes)).min(largest);
    let step = (2 * u32::from(offer.mss)).min(largest / 2);
    let promised = flow.receive_window();
    !flow.has_peer_fin() && promised < largest / 2 && free >= promised.saturating_add(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiving(shift: u8, irs: u32) -> Flow {
        let mut flow = Flow::free(0);
        flow.begin_window_scaling(0, shift);
        flow.begin_receiving(SeqNum(irs));
        flow
    }

    #[test]
    fn a_promise_is_exact_to_the_byte_and_its_field_rounded_down() {
        for irs in [0, 77, u32::MAX - 20, u32::MAX] {
            let mut flow = receiving(3, irs);
            flow.extend_receive_window(31);
            assert_eq!((flow.receive_window(), flow.receive_window_field()), (31, 3), "the edge is 32 right of IRS");
            flow.receive(10);
            assert_eq!((flow.receive_window(), flow.receive_window_field()), (21, 2));
            flow.extend_receive_window(20);
            assert_eq!(flow.receive_window(), 21, "not to the left");
            flow.extend_receive_window(28);
            assert_eq!(flow.receive_window(), 21, "not by less than a unit");
            flow.receive(21);
            assert_eq!((flow.receive_window(), flow.receive_window_field()), (0, 0));
        }
    }

    #[test]
    fn the_largest_promise_is_as_large_as_the_field() {
        for shift in [0, 1, 7, 14] {
            let mut flow = receiving(shift, 5);
            for taken in [0, 1, 1 << shift, 70_000] {
                let taken = taken.min(flow.receive_window());
                flow.receive(taken);
                flow.extend_receive_window(u32::MAX);
                let largest = u32::from(u16::MAX) << shift;
                let promised = flow.receive_window();
                assert!(promised <= largest && promised + (1 << shift) > largest, "{promised} of {largest}");
            }
        }
    }

    #[test]
    fn a_fin_on_the_edge_promises_nothing_more() {
        for shift in [0, 3] {
            let mut flow = receiving(shift, 9);
            flow.extend_receive_window(8);
            let window = flow.receive_window();
            flow.receive(window);
            flow.receive_fin();
            assert!(flow.receive_window() < 1 << shift, "{}", flow.receive_window());
            assert_eq!(flow.receive_window_field(), 0);
        }
    }
}
