//! The pump: the four rings of a queue and its frames, without a system call.
//!
//! Comes in: frames that the kernel has put into the receive ring, frames to be sent. Goes out: slices of the former
//! where they lie, entries of the transmit ring for the latter, each copied once.
//!
//! ```text
//!   fill ring -> kernel -> receive ring -> lent -> fill ring          4,096 frames
//!   free -> transmit ring -> kernel -> completion ring -> free        2,048 frames
//! ```
//!
//! Invariant: every frame is in exactly one of these places. One whose address the kernel names wrongly is lost, and
//! counted.

use nix::libc::xdp_desc;

use super::ring::{Consumer, Producer};
use super::umem::{SEND_FRAMES, Share};
use crate::link::Received;

/// See the module.
pub(super) struct Pump {
    share: Share,
    fill: Producer<u64>,
    receive: Consumer<xdp_desc>,
    transmit: Producer<xdp_desc>,
    completion: Consumer<u64>,
    /// Received frames that are lent.
    lent: Vec<u64>,
    /// Frames to send from.
    free: Vec<u64>,
    counts: Counts,
}

/// The rings of one queue, from our side.
pub(super) struct Rings {
    pub fill: Producer<u64>,
    pub receive: Consumer<xdp_desc>,
    pub transmit: Producer<xdp_desc>,
    pub completion: Consumer<u64>,
}

/// What a pump has counted.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    /// Frames that were to be sent and are larger than a frame of the memory.
    pub too_large: u64,
    /// Addresses from the kernel that are in no frame of this queue.
    pub misnamed: u64,
    /// How often a frame found the transmit ring full.
    pub transmit_full: u64,
}

impl Pump {
    /// With all frames to be received into given to the kernel.
    pub fn new(share: Share, rings: Rings) -> Pump {
        let Rings { mut fill, receive, transmit, completion } = rings;
        share.frames_to_receive().for_each(|frame| fill.push(frame));
        fill.submit();
        let free = share.frames_to_send().collect();
        let lent = Vec::with_capacity(Received::MAX);
        Pump { share, fill, receive, transmit, completion, lent, free, counts: Counts::default() }
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&mut self) -> bool {
        self.receive.is_empty()
    }

    /// Gives the kernel back what was lent. Nothing is lent any more, or the pump would be borrowed.
    pub fn give_back(&mut self) {
        if !self.lent.is_empty() {
            self.lent.drain(..).for_each(|frame| self.fill.push(frame));
            self.fill.submit();
        }
    }

