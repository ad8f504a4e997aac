//! The raw link over veth pairs, with everything that the kernel leaves undone there left at its default.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam::channel::RecvTimeoutError;
use holdline::link::{Link, Raw, Received, Tap, interface, veth};
use holdline::server::{Options, Server, ServerError};
use holdline::service::Echo;
use holdline::shard::{Capacity, Config, Storage};
use nix::sys::signal::Signal;

use crate::echo::echo_checked;
use crate::support::{PATIENCE, Served, add_ipv6, in_namespace};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);
const SERVER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 2);

/// A veth pair: the clients' end `clients`, with an address, and ours, `ours`. Both are up.
fn lay_veth() {
    veth::make_pair("clients", "ours").expect("root may make a veth pair");
    interface::set_address("clients", CLIENT.into(), 24).expect("it takes an address");
    interface::bring_up("clients").expect("it comes up");
    interface::bring_up("ours").expect("it comes up");
}

/// A raw link whose received frames are looked at.
struct Watched {
    raw: Raw,
    frames_large: Arc<AtomicU64>,
}

impl Link for Watched {
    fn mac(&self) -> [u8; 6] {
        self.raw.mac()
    }

    fn mtu(&self) -> u16 {
        self.raw.mtu()
    }

    fn receive(&mut self) -> io::Result<Received<'_>> {
        let (mac, wire_bytes) = (self.raw.mac(), usize::from(self.raw.mtu()) + 14);
        let frames = self.raw.receive()?;
        let large = frames.iter().filter(|frame| frame.len() > wire_bytes).count();
        self.frames_large.fetch_add(large as u64, Ordering::Relaxed);
        let is_for_all = |frame: &[u8]| frame[..6] == [0xff; 6] || frame[..2] == [0x33; 2];
        let foreign = frames.iter().filter(|frame| frame[..6] != mac && !is_for_all(frame));
        assert_eq!(foreign.count(), 0, "only what is for us is received");
        Ok(frames)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<bool> {
        self.raw.send(frame)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.raw.flush()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.raw.descriptor()
    }

    fn frames_lost(&self) -> u64 {
        self.raw.frames_lost()
    }
}

fn start_echo(link: impl Link + 'static) -> Server {
    let capacity = Capacity { flows: 64, actives: 64, spans: 16_384, blocks: 16_384 };
    let storage = Storage::in_memory(capacity).expect("memory");
    let mut config = Config::new(SERVER, 24, &[7]);
    config.addresses.push((SERVER_IPV6.into(), 64));
    Server::start(config, storage, Box::new(link), Box::new(Echo), Options::default()).expect("it starts")
}

#[test]
fn large_frames_with_half_a_checksum_are_echoed_byte_for_byte() {
    in_namespace("large_frames_with_half_a_checksum_are_echoed_byte_for_byte", || {
        lay_veth();
        let raw = Raw::open("ours").expect("root may");
        assert_ne!(raw.mac(), interface::ethernet_address("ours").expect("it has one"));
        let frames_large = Arc::new(AtomicU64::new(0));
        let server = start_echo(Watched { raw, frames_large: Arc::clone(&frames_large) });
        echo_checked(0, (SERVER, 7), 8_000_000);
        if add_ipv6("clients", "fd79::1") {
            echo_checked(1, (SERVER_IPV6, 7), 8_000_000);
        }
        thread::scope(|scope| {
            for index in 1..5 {
                scope.spawn(move || echo_checked(index, (SERVER, 7), 1_000_000));
            }
        });
        let summary = server.stop().expect("it was well");
        assert_eq!(summary.frames_lost, 0);
        let frames_large = frames_large.load(Ordering::Relaxed);
        assert!(frames_large > 100, "{frames_large} frames were larger than the MTU: the kernel sends none such here");
    });
}

#[test]
fn connections_outlive_an_interface_that_goes_down_and_up() {
    in_namespace("connections_outlive_an_interface_that_goes_down_and_up", || {
        lay_veth();
        let server = start_echo(Raw::open("ours").expect("root may"));
        let mut stream = TcpStream::connect((SERVER, 7)).expect("holdline listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let mut echo = |byte: u8| {
            stream.write_all(&[byte]).expect("connected");
            let mut answer = [0];
            stream.read_exact(&mut answer).expect("the echo writes");
            assert_eq!(answer, [byte]);
        };
        for round in 0..3 {
            echo(round);
            interface::take_down("ours").expect("root may");
            interface::bring_up("ours").expect("root may");
        }
        echo(9);
        server.stop().expect("a link that is down is not gone");
    });
}

#[test]
fn a_deleted_interface_ends_the_server_with_a_sentence() {
    in_namespace("a_deleted_interface_ends_the_server_with_a_sentence", || {
        // A TAP is an Ethernet interface like others, and vanishes with the process that is attached to it.
        let tap = match Tap::open("brief") {
            Ok(tap) => tap,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        interface::bring_up("brief").expect("root may");
        let server = start_echo(Raw::open("brief").expect("root may"));
        drop(tap);
        let finished = server.finished().recv_timeout(PATIENCE);
        assert_eq!(finished, Err(RecvTimeoutError::Disconnected), "the worker has ended by itself");
        match server.stop() {
            Err(ServerError::Link(error)) => assert!(error.to_string().contains("brief was deleted"), "{error}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn serve_echoes_over_a_raw_link_and_says_why_it_cannot() {
    in_namespace("serve_echoes_over_a_raw_link_and_says_why_it_cannot", || {
        lay_veth();
        let arguments = |link, address| {
            let fixed = ["--listen", "7", "--service", "echo", "--max-connections", "1000"];
            [&["--link", link, "--address", address], &fixed[..]].concat()
        };
        let error = |link, address| Served::start(&arguments(link, address), &[]).err().expect("it cannot start");
        let owned = error("raw:ours", "10.79.0.1/24");
        assert!(owned.contains("the kernel has 10.79.0.1 itself, on clients"), "{owned}");
        assert!(error("raw:lo", "10.79.0.2/24").contains("lo does not carry Ethernet"));
        let missing = error("raw:none", "10.79.0.2/24");
        assert!(missing.contains("there is no interface none") && missing.lines().count() == 1, "{missing}");

        interface::take_down("ours").expect("root may");
        let mut served = Served::start(&arguments("raw:ours", "10.79.0.2/24"), &[]).expect("it starts");
        let said = served.before_ready.join("\n");
        assert!(said.contains("`ip link set ours up`"), "{said}");
        interface::bring_up("ours").expect("root may");
        echo_checked(3, (SERVER, 7), 3_000_000);
        served.signal(Signal::SIGTERM);
        assert!(served.wait().success());
    });
}
