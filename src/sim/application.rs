//! What sits on a socket of smoltcp's: connects, writes, reads, closes or aborts as its parameters say.
//!
//! The client calls `act` whenever its TCP has run; what the application sees goes out as [`Sight`].
//!
//! Invariant: an application judges nothing. The ledger knows what it ought to have seen.

use std::cell::Cell;
use std::net::SocketAddr;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Duration;

use super::client::{self, Progress, Sight};
use super::pattern::{self, Stream};
use super::profile::{ConnectionParameters, Ending, Workload};

/// One connection's application.
pub(super) struct Application {
    /// What it has done so far.
    pub(super) progress: Progress,
    /// Since when nothing but its FIN is unacknowledged.
    fin_since_us: Option<u64>,
    parameters: ConnectionParameters,
    seed: u64,
    handle: SocketHandle,
    has_ended: bool,
    write_from_us: u64,
    read_from_us: u64,
    queued_bytes: usize,
    queued_since_us: u64,
}

/// A connection whose send buffer has not moved for this long has lost its timer; two of smoltcp's longest RTOs.
const STALLED_US: u64 = 130_000_000;

impl Application {
    /// An application that has not begun, with its socket.
    pub(super) fn new(
        number: usize,
        parameters: &ConnectionParameters,
        seed: u64,
        local: SocketAddr,
        sockets: &mut SocketSet<'static>,
    ) -> Application {
        let (receive_bytes, send_bytes) = parameters.buffers_bytes;
        let mut socket = Socket::new(SocketBuffer::new(vec![0; receive_bytes]), SocketBuffer::new(vec![0; send_bytes]));
        socket.set_nagle_enabled(parameters.is_nagle);
        if !parameters.is_ack_delayed {
            socket.set_ack_delay(None);
        }
        if parameters.is_timestamped {
            socket.set_tsval_generator(Some(timestamp_ms));
        }
        socket.set_keep_alive(parameters.keepalive_ms.map(Duration::from_millis));
        Application {
            progress: Progress::new(number, local),
            fin_since_us: None,
            parameters: parameters.clone(),
            seed,
            handle: sockets.add(socket),
            has_ended: false,
            write_from_us: parameters.start_us,
            read_from_us: parameters.start_us,
            queued_bytes: 0,
            queued_since_us: 0,
        }
    }

    /// From now on it neither reads nor writes slowly.
    pub(super) fn heal(&mut self) {
        self.parameters.read.1 = 0;
        self.parameters.write.1 = 0;
        self.read_from_us = 0;
        self.write_from_us = 0;
    }