    /// Lends what has arrived, up to a batch, and gives the kernel back what was lent before.
    pub fn receive(&mut self) -> Received<'_> {
        self.give_back();
        let mut received = Received::none();
        while !received.is_full()
            && let Some(descriptor) = self.receive.pop()
        {
            let Some(frame) = self.share.received_frame(descriptor.addr) else {
                self.counts.misnamed += 1;
                continue;
            };
            self.lent.push(frame);
            // SAFETY: the frame has come by the receive ring and stands in `lent`, which `give_back` gives back; that
            // takes the pump, which the slice borrows.
            match unsafe { self.share.received(descriptor.addr, descriptor.len) } {
                Some(bytes) => received.push(bytes),
                None => self.counts.misnamed += 1,
            }
        }
        self.receive.release();
        received
    }

    /// Takes a frame to be sent at the next `submit`; false: there is no room.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        if self.free.is_empty() {
            self.reclaim();
        }
        let Some(&address) = self.free.last().filter(|_| self.transmit.has_room()) else {
            self.counts.transmit_full += 1;
            return false;
        };
        if !self.share.write(address, frame) {
            self.counts.too_large += 1;
            return true;
        }
        self.free.pop();
        self.transmit.push(xdp_desc { addr: address, len: frame.len() as u32, options: 0 });
        true
    }

    /// Shows the kernel what is to be sent; returns how much that is.
    pub fn submit(&mut self) -> u32 {
        self.transmit.submit()
    }

    /// Takes back the frames that were sent. Only here the completion ring gets room again, without which the kernel
    /// sends nothing.
    pub fn reclaim(&mut self) {
        while let Some(address) = self.completion.pop() {
            match self.share.sent_frame(address) {
                Some(frame) if self.free.len() < SEND_FRAMES as usize => self.free.push(frame),
                _ => self.counts.misnamed += 1,
            }
        }
        self.completion.release();
    }

    /// How many submitted frames the kernel has not taken yet.
    pub fn unsent(&mut self) -> u32 {
        self.transmit.waiting()
    }

    /// Whether the kernel looks at the transmit ring only when it is called.
    pub fn needs_send_call(&self) -> bool {
        self.transmit.needs_wakeup()
    }

    /// Whether the kernel looks at the fill ring only when it is called.
    pub fn needs_receive_call(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::ring::pair;
    use super::super::umem::{HEADROOM_BYTES, RECEIVE_FRAMES, Umem};
    use super::*;

    /// The kernel's side of the rings.
    struct Kernel {
        share: Share,
        fill: Consumer<u64>,
        receive: Producer<xdp_desc>,
        transmit: Consumer<xdp_desc>,
        completion: Producer<u64>,
    }

    /// Both sides over memory, with indices that wrap soon.
    fn stage() -> (Pump, Kernel) {
        let umem = Arc::new(Umem::new(2, 2_048).expect("memory"));
        let share = || Share::new(Arc::clone(&umem), 1);
        let start = u32::MAX - 3_000;
        let (fill, kernel_fill) = pair(RECEIVE_FRAMES, start, 0);
        let (kernel_receive, receive) = pair(RECEIVE_FRAMES, start, BLANK);
        let (transmit, kernel_transmit) = pair(SEND_FRAMES, start, BLANK);
        let (kernel_completion, completion) = pair(SEND_FRAMES, start, 0);
        let kernel = Kernel {
            share: share(),
            fill: kernel_fill,
            receive: kernel_receive,
            transmit: kernel_transmit,
            completion: kernel_completion,
        };
        (Pump::new(share(), Rings { fill, receive, transmit, completion }), kernel)
    }

    const BLANK: xdp_desc = xdp_desc { addr: 0, len: 0, options: 0 };

    impl Kernel {
        /// Receives a frame, if it was given room for one.
        fn arrive(&mut self, bytes: &[u8]) -> bool {
            let Some(frame) = self.fill.pop() else { return false };
            self.fill.release();
            let addr = frame + u64::from(HEADROOM_BYTES);
            self.share.play_kernel(addr, bytes);
            self.receive.push(xdp_desc { addr, len: bytes.len() as u32, options: 0 });
            self.receive.submit();
            true
        }

        /// Sends what is submitted.
        fn leave(&mut self) -> Vec<Vec<u8>> {
            let mut sent = Vec::new();
            while self.completion.has_room()
                && let Some(descriptor) = self.transmit.pop()
            {
                sent.push(self.share.sent_bytes(descriptor.addr, descriptor.len));
                self.completion.push(descriptor.addr);
            }
            self.transmit.release();
            self.completion.submit();
            sent
        }
    }

    fn frame(number: u32) -> Vec<u8> {
        number.to_le_bytes().repeat(15 + number as usize % 300)
    }

    #[test]
    fn frames_are_lent_where_they_lie_and_given_back_at_the_next_call() {
        let (mut pump, mut kernel) = stage();
        let mut next = 0;
        for arrived in 0..20_000 {
            assert!(kernel.arrive(&frame(arrived)));
            if arrived % 97 == 0 {
                loop {
                    let received = pump.receive();
                    received.iter().for_each(|bytes| {
                        assert_eq!(*bytes, frame(next));
                        next += 1;
                    });
                    if received.is_empty() {
                        break;
                    }
                }
            }
        }
        assert!(next > 19_000);
        assert_eq!(pump.counts().misnamed, 0);
    }

    #[test]
    fn without_a_reader_the_kernel_runs_out_of_frames_and_gets_them_back() {
        let (mut pump, mut kernel) = stage();
        let arrived = (0..5_000).filter(|&number| kernel.arrive(&frame(number))).count();
        assert_eq!(arrived, RECEIVE_FRAMES as usize);
        let lent: Vec<Vec<u8>> = pump.receive().iter().map(|bytes| bytes.to_vec()).collect();
        assert_eq!(lent.len(), Received::MAX);
        assert!(!kernel.arrive(&frame(0)), "what is lent is not given back yet");
        assert_eq!(pump.receive().len(), Received::MAX);
        assert!((0..64).all(|number| kernel.arrive(&frame(number))) && !kernel.arrive(&frame(0)));
    }

    #[test]
    fn frames_leave_in_order_and_a_full_ring_refuses() {
        let (mut pump, mut kernel) = stage();
        let (mut taken, mut left) = (0, 0);
        for round in 0..20u32 {
            while taken < (round + 1) * 3_000 && pump.send(&frame(taken)) {
                taken += 1;
            }
            assert_eq!(pump.submit() > 0, pump.unsent() > 0);
            for bytes in kernel.leave() {
                assert_eq!(bytes, frame(left));
                left += 1;
            }
        }
        assert!(taken > 20_000 && pump.counts().transmit_full > 0, "{taken}");
        assert_eq!((taken, pump.unsent()), (left, 0));
    }

    #[test]
    fn a_full_ring_has_room_again_when_the_kernel_has_sent() {
        let (mut pump, mut kernel) = stage();
        (0..SEND_FRAMES).for_each(|number| assert!(pump.send(&frame(number))));
        assert!(!pump.send(b"one more"));
        pump.submit();
        assert!(!pump.send(b"one more"), "the kernel has sent nothing");
        assert_eq!(kernel.leave().len(), SEND_FRAMES as usize);
        assert!(pump.send(b"one more"));
        assert_eq!((pump.submit(), kernel.leave()), (1, vec![b"one more".to_vec()]));
    }

    #[test]
    fn wrong_addresses_and_sizes_are_counted_and_harm_nothing() {
        let (mut pump, mut kernel) = stage();
        let foreign = 256;
        let ours = kernel.fill.pop().expect("the pump has filled it");
        for (addr, len) in [(foreign, 60), (u64::MAX, 60), (ours + 256, 1_793), (ours, u32::MAX)] {
            kernel.receive.push(xdp_desc { addr, len, options: 0 });
        }
        kernel.receive.submit();
        assert!(pump.receive().is_empty());
        assert_eq!(pump.counts().misnamed, 4);
        kernel.completion.push(foreign);
        kernel.completion.push(ours);
        kernel.completion.submit();
        pump.reclaim();
        assert_eq!(pump.counts().misnamed, 6);
        assert!(pump.send(&[0; 2_049]), "what never fits is lost");
        assert_eq!((pump.counts().too_large, pump.submit()), (1, 0));
    }
}
