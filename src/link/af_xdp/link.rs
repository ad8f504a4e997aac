//! The link of one queue: the pump with its socket, and a packet socket beside it.
//!
//! Frames leave when a batch ends, by one call where the kernel has to be called at all. Where it copies frames it
//! takes a few at a time, so the call is repeated while it goes on taking some. Where what lies behind the queue is
//! full, and the kernel keeps a frame or loses it, the others rest for a moment: a burst to very many connections would
//! else be lost but for its beginning, and be sent again by all of them at once. Advertisements of routers come by the
//! packet socket, which is looked into when nothing has come twice in a row.
//!
//! Invariant: nothing that was sent waits for the next frame. What the kernel did not take is tried again soon, as
//! `pause` says.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv};

use super::program::VERDICTS;
use super::pump::{Pump, Rings};
use super::socket::Socket;
use super::umem::Share;
use super::{Interface, Mode};
use crate::link::interface::Presence;
use crate::link::packet_socket::Advertisements;
use crate::link::{Count, Link, Received, ethtool, neighbors};

/// One queue of an interface.
pub struct AfXdp {
    interface: Arc<Interface>,
    presence: Presence,
    queue: u32,
    pump: Pump,
    socket: Socket,
    beside: OwnedFd,
    /// Of both sockets, where frames come by both.
    watch: Option<Epoll>,
    is_zero_copy: bool,
    /// The first that was opened of its interface.
    is_first: bool,
    /// The kernel has not taken all that was sent.
    has_unsent: bool,
    /// What lies behind the queue was full: nothing is sent before.
    rests_until: Option<Instant>,
    /// How long the last rest was.
    rest: Duration,
    /// Nothing had come by the queue when it was last looked into.
    was_empty: bool,
    /// A frame that came by the packet socket.
    aside: Vec<u8>,
    frames_lost: u64,
    /// How often what lies behind the queue was full.
    rests: u64,
}

/// What a link is made of.
pub(super) struct Parts {
    pub share: Share,
    pub rings: Rings,
    pub socket: Socket,
    pub beside: OwnedFd,
    pub is_zero_copy: bool,
    pub is_first: bool,
}

impl AfXdp {
    pub(super) fn new(interface: Arc<Interface>, queue: u32, parts: Parts) -> Result<AfXdp, Errno> {
        let Parts { share, rings, socket, beside, is_zero_copy, is_first } = parts;
        let watch = match interface.advertisements {
            Advertisements::Refused => None,
            Advertisements::Wanted => {
                let watch = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                watch.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
                watch.add(&beside, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
                Some(watch)
            }
        };
        Ok(AfXdp {
            presence: Presence::new(&interface.name, interface.index),
            interface,
            queue,
            pump: Pump::new(share, rings),
            socket,
            beside,
            watch,
            is_zero_copy,
            is_first,
            has_unsent: false,
            rests_until: None,
            rest: REST_MIN,
            was_empty: false,
            aside: vec![0; ASIDE_BYTES],
            frames_lost: 0,
            rests: 0,
        })
    }

    /// How the link works, for the person who starts it.
    pub fn description(&self) -> String {
        let mode = match self.interface.program().mode() {
            Mode::Native => "native",
            Mode::Generic => "generic",
        };
        let copying = if self.is_zero_copy { "zero-copy" } else { "copied" };
        let umem = &self.interface.umem;
        let polling = if self.interface.options.is_busy_polled { ", busy polling" } else { "" };
        format!(
            "AF_XDP on queue {} of {}: {mode} mode, {copying}, frames of {} bytes, {} MiB of frames{polling}",
            self.queue,
            self.interface.name,
            umem.frame_bytes(),
            umem.bytes() >> 20
        )
    }

    /// What has to be done beside, if anything.
    pub fn advice(&self) -> Option<String> {
        let name = &self.interface.name;
        // Without a driver's name there is nothing to say.
        let is_veth = ethtool::driver(name).ok().flatten().is_some_and(|driver| driver == "veth");
        is_veth.then(|| {
            format!(
                "{name} is a veth: its other end, OTHER, has to complete checksums itself, `ethtool -K OTHER tx off`"
            )
        })
    }

    /// Has the kernel take what was submitted.
    fn call_to_send(&mut self) -> io::Result<()> {
        let begun_with = self.pump.unsent();
        let mut unsent = begun_with;
        while unsent > 0 && self.pump.needs_send_call() {
            let mut is_full = false;
            match self.socket.call_to_send() {
                // EAGAIN: it has taken as many as it takes at a time, or has no room for more under way.
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                // EBUSY: it has taken one more than there was room for behind the queue, and lost it.
                Err(Errno::EBUSY | Errno::ENOBUFS) => is_full = true,
                Err(_) => {
                    self.presence.look()?;
                    break;
                }
            }
            // Without room in the completion ring nothing is taken.
            self.pump.reclaim();
            let left = self.pump.unsent();
            if is_full || left >= unsent {
                self.take_rest(begun_with - left);
                break;
            }
            unsent = left;
        }
        self.has_unsent = self.pump.needs_send_call() && self.pump.unsent() > 0;
        Ok(())
    }

    /// Sends nothing for a moment, a longer one where there was no room after the last: `taken` frames have gone since,
    /// the last of which may be lost.
    fn take_rest(&mut self, taken: u32) {
        self.rest = if taken > 1 { REST_MIN } else { (2 * self.rest).min(REST_MAX) };
        self.rests_until = Some(Instant::now() + self.rest);
        self.rests += 1;
    }

    /// What came by the packet socket, if anything.
    fn receive_aside(&mut self) -> io::Result<Option<&[u8]>> {
        match recv(self.beside.as_raw_fd(), &mut self.aside, MsgFlags::MSG_DONTWAIT) {
            Ok(bytes) => Ok(Some(&self.aside[..bytes])),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(_) => {
                self.presence.look()?;
                Ok(None)
            }
        }
    }
}

impl Link for AfXdp {
    fn mac(&self) -> [u8; 6] {
        self.interface.mac
    }

