//! The server on smoltcp: a socket for each connection, listening from the start.

use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as SmallInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::frames::{Frames, MAC, OURS, PORT};
use super::{PAYLOAD, Server};

/// A socket has buffers of its own, for each direction: room for one full segment.
pub const BUFFER_BYTES: usize = 1_460;

/// See the module.
pub struct Small {
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    cable: Cable,
    now_us: i64,
}

/// What goes in and comes out.
#[derive(Default)]
struct Cable {
    arrived: Vec<u8>,
    ends: Vec<usize>,
    taken: usize,
    sent: Frames,
}

impl Small {
    /// With so many sockets.
    pub fn start(connections: u32) -> Small {
        let mut cable = Cable::default();
        let address = HardwareAddress::Ethernet(EthernetAddress(MAC));
        let mut interface = Interface::new(Config::new(address), &mut cable, SmallInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(OURS.into(), 8)).expect("room for one");
        });
        Small {
            interface,
            sockets: SocketSet::new(Vec::with_capacity(connections as usize)),
            handles: Vec::with_capacity(connections as usize),
            cable,
            now_us: 1,
        }
    }

    /// Makes the sockets: they are what a connection takes, and so they are not there before memory is measured.
    pub fn listen(&mut self, connections: u32) {
        for _ in 0..connections {
            let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
            let mut socket = Socket::new(buffer(), buffer());
            socket.listen(PORT).expect("the socket is new");
            self.handles.push(self.sockets.add(socket));
        }
    }

    fn poll(&mut self, sent: &mut Frames, began: Instant) -> Duration {
        self.interface.poll(SmallInstant::from_micros(self.now_us), &mut self.cable, &mut self.sockets);
        let took = began.elapsed();
        self.now_us += 50;
        for frame in self.cable.sent.iter() {
            sent.add(|out| out.extend_from_slice(frame));
        }
        self.cable.sent.clear();
        took
    }
}

impl Server for Small {
    fn receive(&mut self, frames: &Frames, sent: &mut Frames) -> Duration {
        self.cable.arrived.clear();
        self.cable.ends.clear();
        self.cable.taken = 0;
        for frame in frames.iter() {
            self.cable.arrived.extend_from_slice(frame);
            self.cable.ends.push(self.cable.arrived.len());
        }
        self.poll(sent, Instant::now())
    }

    fn push(&mut self, connections: &[u32], sent: &mut Frames) -> Duration {
        let began = Instant::now();
        for &connection in connections {
            let socket = self.sockets.get_mut::<Socket>(self.handles[connection as usize]);
            assert_eq!(socket.send_slice(&PAYLOAD), Ok(PAYLOAD.len()), "the connection is open");
        }
        self.poll(sent, began)
    }

    fn process(&self) -> u32 {
        std::process::id()
    }
}

impl Device for Cable {
    type RxToken<'a> = Arrived<'a>;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: SmallInstant) -> Option<(Arrived<'_>, Leaving<'_>)> {
        let end = *self.ends.get(self.taken)?;
        let start = if self.taken == 0 { 0 } else { self.ends[self.taken - 1] };
        self.taken += 1;
        Some((Arrived(&self.arrived[start..end]), Leaving(&mut self.sent)))
    }

    fn transmit(&mut self, _now: SmallInstant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1_514;
        capabilities
    }
}

struct Arrived<'a>(&'a [u8]);

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Leaving<'a>(&'a mut Frames);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut result = None;
        self.0.add(|out| {
            let start = out.len();
            out.resize(start + length, 0);
            result = Some(write(&mut out[start..]));
        });
        result.expect("it was written")
    }
}
