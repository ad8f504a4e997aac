//! A client machine: smoltcp as an independent TCP, and an application for each of its connections.
//!
//! Frames come in by `arrive`; `step` lets the TCP and the applications do what the time allows and collects what
//! they send ([`Client::sent`]) and what the applications saw ([`Sight`]). `wake_us` says when to step next.
//!
//! Invariant: an application judges nothing. It does what its parameters say and reports; the ledger knows what it
//! ought to have seen.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::network::Port;
use super::pattern::{self, Stream};
use super::profile::{ClientParameters, ConnectionParameters, Ending, Workload};

/// What an application saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Sight {
    /// The handshake is complete.
    Established,
    /// The next bytes of the stream.
    Bytes(Vec<u8>),
    /// The stream has ended.
    End,
    /// The connection was reset.
    Reset,
    /// The connection has ended by a FIN from either side.
    Finished,
}

/// A client machine.
pub(super) struct Client {
    interface: Interface,
    cable: Cable,
    sockets: SocketSet<'static>,
    applications: Vec<Application>,
    tcp_wake_us: Option<u64>,
    /// How often smoltcp was helped out of a stall of its own, see `rescue`.
    pub(super) rescues: u64,
}

/// The first address of the clients' network; the client of index i has the i-th after it.
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 7, 1, 1);
/// All machines are in one network of this prefix length.
pub(super) const PREFIX: u8 = 16;
/// Where the node listens.
pub(super) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 7, 0, 1), 7007);
/// A connection whose send buffer has not moved for this long has lost its timer; two of smoltcp's longest RTOs.
const STALLED_US: u64 = 130_000_000;

impl Client {
    /// The client of this index; its connections are numbered from `first_number` on.
    pub(super) fn new(index: usize, parameters: &ClientParameters, seed: u64, first_number: usize) -> Client {
        let mut cable = Cable { mtu: usize::from(parameters.mtu), ..Cable::default() };
        let address = EthernetAddress(Port::Client(index).mac());
        let mut config = Config::new(HardwareAddress::Ethernet(address));
        config.random_seed = parameters.isn_seed;
        let mut interface = Interface::new(config, &mut cable, Instant::ZERO);
        let ip_address = Ipv4Addr::from(u32::from(CLIENT_ADDRESS) + index as u32);
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(ip_address), PREFIX));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let applications = (first_number..)
            .zip(&parameters.connections)
            .map(|(number, connection)| Application::new(number, connection, seed, ip_address, &mut sockets))
            .collect();
        Client { interface, cable, sockets, applications, tcp_wake_us: Some(0), rescues: 0 }
    }

    /// A frame has arrived.
    pub(super) fn arrive(&mut self, frame: Vec<u8>) {
        self.cable.inbox.push_back(frame);
    }

    /// The frames sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.cable.outbox)
    }

    /// From now on nobody reads or writes slowly.
    pub(super) fn heal(&mut self) {
        for application in &mut self.applications {
            application.parameters.read.1 = 0;
            application.parameters.write.1 = 0;
            application.read_from_us = 0;
            application.write_from_us = 0;
        }
    }

    /// The applications, in the order of their numbers.
    pub(super) fn applications(&self) -> &[Application] {
        &self.applications
    }

    /// How many bytes of this application's stream its TCP has acknowledged or is about to, in order.
    pub(super) fn held_by_tcp_bytes(&self, application: &Application) -> u64 {
        application.read_bytes + self.sockets.get::<Socket>(application.handle).recv_queue() as u64
    }

    /// When to call `step` next, if nothing arrives.
    pub(super) fn wake_us(&self, now_us: u64) -> Option<u64> {
        let sockets = &self.sockets;
        let applications = self.applications.iter().filter_map(|it| it.wake_us(sockets.get(it.handle), now_us));
        applications.chain(self.tcp_wake_us).min()
    }

    /// Lets TCP and applications run.
    pub(super) fn step(&mut self, now_us: u64, sights: &mut Vec<(usize, Sight)>) {
        CLOCK_MS.set((now_us / 1_000) as u32);
        let now = Instant::from_micros(now_us as i64);
        loop {
            self.interface.poll(now, &mut self.cable, &mut self.sockets);
            let mut has_acted = false;
            for application in &mut self.applications {
                has_acted |= application.act(now_us, &mut self.interface, &mut self.sockets, sights);
            }
            if !has_acted {
                break;
            }
        }
        self.tcp_wake_us = self.interface.poll_at(now, &self.sockets).map(|at| at.total_micros().max(0) as u64);
        self.rescue(now_us);
    }

    /// smoltcp 0.14 forgets its timer when the retransmission timer fires while a window update that was overtaken by
    /// an older segment has left it with a window of zero: unacknowledged bytes, and nothing that will ever send
    /// them. A keepalive, whose answer brings the true window, gets it going again.
    fn rescue(&mut self, now_us: u64) {
        let has_no_timer = self.tcp_wake_us.is_none();
        for application in &mut self.applications {
            let socket = self.sockets.get_mut::<Socket>(application.handle);
            let queued_bytes = socket.send_queue();
            if queued_bytes != application.queued_bytes || queued_bytes == 0 {
                application.queued_bytes = queued_bytes;
                application.queued_since_us = now_us;
                if std::mem::take(&mut application.is_rescued) {
                    socket.set_keep_alive(application.parameters.keepalive_ms.map(Duration::from_millis));
                }
            } else if !application.is_rescued
                && application.is_established
                && socket.is_active()
                && (has_no_timer || now_us - application.queued_since_us >= STALLED_US)
            {
                application.is_rescued = true;
                self.rescues += 1;
                socket.set_keep_alive(Some(Duration::from_secs(1)));
                self.tcp_wake_us = Some(now_us + 1);
            }
        }
    }
}

