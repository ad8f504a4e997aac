//! A cable in memory: two links joined by bounded queues.
//!
//! What one end sends the other receives, in order and unchanged. Tests of `server` run over it without root, and a
//! thread can sleep on its descriptor as on a real one.
//!
//! Invariant: a full queue refuses a frame, and a frame that is too long is an error; none is dropped.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::frames::{Frames, frame_bytes};
use super::{Link, Received};

/// One end of the cable. A clone is the same end, for who comes after: two that receive at once share the frames out.
#[derive(Clone, Debug)]
pub struct MemoryLink {
    mac: [u8; 6],
    mtu: u16,
    inbox: Arc<Queue>,
    outbox: Arc<Queue>,
    frames: Frames,
}

/// Two ends that lead to each other, with a room of `queue_frames` in each direction, for IP packets of up to `mtu`
/// bytes. Fails only where the system has no descriptor left.
pub fn memory_pair(mtu: u16, queue_frames: usize) -> io::Result<(MemoryLink, MemoryLink)> {
    let (there, back) = (Arc::new(Queue::new(queue_frames)?), Arc::new(Queue::new(queue_frames)?));
    let end = |last, inbox: &Arc<Queue>, outbox: &Arc<Queue>| MemoryLink {
        mac: [0x02, 0, 0, 0, 0, last],
        mtu,
        inbox: Arc::clone(inbox),
        outbox: Arc::clone(outbox),
        frames: Frames::new(mtu),
    };
    Ok((end(1, &back, &there), end(2, &there, &back)))
}

impl Link for MemoryLink {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn receive(&mut self) -> io::Result<Received<'_>> {
        let frames = &mut self.frames;
        frames.clear();
        let mut waiting = self.inbox.frames();
        while !frames.is_full() {
            let Some(frame) = waiting.pop_front() else {
                break;
            };
            frames.next_buffer()[..frame.len()].copy_from_slice(&frame);
            frames.push_written(frame.len());
        }
        if waiting.is_empty() {
            // Nothing to read is the ordinary case: the descriptor was not readable before either.
            let _ = self.inbox.waiting.read();
        }
        Ok(frames.lend())
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<bool> {
        if frame.len() > frame_bytes(self.mtu) {
            let (bytes, mtu) = (frame.len(), self.mtu);
            let what = format!("a frame of {bytes} bytes cannot go over a cable for packets of {mtu}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut waiting = self.outbox.frames();
        if waiting.len() >= self.outbox.frames_max {
            return Ok(false);
        }
        waiting.push_back(frame.to_vec());
        self.outbox.waiting.write(1)?;
        Ok(true)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.inbox.waiting.as_fd())
    }
}

/// One direction. `waiting` is readable exactly while `frames` is not empty.
#[derive(Debug)]
struct Queue {
    frames: Mutex<VecDeque<Vec<u8>>>,
    frames_max: usize,
    waiting: EventFd,
}

impl Queue {
    fn new(frames_max: usize) -> io::Result<Queue> {
        let waiting = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Queue { frames: Mutex::new(VecDeque::new()), frames_max, waiting })
    }

    /// A panic in another thread leaves the queue whole: every change of it is one push or one pop.
    fn frames(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(link: &MemoryLink) -> bool {
        let descriptor = link.descriptor().expect("a memory link has a descriptor");
        poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::ZERO).expect("poll works") == 1
    }

    #[test]
    fn frames_arrive_in_order_and_wake_the_reader() {
        let (mut here, mut there) = memory_pair(1500, 200).expect("two eventfds");
        assert!(!is_readable(&there));
        for number in 0..100u8 {
            assert!(here.send(&[number; 60]).expect("memory does not fail"));
        }
        assert_eq!(there.receive().expect("memory does not fail").len(), Received::MAX);
        assert!(is_readable(&there), "36 frames are left");
        let frames = there.receive().expect("memory does not fail");
        assert!(frames.iter().map(|frame| frame[0]).eq(64..100));
        assert!(!is_readable(&there));
        assert!(!is_readable(&here), "nothing was sent this way");
    }

    #[test]
    fn the_longest_frame_passes_and_a_longer_one_is_an_error() {
        let (mut here, mut there) = memory_pair(1500, 2).expect("two eventfds");
        assert!(here.send(&[7; 1514]).expect("it has an Ethernet header and 1,500 bytes"));
        assert!(here.send(&[7; 2962]).expect_err("is too long").to_string().contains("2962 bytes"));
        assert_eq!(there.receive().expect("memory does not fail")[0], [7; 1514]);
    }

    #[test]
    fn a_full_queue_refuses() {
        let (mut here, mut there) = memory_pair(1500, 2).expect("two eventfds");
        assert!(here.send(b"one").expect("memory does not fail"));
        assert!(here.send(b"two").expect("memory does not fail"));
        assert!(!here.send(b"three").expect("memory does not fail"));
        assert_eq!(there.receive().expect("memory does not fail").len(), 2);
        assert!(here.send(b"three").expect("memory does not fail"));
    }
}
