//! UMEM: the memory whose frames the kernel and we hand to each other, shared by the queues of an interface.
//!
//! Each queue has a share of its own, so that its thread alone touches it: frames to receive into, then frames to send
//! from.
//!
//! ```text
//!   | share of the first queue               | share of the second queue              | ...
//!   | received: 4096 frames | sent: 2048     | received: 4096 frames | sent: 2048     |
//! ```
//!
//! Invariant: an address that the kernel names is looked up in the share of its queue, or not at all.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;

/// Frames of each queue that are received into, as many as its fill ring and its receive ring have entries.
pub(super) const RECEIVE_FRAMES: u32 = 4_096;
/// Frames of each queue that are sent from, as many as its transmit ring and its completion ring have entries.
pub(super) const SEND_FRAMES: u32 = 2_048;
/// What the kernel keeps free in front of what it receives.
pub(super) const HEADROOM_BYTES: u32 = 256;

/// A mapping of anonymous memory, registered with the kernel by a socket.
pub(super) struct Umem {
    base: NonNull<u8>,
    bytes: usize,
    frame_bytes: u32,
}

// SAFETY: the mapping is plain memory; who may touch which part of it is a matter of its shares.
unsafe impl Send for Umem {}
// SAFETY: as above.
unsafe impl Sync for Umem {}

impl Umem {
    /// For so many queues, with frames of 2,048 or 4,096 bytes.
    pub fn new(queues: u32, frame_bytes: u32) -> io::Result<Umem> {
        assert!(frame_bytes.is_power_of_two(), "frames are aligned to their size");
        let bytes = queues as usize * (RECEIVE_FRAMES + SEND_FRAMES) as usize * frame_bytes as usize;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory that is there.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last().into());
        }
        // SAFETY: the range is the mapping that was just made. It is advice, and may fail.
        unsafe { libc::madvise(base, bytes, libc::MADV_HUGEPAGE) };
        let base = NonNull::new(base.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Umem { base, bytes, frame_bytes })
    }

    /// Where it begins, for the kernel.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// How large it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How large each frame is.
    pub fn frame_bytes(&self) -> u32 {
        self.frame_bytes
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever has a share of it keeps the Umem; the kernel keeps pages of its own.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// The frames of one queue.
pub(super) struct Share {
    umem: Arc<Umem>,
    received: Range<u64>,
    sent: Range<u64>,
}

impl Share {
    /// The share of the queue with this number among those that share the memory.
    pub fn new(umem: Arc<Umem>, number: u32) -> Share {
        let frame = u64::from(umem.frame_bytes);
        let (receive, send) = (u64::from(RECEIVE_FRAMES) * frame, u64::from(SEND_FRAMES) * frame);
        let start = u64::from(number) * (receive + send);
        assert!(start + receive + send <= umem.bytes as u64, "there is a share for each queue");
        Share { umem, received: start..start + receive, sent: start + receive..start + receive + send }
    }

    /// The frames to receive into.
    pub fn frames_to_receive(&self) -> impl Iterator<Item = u64> + use<> {
        self.received.clone().step_by(self.umem.frame_bytes as usize)
    }

    /// The frames to send from.
    pub fn frames_to_send(&self) -> impl Iterator<Item = u64> + use<> {
        self.sent.clone().step_by(self.umem.frame_bytes as usize)
    }

    /// The frame that an address lies in, of those that are received into.
    pub fn received_frame(&self, address: u64) -> Option<u64> {
        self.received.contains(&address).then(|| self.start_of(address))
    }

    /// The frame that an address lies in, of those that are sent from.
    pub fn sent_frame(&self, address: u64) -> Option<u64> {
        self.sent.contains(&address).then(|| self.start_of(address))
    }

    /// What was received at an address; none where that is not inside of one frame.
    ///
    /// # Safety
    ///
    /// The frame has come by the receive ring, and is not given back by the fill ring while the slice is there.
    pub unsafe fn received(&self, address: u64, bytes: u32) -> Option<&[u8]> {
        let frame = self.received_frame(address)?;
        let end = address.checked_add(u64::from(bytes))?;
        if end > frame + u64::from(self.umem.frame_bytes) {
            return None;
        }
        // SAFETY: the range lies in one frame of the mapping, which the kernel leaves alone as the caller says.
        Some(unsafe { std::slice::from_raw_parts(self.umem.base.as_ptr().add(address as usize), bytes as usize) })
    }

    /// Copies a frame to an address to be sent; false: it is too large for one frame, or the address is none.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let is_fit = bytes.len() <= self.umem.frame_bytes as usize && self.sent_frame(address) == Some(address);
        if is_fit {
            // SAFETY: the range lies in one frame of the mapping that is sent from. Whatever address a caller names,
            // the kernel only reads there, and no slice of it is ever lent.
            unsafe {
                let to = self.umem.base.as_ptr().add(address as usize);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
        }
        is_fit
    }

    fn start_of(&self, address: u64) -> u64 {
        address & !(u64::from(self.umem.frame_bytes) - 1)
    }

    /// Writes where the kernel would.
    #[cfg(test)]
    pub fn play_kernel(&self, address: u64, bytes: &[u8]) {
        assert!(self.received_frame(address).is_some(), "the kernel writes into frames that it was given");
        // SAFETY: the range begins in a frame that nobody has a slice of, as it came by the fill ring.
        unsafe {
            let to = self.umem.base.as_ptr().add(address as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Reads what the kernel would send.
    #[cfg(test)]
    pub fn sent_bytes(&self, address: u64, bytes: u32) -> Vec<u8> {
        assert!(self.sent_frame(address).is_some(), "the kernel reads frames that it was given");
        // SAFETY: the range begins in a frame that was submitted, and nobody writes it now.
        unsafe { std::slice::from_raw_parts(self.umem.base.as_ptr().add(address as usize), bytes as usize) }.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_do_not_overlap_and_know_no_address_but_theirs() {
        let umem = Arc::new(Umem::new(2, 2_048).expect("memory"));
        let (mut first, second) = (Share::new(Arc::clone(&umem), 0), Share::new(umem, 1));
        let last = first.frames_to_send().last().expect("frames");
        assert_eq!(last + 2_048, second.frames_to_receive().next().expect("frames"));
        assert_eq!(second.frames_to_receive().count() + second.frames_to_send().count(), 6_144);
        let other = second.frames_to_receive().next().expect("frames");
        for wrong in [other, u64::MAX, last] {
            assert_eq!(first.received_frame(wrong), None);
            // SAFETY: no ring has these frames.
            assert!(unsafe { first.received(wrong, 1) }.is_none());
        }
        assert_eq!(first.received_frame(2_048 + 256), Some(2_048));
        // SAFETY: as above.
        unsafe {
            assert!(first.received(2_048 + 256, 1_792).is_some());
            assert!(first.received(2_048 + 256, 1_793).is_none(), "not beyond the frame");
            assert!(first.received(2_048 + 256, u32::MAX).is_none());
        }
        assert!(first.write(last, &[7; 2_048]));
        assert!(!first.write(last, &[7; 2_049]) && !first.write(last + 1, &[7]) && !first.write(0, &[7]));
        assert_eq!(first.sent_bytes(last, 2_048), [7; 2_048]);
    }
}