    /// smoltcp 0.14 forgets its timer when the retransmission timer fires while a window update that was overtaken by
    /// an older segment has left it with a window of zero, and when a fast retransmission finds that its FIN alone is
    /// left: something unacknowledged, and nothing that will ever send it. The application gives up by an abort; a
    /// keepalive would carry a byte of its own where others are still to come. Returns whether that was needed.
    pub(super) fn rescue(&mut self, now_us: u64, sockets: &mut SocketSet<'static>, has_no_timer: bool) -> bool {
        let socket = sockets.get_mut::<Socket>(self.handle);
        let queued_bytes = socket.send_queue();
        if queued_bytes == 0 && matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck) {
            let since_us = *self.fin_since_us.get_or_insert(now_us);
            let is_stalled = has_no_timer || now_us - since_us >= 2 * STALLED_US;
            return is_stalled && self.abort(socket);
        }
        self.fin_since_us = None;
        if queued_bytes != self.queued_bytes || queued_bytes == 0 {
            self.queued_bytes = queued_bytes;
            self.queued_since_us = now_us;
            return false;
        }
        let is_stalled = has_no_timer || now_us - self.queued_since_us >= STALLED_US;
        self.progress.is_established && socket.is_active() && is_stalled && self.abort(socket)
    }

    fn abort(&mut self, socket: &mut Socket<'static>) -> bool {
        socket.abort();
        self.progress.is_aborted = true;
        self.progress.is_over = true;
        true
    }

    /// How far before the wrap its initial sequence number is to be.
    pub(super) fn isn_before_wrap(&self) -> Option<u32> {
        self.parameters.isn_before_wrap
    }

    /// Whether its port is free for another connection.
    pub(super) fn has_left_port(&self, sockets: &SocketSet<'static>) -> bool {
        self.progress.is_over && sockets.get::<Socket>(self.handle).state() == State::Closed
    }

    /// Does one thing after the other as far as the time allows; true if TCP may now have something to send.
    pub(super) fn act(
        &mut self,
        now_us: u64,
        is_port_free: bool,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        sights: &mut Vec<(usize, Sight)>,
    ) -> bool {
        let socket = sockets.get_mut::<Socket>(self.handle);
        if self.progress.is_over {
            return false;
        }
        if !self.progress.is_begun {
            if now_us < self.parameters.start_us || !is_port_free {
                return false;
            }
            self.progress.is_begun = true;
            let connected =
                socket.connect(interface.context(), client::server(self.progress.local), self.progress.local);
            connected.expect("a fresh socket with both addresses given can connect");
            return true;
        }
        if !self.progress.is_established && !matches!(socket.state(), State::SynSent | State::Closed) {
            self.progress.is_established = true;
            sights.push((self.progress.number, Sight::Established));
        }
        if let Ending::ClientReset(at_us) = self.parameters.ending
            && now_us >= at_us
        {
            socket.abort();
            self.progress.is_aborted = true;
            self.progress.is_over = true;
            return true;
        }
        let has_acted = self.write(now_us, socket) | self.read(now_us, socket, sights) | self.close(now_us, socket);
        if !has_acted {
            self.notice_the_end(socket, sights);
        }
        has_acted
    }

    fn write(&mut self, now_us: u64, socket: &mut Socket) -> bool {
        let (bytes_at_once, pause_us) = self.parameters.write;
        let rest = self.unwritten_bytes();
        if rest == 0 || now_us < self.write_from_us || !socket.can_send() {
            return false;
        }
        let (seed, stream, offset) = (self.seed, Stream::FromClient(self.progress.number), self.progress.written_bytes);
        let tag = tag(self.progress.number, self.parameters.workload);
        let written = socket.send(|buffer| {
            let count = buffer.len().min(bytes_at_once).min(rest as usize);
            pattern::fill(seed, stream, offset, &mut buffer[..count]);
            if offset == 0 && count > 0 {
                buffer[0] = tag;
            }
            (count, count)
        });
        self.progress.written_bytes += written.unwrap_or(0) as u64;
        self.write_from_us = now_us + pause_us;
        written.unwrap_or(0) > 0
    }

    fn unwritten_bytes(&self) -> u64 {
        if self.progress.is_closed || self.has_ended {
            0
        } else {
            self.parameters.send_bytes - self.progress.written_bytes
        }
    }

    fn read(&mut self, now_us: u64, socket: &mut Socket, sights: &mut Vec<(usize, Sight)>) -> bool {
        let (bytes_at_once, pause_us) = self.parameters.read;
        // smoltcp forgets what has not been read when TIME-WAIT ends.
        let is_last_chance = matches!(socket.state(), State::TimeWait | State::Closed);
        if self.has_ended || (now_us < self.read_from_us && !is_last_chance) {
            return false;
        }
        let mut buffer = vec![0; bytes_at_once.min(socket.recv_queue())];
        match socket.recv_slice(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                buffer.truncate(count);
                self.read_from_us = now_us + pause_us;
                sights.push((self.progress.number, Sight::Bytes(buffer)));
                true
            }
            Err(RecvError::Finished) => {
                self.has_ended = true;
                sights.push((self.progress.number, Sight::End));
                true
            }
            Err(RecvError::InvalidState) => false,
        }
    }

    fn close(&mut self, now_us: u64, socket: &mut Socket) -> bool {
        let is_time = self.parameters.is_client_to_close(now_us);
        let wants_to_close = self.has_ended || (is_time && self.unwritten_bytes() == 0);
        if self.progress.is_closed || !self.progress.is_established || !wants_to_close {
            return false;
        }
        self.progress.is_closed = true;
        socket.close();
        true
    }

    fn notice_the_end(&mut self, socket: &Socket, sights: &mut Vec<(usize, Sight)>) {
        let is_finished = self.has_ended && self.progress.is_closed;
        match socket.state() {
            State::Closed if socket.recv_queue() == 0 => {
                self.progress.is_over = true;
                sights.push((self.progress.number, if is_finished { Sight::Finished } else { Sight::Reset }));
            }
            State::TimeWait if is_finished => {
                self.progress.is_over = true;
                sights.push((self.progress.number, Sight::Finished));
            }
            _ => {}
        }
    }

    /// When it wants to act next, if nothing arrives.
    pub(super) fn wake_us(&self, sockets: &SocketSet<'static>, now_us: u64) -> Option<u64> {
        let socket = sockets.get::<Socket>(self.handle);
        if self.progress.is_over {
            return None;
        }
        if !self.progress.is_begun {
            // Later than that it waits for its port, and begins when the connection before it has left it.
            return Some(self.parameters.start_us).filter(|&at_us| at_us > now_us);
        }
        let write_us = (self.unwritten_bytes() > 0 && socket.can_send()).then_some(self.write_from_us);
        let read_us = (socket.can_recv() && !self.has_ended).then_some(self.read_from_us);
        let end_us = match self.parameters.ending {
            Ending::ClientReset(at_us) => Some(at_us),
            Ending::ClientFin(at_us) if self.progress.is_established && !self.progress.is_closed => Some(at_us),
            Ending::ClientFin(_) | Ending::ServerFin(_) | Ending::ServerReset(_) => None,
        };
        [write_us, read_us, end_us].into_iter().flatten().filter(|&at_us| at_us > now_us).min()
    }
}

/// The first byte of a client's stream: the connection's number, and the workload in the highest bit.
pub(super) fn tag(number: usize, workload: Workload) -> u8 {
    number as u8 | if workload == Workload::Hold { 0x80 } else { 0 }
}

/// The number and workload that a first byte names.
pub(super) fn from_tag(tag: u8) -> (usize, Workload) {
    (usize::from(tag & 0x7f), if tag & 0x80 != 0 { Workload::Hold } else { Workload::Echo })
}

thread_local! {
    /// What timestamps are made from: smoltcp takes a plain function, which can ask nobody else for the time.
    static CLOCK_MS: Cell<u32> = const { Cell::new(0) };
}

fn timestamp_ms() -> u32 {
    CLOCK_MS.get()
}

/// Sets the clock of timestamps.
pub(super) fn set_clock(now_us: u64) {
    CLOCK_MS.set((now_us / 1_000) as u32);
}
