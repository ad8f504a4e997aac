//! The exchange of frames over a descriptor: what a packet socket and a TAP have in common.
//!
//! Comes in: a descriptor that takes and gives one frame with one call, behind a `virtio_net_hdr`, and never waits.
//! Goes out: received frames without their header, checksums completed (see `offload`); sent frames, joined where they
//! follow each other (see `join`). What else the system answers is for whoever has the descriptor to judge: that
//! decides whether it is gone.
//!
//! Invariant: what cannot leave now is kept until the end of a batch at most.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::uio::{readv, writev};

use super::frames::Frames;
use super::join::Joined;
use super::{Received, offload};

/// See the module.
#[derive(Debug)]
pub(super) struct Exchange {
    device: OwnedFd,
    frames: Frames,
    joined: Joined,
    frames_lost: u64,
}

impl Exchange {
    /// Over a descriptor to an interface with this MTU.
    pub fn new(device: OwnedFd, mtu: u16) -> Exchange {
        let frames = Frames::with_room(mtu, offload::FRAME_BYTES_MAX);
        Exchange { device, frames, joined: Joined::default(), frames_lost: 0 }
    }

    /// As [`super::Link::receive`]. What `judge` answers to a failure ends it, or does not.
    pub fn receive(&mut self, mut judge: impl FnMut(Errno) -> io::Result<()>) -> io::Result<Received<'_>> {
        self.frames.clear();
        while !self.frames.is_full() {
            let mut header = [0; offload::HEADER_BYTES];
            let buffer = self.frames.next_buffer();
            let room_bytes = header.len() + buffer.len();
            match readv(&self.device, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)]) {
                Ok(bytes) => {
                    let frame_bytes = bytes.saturating_sub(offload::HEADER_BYTES);
                    // The kernel cuts a frame that does not fit and does not say so.
                    let is_whole = bytes < room_bytes && offload::complete(&header, &mut buffer[..frame_bytes]).is_ok();
                    if is_whole {
                        self.frames.push_written(frame_bytes);
                    } else {
                        self.frames_lost += 1;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => {
                    judge(errno)?;
                    // EINVAL: the header has no words for the frame, which the kernel has dropped.
                    self.frames_lost += u64::from(errno != Errno::ENETDOWN);
                    break;
                }
            }
        }
        Ok(self.frames.lend())
    }

    /// As [`super::Link::send`].
    pub fn send(&mut self, frame: &[u8], mut judge: impl FnMut(Errno) -> io::Result<()>) -> io::Result<bool> {
        if self.joined.append(frame) {
            return Ok(true);
        }
        if !self.send_joined(&mut judge)? {
            return Ok(false);
        }
        if self.joined.begin(frame) {
            return Ok(true);
        }
        write(&self.device, &mut self.frames_lost, &offload::NOTHING_LEFT_UNDONE, frame, judge)
    }

    /// As [`super::Link::flush`].
    pub fn flush(&mut self, judge: impl FnMut(Errno) -> io::Result<()>) -> io::Result<()> {
        if !self.send_joined(judge)? {
            self.frames_lost += 1;
            self.joined.clear();
        }
        Ok(())
    }

    /// How many frames were lost so far.
    pub fn frames_lost(&self) -> u64 {
        self.frames_lost
    }

    /// Sends what is joined, if there is anything. `false`: the device is full.
    fn send_joined(&mut self, judge: impl FnMut(Errno) -> io::Result<()>) -> io::Result<bool> {
        let Exchange { device, joined, frames_lost, .. } = self;
        joined.let_go(|header, frame| write(device, frames_lost, header, frame, judge))
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Writes a frame behind its header. `false`: the device is full.
fn write(
    device: &OwnedFd,
    frames_lost: &mut u64,
    header: &[u8; offload::HEADER_BYTES],
    frame: &[u8],
    mut judge: impl FnMut(Errno) -> io::Result<()>,
) -> io::Result<bool> {
    match writev(device, &[IoSlice::new(header), IoSlice::new(frame)]) {
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
        // A device takes a frame whole or not at all.
        Ok(bytes) => *frames_lost += u64::from(bytes < header.len() + frame.len()),
        Err(errno) => {
            judge(errno)?;
            // The interface is down or its queue full. A network may lose frames.
            *frames_lost += 1;
        }
    }
    Ok(true)
}
