//! Kernel: the machine's own TCP, behind a veth pair in the test's network namespace.
//!
//! ```text
//!   listening sockets -- kernel -- veth `kernel`  ||  veth `wire` -- packet socket -- the client's crafted frames
//! ```
//!
//! A frame that is sent into the pair is dealt with before the system call returns, on the same core; a ping behind it
//! proves it. So silence is known at once, and nothing here waits for time to pass.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use holdline::link::{Link, Raw, interface, veth};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use super::crafted::Ends;
use super::frame::{arp_answer, ping};
use super::stack::{CLIENT, PORT, PORT_SMALL, PREFIX, SERVER, Stack};
use super::translate::Family;
use super::{answer, route};
use crate::support::PATIENCE;

/// What is set in the namespace so that both stacks do the same, and are heard doing it. The second word: whether a
/// kernel may be without it.
const SETTINGS: &[(&str, &str, Presence)] = &[
    // Who asks for ECN gets it, and nobody is asked.
    ("net/ipv4/tcp_ecn", "2", Presence::Sure),
    // What holdline does not do is offered by neither.
    ("net/ipv4/tcp_fastopen", "0", Presence::Sure),
    ("net/ipv4/tcp_syncookies", "0", Presence::Sure),
    // Every answer is heard: answers to bad segments are throttled by default.
    ("net/ipv4/tcp_invalid_ratelimit", "0", Presence::Sure),
    ("net/ipv4/tcp_challenge_ack_limit", "2147483647", Presence::Sure),
    ("net/ipv4/icmp_ratelimit", "0", Presence::Sure),
    ("net/ipv4/icmp_msgs_per_sec", "1000000", Presence::Optional),
    ("net/ipv4/icmp_msgs_burst", "1000000", Presence::Optional),
    // RFC 1337: TIME-WAIT ignores an RST.
    ("net/ipv4/tcp_rfc1337", "1", Presence::Sure),
    // Many half-open connections and many in TIME-WAIT.
    ("net/core/somaxconn", "8192", Presence::Sure),
    ("net/ipv4/tcp_max_syn_backlog", "65536", Presence::Sure),
    ("net/ipv4/tcp_max_tw_buckets", "200000", Presence::Sure),
    // What one connection teaches is not used for the next.
    ("net/ipv4/tcp_no_metrics_save", "1", Presence::Sure),
    // No tail loss probe while a batch of cases is looked at.
    ("net/ipv4/tcp_early_retrans", "0", Presence::Sure),
    ("net/ipv4/tcp_moderate_rcvbuf", "0", Presence::Sure),
    ("net/ipv4/conf/all/rp_filter", "0", Presence::Sure),
    ("net/ipv4/conf/kernel/rp_filter", "0", Presence::Sure),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Sure,
    Optional,
}

/// The receive buffer behind `PORT_SMALL`; the kernel doubles it and offers half of that.
const SMALL_BUFFER_BYTES: usize = 4_096;

/// See the module.
pub struct Kernel {
    family: Family,
    wire: Raw,
    server_mac: [u8; 6],
    listeners: Vec<TcpListener>,
    streams: HashMap<u16, TcpStream>,
    pings: u16,
}

impl Kernel {
    /// Lays the pair and starts to listen, in the thread's own network namespace.
    pub fn start(family: Family) -> Kernel {
        veth::make_pair("kernel", "wire").expect("root may make a veth pair");
        let on_wire = |address: Ipv4Addr| family.on_wire(address.octets());
        let prefix = if family == Family::Ipv4 { PREFIX } else { 96 + PREFIX };
        if family == Family::Ipv4 {
            interface::set_address("kernel", SERVER.into(), PREFIX).expect("it takes an address");
        }
        for name in ["kernel", "wire"] {
            interface::bring_up(name).expect("it comes up");
        }
        for (name, value, presence) in SETTINGS {
            let written = fs::write(format!("/proc/sys/{name}"), value);
            assert!(written.is_ok() || *presence == Presence::Optional, "{name} cannot be set: {written:?}");
        }
        if family == Family::Ipv6 {
            // The interface is up by now, or the kernel would take the address away again.
            interface::set_address("kernel", on_wire(SERVER), prefix).expect("it takes an address");
            fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").expect("every kernel with IPv6 has it");
        }
        let network = on_wire(Ipv4Addr::new(10, 90, 0, 0));
        route::replace("kernel", (network, prefix), None, on_wire(SERVER));
        let anywhere = match family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        route::replace("kernel", (anywhere, 0), Some(on_wire(CLIENT)), on_wire(SERVER));
        let wire = Raw::open("wire").expect("root may");
        let server_mac = interface::ethernet_address("kernel").expect("it has one");
        let small = Some(SMALL_BUFFER_BYTES);
        let listeners = vec![listener(on_wire(SERVER), PORT, None), listener(on_wire(SERVER), PORT_SMALL, small)];
        let mut kernel = Kernel { family, wire, server_mac, listeners, streams: HashMap::new(), pings: 0 };
        // The interface may still be on its way up.
        kernel.await_ping(&mut Vec::new());
        kernel
    }

