//! The other end of the cable: a host that runs smoltcp.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use holdline::link::{Link, MemoryLink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as PeerInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The host and its sockets, named by the order in which they were made.
pub struct Peer {
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    received: Vec<Vec<u8>>,
    cable: Cable,
    began: Instant,
}

impl Peer {
    /// With the address 10.0.0.1/24. Over several cables it sends in turns, whatever the frame is: most come to the
    /// wrong worker.
    pub fn over(links: Vec<MemoryLink>) -> Peer {
        let mut cable = Cable { arrived: VecDeque::new(), links, sent: 0 };
        let address = HardwareAddress::Ethernet(EthernetAddress(cable.links[0].mac()));
        let mut interface = Interface::new(Config::new(address), &mut cable, PeerInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 24)).expect("room for one");
        });
        let sockets = SocketSet::new(Vec::new());
        Peer { interface, sockets, handles: Vec::new(), received: Vec::new(), cable, began: Instant::now() }
    }

    /// Begins a connection; returns its index.
    pub fn connect(&mut self, server: Ipv4Addr, port: u16) -> usize {
        let index = self.handles.len();
        let buffer = || SocketBuffer::new(vec![0; 65_535]);
        let mut socket = Socket::new(buffer(), buffer());
        let local = 40_000 + u16::try_from(index).expect("few sockets");
        socket.connect(self.interface.context(), (server, port), local).expect("the socket is new");
        self.handles.push(self.sockets.add(socket));
        self.received.push(Vec::new());
        index
    }

    /// Whether the handshake is complete.
    pub fn is_established(&self, index: usize) -> bool {
        self.socket(index).state() == State::Established
    }

    /// Whether the server's FIN has come, after all its bytes.
    pub fn is_closed_by_server(&self, index: usize) -> bool {
        !matches!(self.socket(index).state(), State::SynSent | State::Established)
    }

    /// Whether there is no connection any more, or never was.
    pub fn is_over(&self, index: usize) -> bool {
        self.socket(index).state() == State::Closed
    }

    /// Everything that has arrived so far.
    pub fn received(&self, index: usize) -> &[u8] {
        &self.received[index]
    }

    /// Queues what there is room for; returns how much.
    pub fn send(&mut self, index: usize, bytes: &[u8]) -> usize {
        self.sockets.get_mut::<Socket>(self.handles[index]).send_slice(bytes).expect("the connection is open")
    }

    /// Closes our direction.
    pub fn close(&mut self, index: usize) {
        self.sockets.get_mut::<Socket>(self.handles[index]).close();
    }

    /// Turns until `is_done`, sleeping while nothing arrives.
    pub fn run_until(&mut self, what: &str, mut is_done: impl FnMut(&mut Peer) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.turn();
            if is_done(self) {
                return;
            }
            assert!(Instant::now() < until, "after {PATIENCE:?} still waiting for {what}");
            self.rest();
        }
    }

    /// Sleeps until a frame arrives, or a moment.
    pub fn rest(&self) {
        let descriptors =
            self.cable.links.iter().map(|link| link.descriptor().expect("a memory link has a descriptor"));
        let mut polled: Vec<PollFd> =
            descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        poll(&mut polled, PollTimeout::from(2u8)).expect("poll works");
    }

    /// Takes in and sends out what there is.
    pub fn turn(&mut self) {
        let now = PeerInstant::from_micros(i64::try_from(self.began.elapsed().as_micros()).expect("a short test"));
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
        for (handle, received) in self.handles.iter().zip(&mut self.received) {
            let socket = self.sockets.get_mut::<Socket>(*handle);
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        received.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .expect("it can");
            }
        }
        // What was read opens the window, which is to be told.
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
    }

    fn socket(&self, index: usize) -> &Socket<'static> {
        self.sockets.get(self.handles[index])
    }
}

/// The cable's end as smoltcp wants it.
struct Cable {
    links: Vec<MemoryLink>,
    sent: usize,
    arrived: VecDeque<Vec<u8>>,
}

impl Cable {
    fn next_link(&mut self) -> &mut MemoryLink {
        self.sent += 1;
        let count = self.links.len();
        &mut self.links[self.sent % count]
    }
}

impl Device for Cable {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: PeerInstant) -> Option<(Arrived, Leaving<'_>)> {
        if self.arrived.is_empty() {
            for link in &mut self.links {
                let frames = link.receive().expect("memory does not fail");
                self.arrived.extend(frames.iter().map(|frame| frame.to_vec()));
            }
        }
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Leaving(self.next_link())))
    }

    fn transmit(&mut self, _now: PeerInstant) -> Option<Leaving<'_>> {
        Some(Leaving(self.next_link()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.links[0].mtu()) + 14;
        capabilities
    }
}

struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, consume: F) -> R {
        consume(&self.0)
    }
}

struct Leaving<'a>(&'a mut MemoryLink);

impl TxToken for Leaving<'_> {
    /// A frame that finds no room is lost, as on any network.
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        let _ = self.0.send(&frame).expect("memory does not fail");
        result
    }
}