    fn mtu(&self) -> u16 {
        self.interface.mtu
    }

    fn receive(&mut self) -> io::Result<Received<'_>> {
        self.presence.look_if_down()?;
        if self.interface.options.is_busy_polled || self.pump.needs_receive_call() {
            // It only hastens what comes anyway.
            let _ = self.socket.call_to_receive();
        }
        let was_empty = std::mem::replace(&mut self.was_empty, self.pump.is_empty());
        if !self.was_empty {
            return Ok(self.pump.receive());
        }
        self.pump.give_back();
        let mut received = Received::none();
        // Once is how every batch ends; the packet socket is worth a call when it has woken whoever calls.
        if was_empty && let Some(frame) = self.receive_aside()? {
            received.push(frame);
        }
        Ok(received)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<bool> {
        if self.pump.send(frame) {
            return Ok(true);
        }
        // A network may lose frames, and one that is down keeps none for later.
        let is_lost = self.presence.is_down();
        self.frames_lost += u64::from(is_lost);
        Ok(is_lost)
    }

    fn flush(&mut self) -> io::Result<()> {
        let has_more = self.pump.submit() > 0;
        self.has_unsent |= has_more;
        if self.has_unsent && self.rests_until.is_none_or(|until| until <= Instant::now()) {
            self.rests_until = None;
            self.call_to_send()?;
        }
        Ok(())
    }

    /// None while the interface is down, so that it is looked at now and then.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.presence.is_down()).then(|| self.watch.as_ref().map_or(self.socket.as_fd(), |watch| watch.0.as_fd()))
    }

    fn pause(&self) -> Option<Duration> {
        (self.has_unsent && !self.presence.is_down()).then_some(self.rest)
    }

    fn neighbor(&self, address: IpAddr) -> Option<[u8; 6]> {
        // What cannot be found out now is asked for again.
        neighbors::find(self.interface.index, address).ok().flatten()
    }

    fn frames_lost(&self) -> u64 {
        let counts = self.pump.counts();
        // A socket that is there answers.
        let losses = self.socket.losses().unwrap_or_default();
        let refused = losses.dropped + losses.receive_ring_full + losses.fill_ring_empty + losses.transmit_invalid;
        self.frames_lost + counts.too_large + counts.misnamed + refused
    }

    fn counts(&self) -> Vec<Count> {
        let counts = self.pump.counts();
        let losses = self.socket.losses().unwrap_or_default();
        let mut told = vec![
            ("receive_ring_full", "received frames that found the receive ring full", losses.receive_ring_full),
            ("fill_ring_empty", "received frames that found the fill ring empty", losses.fill_ring_empty),
            ("receive_dropped", "received frames that the kernel could not hand on", losses.dropped),
            ("transmit_ring_full", "times that a frame found the transmit ring full", counts.transmit_full),
            ("transmit_rests", "times that sending rested, as what lies behind the queue was full", self.rests),
            ("transmit_invalid", "frames that the kernel refused to send", losses.transmit_invalid),
            ("misnamed", "addresses from the kernel that were none of ours", counts.misnamed),
        ];
        // The program is the interface's, so the first queue alone tells its verdicts.
        if self.is_first {
            let verdicts = self.interface.program().verdicts();
            told.extend(VERDICTS.into_iter().zip(verdicts).map(|((name, help), value)| (name, help, value)));
        }
        told.into_iter().map(|(name, help, value)| Count { name, help, value }).collect()
    }
}

/// How long nothing is sent when what lies behind the queue was full: at first, a fraction of what it takes to empty
/// it, and at most.
const REST_MIN: Duration = Duration::from_micros(200);
const REST_MAX: Duration = Duration::from_millis(1);

/// Room for an advertisement.
const ASIDE_BYTES: usize = 9_216 + 32;