    /// Takes in what waits. Returns whether the ping has come back.
    fn receive(&mut self, came: &mut Vec<Vec<u8>>) -> bool {
        let ends = self.ends(0, 0);
        let mut is_back = false;
        let frames = self.wire.receive().expect("the wire is there");
        let received: Vec<Vec<u8>> = frames.iter().filter_map(|frame| self.family.coming(frame)).collect();
        for frame in received {
            if let Some(arp) = arp_answer(&frame, &ends) {
                self.inject(&arp);
            } else if answer::pong(&frame) == Some(self.pings) {
                is_back = true;
            } else {
                came.push(frame);
            }
        }
        is_back
    }

    fn await_ping(&mut self, came: &mut Vec<Vec<u8>>) {
        self.pings = self.pings.wrapping_add(1);
        let frame = ping(&self.ends(0, 0), self.pings);
        self.inject(&frame);
        let begun = Instant::now();
        while !self.receive(came) {
            assert!(begun.elapsed() < PATIENCE, "the kernel answers no ping");
            let descriptor = self.wire.descriptor().expect("the wire is up");
            let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut polled, PollTimeout::from(100u16)).expect("a packet socket can be polled");
            if ready == 0 {
                // It was lost, or its answer, while the kernel did not know yet where the client is.
                self.inject(&frame);
            }
        }
    }

    fn accept(&mut self) {
        for listener in &self.listeners {
            loop {
                match listener.accept() {
                    Ok((stream, from)) => {
                        stream.set_nonblocking(true).expect("a socket");
                        stream.set_nodelay(true).expect("a socket");
                        self.streams.insert(from.port(), stream);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // It was reset before it was accepted.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionAborted),
                }
            }
        }
    }

    fn rows(&self) -> Vec<(SocketAddr, u16, String)> {
        let name = if self.family == Family::Ipv4 { "tcp" } else { "tcp6" };
        let table = fs::read_to_string(format!("/proc/thread-self/net/{name}")).expect("Linux tells its connections");
        table.lines().skip(1).filter_map(row).collect()
    }
}

impl Stack for Kernel {
    fn ends(&self, client_port: u16, server_port: u16) -> Ends {
        Ends {
            client_mac: self.wire.mac(),
            server_mac: self.server_mac,
            client: CLIENT,
            server: SERVER,
            client_port,
            server_port,
        }
    }

    fn inject(&mut self, frame: &[u8]) {
        // A packet socket takes no frame without a whole Ethernet header; none such is crafted.
        assert!(self.wire.send(&self.family.going(frame)).expect("the wire is there"), "the wire has room");
        self.wire.flush().expect("the wire is there");
    }

    fn settle(&mut self) -> Vec<Vec<u8>> {
        let mut came = Vec::new();
        self.await_ping(&mut came);
        self.accept();
        came
    }

    fn close(&mut self, client_port: u16) {
        if let Some(stream) = self.streams.get(&client_port) {
            // It fails for a connection that the client has reset, as closing fails for holdline.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn close_both(&mut self, client_port: u16) {
        // With bytes that were not read it would be a reset.
        self.read(client_port);
        drop(self.streams.remove(&client_port));
    }

    fn push(&mut self, client_port: u16, bytes: u16) {
        if let Some(mut stream) = self.streams.get(&client_port) {
            // As above.
            let _ = stream.write(&vec![b'x'; usize::from(bytes)]);
        }
    }

    fn states(&mut self) -> Vec<(u16, String)> {
        let rows = self.rows().into_iter();
        rows.filter(|(remote, ..)| remote.ip() == CLIENT).map(|(remote, _, state)| (remote.port(), state)).collect()
    }

    fn read(&mut self, client_port: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(mut stream) = self.streams.get(&client_port) {
            // It ends with WouldBlock, at the end of the stream, or with the reset of it.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    }

    fn forget(&mut self) {
        self.accept();
        for (_, stream) in self.streams.drain() {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &at_once).expect("a socket");
        }
        self.await_ping(&mut Vec::new());
    }
}

fn listener(server: IpAddr, port: u16, buffer_bytes: Option<usize>) -> TcpListener {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, flags, None).expect("a socket");
    // Urgent data is data (RFC 6093).
    setsockopt(&socket, sockopt::OobInline, &true).expect("a socket");
    if let Some(bytes) = buffer_bytes {
        setsockopt(&socket, sockopt::RcvBuf, &bytes).expect("a socket");
    }
    let address = SockaddrStorage::from(SocketAddr::new(server, port));
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).expect("the port is free");
    listen(&socket, Backlog::new(4096).expect("a backlog")).expect("a socket listens");
    TcpListener::from(socket)
}

/// One line of the kernel's table: the peer, our port, the state.
fn row(line: &str) -> Option<(SocketAddr, u16, String)> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let (_, local_port) = local.split_once(':')?;
    let (address, port) = remote.split_once(':')?;
    // Of an IPv6 address the last word is the IPv4 address that it stands for.
    let address = u32::from_str_radix(&address[address.len().checked_sub(8)?..], 16).ok()?.to_ne_bytes();
    let number = |hex: &str| u16::from_str_radix(hex, 16).ok();
    let state = match state {
        "01" => "ESTABLISHED",
        "03" => "SYN-RECEIVED",
        "04" => "FIN-WAIT-1",
        "05" => "FIN-WAIT-2",
        "06" => "TIME-WAIT",
        "08" => "CLOSE-WAIT",
        "09" => "LAST-ACK",
        "0B" => "CLOSING",
        _ => return None,
    };
    Some((SocketAddr::from((address, number(port)?)), number(local_port)?, state.to_owned()))
}