thread_local! {
    /// What timestamps are made from: smoltcp takes a plain function, which can ask nobody else for the time.
    static CLOCK_MS: Cell<u32> = const { Cell::new(0) };
}

fn timestamp_ms() -> u32 {
    CLOCK_MS.get()
}

/// One connection's application.
pub(super) struct Application {
    /// The connection's number in the world, which its first byte tells the node.
    pub(super) number: usize,
    /// Where it connects from.
    pub(super) local: SocketAddrV4,
    /// How much it has written, which is final once `is_closed`.
    pub(super) written_bytes: u64,
    /// Whether it has closed its direction.
    pub(super) is_closed: bool,
    /// Whether it has aborted.
    pub(super) is_aborted: bool,
    /// Whether there is nothing left to happen on its side.
    pub(super) is_over: bool,
    parameters: ConnectionParameters,
    seed: u64,
    handle: SocketHandle,
    is_started: bool,
    is_established: bool,
    has_ended: bool,
    read_bytes: u64,
    write_from_us: u64,
    read_from_us: u64,
    queued_bytes: usize,
    queued_since_us: u64,
    is_rescued: bool,
}

impl Application {
    fn new(
        number: usize,
        parameters: &ConnectionParameters,
        seed: u64,
        address: Ipv4Addr,
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
            number,
            local: SocketAddrV4::new(address, 40_000 + number as u16),
            written_bytes: 0,
            is_closed: false,
            is_aborted: false,
            is_over: false,
            parameters: parameters.clone(),
            seed,
            handle: sockets.add(socket),
            is_started: false,
            is_established: false,
            has_ended: false,
            read_bytes: 0,
            write_from_us: parameters.start_us,
            read_from_us: parameters.start_us,
            queued_bytes: 0,
            queued_since_us: 0,
            is_rescued: false,
        }
    }

    /// Whether its TCP knows the other side.
    pub(super) fn is_established(&self) -> bool {
        self.is_established
    }

    /// Does one thing after the other as far as the time allows; true if TCP may now have something to send.
    fn act(
        &mut self,
        now_us: u64,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        sights: &mut Vec<(usize, Sight)>,
    ) -> bool {
        let socket = sockets.get_mut::<Socket>(self.handle);
        if self.is_over {
            return false;
        }
        if !self.is_started {
            if now_us < self.parameters.start_us {
                return false;
            }
            self.is_started = true;
            let connected = socket.connect(interface.context(), SERVER, self.local);
            connected.expect("a fresh socket with both addresses given can connect");
            return true;
        }
        if let Ending::ClientReset(at_us) = self.parameters.ending
            && now_us >= at_us
        {
            socket.abort();
            self.is_aborted = true;
            self.is_over = true;
            return true;
        }
        if !self.is_established && !matches!(socket.state(), State::SynSent | State::Closed) {
            self.is_established = true;
            sights.push((self.number, Sight::Established));
        }
        let has_acted = self.write(now_us, socket) | self.read(now_us, socket, sights) | self.close(now_us, socket);
        self.notice_the_end(socket, sights);
        has_acted
    }

    fn write(&mut self, now_us: u64, socket: &mut Socket) -> bool {
        let (bytes_at_once, pause_us) = self.parameters.write;
        let rest = self.unwritten_bytes();
        if rest == 0 || now_us < self.write_from_us || !socket.can_send() {
            return false;
        }
        let (seed, stream, offset) = (self.seed, Stream::FromClient(self.number), self.written_bytes);
        let tag = tag(self.number, self.parameters.workload);
        let written = socket.send(|buffer| {
            let count = buffer.len().min(bytes_at_once).min(rest as usize);
            pattern::fill(seed, stream, offset, &mut buffer[..count]);
            if offset == 0 && count > 0 {
                buffer[0] = tag;
            }
            (count, count)
        });
        self.written_bytes += written.unwrap_or(0) as u64;
        self.write_from_us = now_us + pause_us;
        written.unwrap_or(0) > 0
    }

    fn unwritten_bytes(&self) -> u64 {
        if self.is_closed || self.has_ended { 0 } else { self.parameters.send_bytes - self.written_bytes }
    }

    fn read(&mut self, now_us: u64, socket: &mut Socket, sights: &mut Vec<(usize, Sight)>) -> bool {
        let (bytes_at_once, pause_us) = self.parameters.read;
        // smoltcp forgets what has not been read when TIME-WAIT ends.
        let is_last_chance = socket.state() == State::TimeWait;
        if self.has_ended || (now_us < self.read_from_us && !is_last_chance) {
            return false;
        }
        let mut buffer = vec![0; bytes_at_once.min(socket.recv_queue())];
        match socket.recv_slice(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                buffer.truncate(count);
                self.read_bytes += count as u64;
                self.read_from_us = now_us + pause_us;
                sights.push((self.number, Sight::Bytes(buffer)));
                true
            }
            Err(RecvError::Finished) => {
                self.has_ended = true;
                sights.push((self.number, Sight::End));
                true
            }
            Err(RecvError::InvalidState) => false,
        }
    }

    fn close(&mut self, now_us: u64, socket: &mut Socket) -> bool {
        let is_time = match (self.parameters.ending, self.parameters.workload) {
            (Ending::ClientFin(_), Workload::Echo) => true,
            (Ending::ClientFin(at_us), Workload::Hold) => now_us >= at_us,
            (Ending::ClientReset(_) | Ending::ServerFin(_) | Ending::ServerReset(_), _) => false,
        };
        let wants_to_close = self.has_ended || (is_time && self.unwritten_bytes() == 0);
        if self.is_closed || !self.is_established || !wants_to_close {
            return false;
        }
        self.is_closed = true;
        socket.close();
        true
    }

    fn notice_the_end(&mut self, socket: &Socket, sights: &mut Vec<(usize, Sight)>) {
        let is_finished = self.has_ended && self.is_closed;
        match socket.state() {
            State::Closed if socket.recv_queue() == 0 => {
                self.is_over = true;
                sights.push((self.number, if is_finished { Sight::Finished } else { Sight::Reset }));
            }
            State::TimeWait if is_finished => {
                self.is_over = true;
                sights.push((self.number, Sight::Finished));
            }
            _ => {}
        }
    }

    fn wake_us(&self, socket: &Socket, now_us: u64) -> Option<u64> {
        if self.is_over {
            return None;
        }
        if !self.is_started {
            return Some(self.parameters.start_us);
        }
        let write_us = (self.unwritten_bytes() > 0 && socket.can_send()).then_some(self.write_from_us);
        let read_us = (socket.can_recv() && !self.has_ended).then_some(self.read_from_us);
        let end_us = match self.parameters.ending {
            Ending::ClientReset(at_us) => Some(at_us),
            Ending::ClientFin(at_us) if self.is_established && !self.is_closed => Some(at_us),
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

/// smoltcp's view of a network card.
#[derive(Default)]
struct Cable {
    inbox: VecDeque<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
    mtu: usize,
}

struct Arrived(Vec<u8>);
struct Departing<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Cable {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Departing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Departing<'_>)> {
        self.inbox.pop_front().map(|frame| (Arrived(frame), Departing(&mut self.outbox)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Departing<'_>> {
        Some(Departing(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        const ETHERNET_HEADER_BYTES: usize = 14;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER_BYTES;
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Departing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, f: F) -> R {
        let mut frame = vec![0; bytes];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}
