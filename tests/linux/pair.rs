//! A veth pair, one end of which AF_XDP has and the clients the other.
//!
//! Both ends are in namespaces of their own, so that what they say to each other goes over the pair. File systems for
//! pins are mounted where this thread alone sees them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use holdline::link::af_xdp::{AfXdpOptions, Interface, Steering};
use holdline::link::{complete_checksums, interface, veth};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::gettid;

use crate::support::{HOLDLINE, PATIENCE, in_namespace};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// What the kernel of our end has, where it has any.
pub const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 3);

/// Runs `test` in a thread with a network namespace and mounts of its own, where pins can be made. Skips where maps
/// cannot.
pub fn on_stage(name: &str, test: impl FnOnce() + Send) {
    in_namespace(name, || {
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            return eprintln!("{name} skipped: this user may not mount");
        }
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("root may");
        if let Err(errno) = mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), nothing) {
            return eprintln!("{name} skipped: there is no file system for pins ({errno})");
        }
        veth::make_pair("clients", "ours").expect("root may make a veth pair");
        complete_checksums("clients").expect("a veth can");
        interface::bring_up("ours").expect("it comes up");
        if let Err(error) = Interface::open("ours", &Steering::default(), AfXdpOptions::default()) {
            return eprintln!("{name} skipped: {error}");
        }
        test();
    });
}

/// The same, with the clients' end of the pair up and its addresses set, in this namespace.
pub fn beside_clients(test: impl FnOnce()) {
    interface::set_address("clients", CLIENT.into(), 24).expect("it takes an address");
    interface::bring_up("clients").expect("it comes up");
    test();
}

/// Moves the clients' end into another namespace and runs `clients` there, then `afterwards` here. The pair is gone
/// when that namespace is.
pub fn with_far_clients(clients: impl FnOnce() + Send, afterwards: impl FnOnce()) {
    let clients = || {
        interface::set_address("clients", CLIENT.into(), 24).expect("it takes an address");
        interface::bring_up("clients").expect("it comes up");
        interface::set_address("clients", "fd79::1".parse().expect("one"), 64).expect("it takes IPv6");
        clients();
    };
    elsewhere("clients", clients, afterwards);
}

/// Moves an interface into another namespace and runs `inside` there, then `afterwards` here. What was moved is gone
/// when that namespace is, afterwards.
pub fn elsewhere(name: &str, inside: impl FnOnce() + Send, afterwards: impl FnOnce()) {
    let ((tell, told), (go, gone)) = (channel(), channel::<()>());
    let (done, is_done) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may");
            tell.send(gettid()).expect("the test waits for it");
            gone.recv().expect("the end is moved");
            interface::bring_up("lo").expect("it is there");
            inside();
            done.send(()).expect("the test waits for it");
            // What keeps the interface there ends with the test.
            let _ = gone.recv();
        });
        let thread = told.recv().expect("the thread runs").to_string();
        run("ip", &["link", "set", name, "netns", &thread]);
        go.send(()).expect("the thread waits");
        // Where the thread has panicked, the scope says so.
        if is_done.recv().is_ok() {
            afterwards();
        }
        drop(go);
    });
}

pub fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {} {said}", output.status);
    output
}

/// What the server behind a control socket has counted.
pub fn counted(control: &str, section: &str, name: &str) -> u64 {
    let stats = run(HOLDLINE, &["stats", "--json", "--control", control]).stdout;
    let stats: serde_json::Value = serde_json::from_slice(&stats).expect("JSON");
    stats[section][name].as_u64().expect("it is counted")
}

/// Waits until something holds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a program is attached to our end.
pub fn is_attached() -> bool {
    let output = run("ip", &["link", "show", "ours"]);
    String::from_utf8_lossy(&output.stdout).contains("prog/xdp")
}

/// Waits until no program is attached there any more: the kernel takes its time with the last reference.
pub fn expect_given_back() {
    until("the program is still attached", || !is_attached());
}

/// Has the kernel of this namespace ping an address, with so many bytes; panics where no answer comes.
pub fn ping(address: IpAddr, bytes: usize) {
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").expect("root may");
    let (family, protocol, request, answer) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::empty(), protocol).expect("this group may");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    socket.connect((address, 0)).expect("there is a way");
    let mut echo = vec![7; 8 + bytes];
    echo[..8].copy_from_slice(&[request, 0, 0, 0, 0, 0, 0, 1]);
    socket.send(&echo).expect("the kernel sends");
    let mut answered = vec![0; 2 * echo.len()];
    let count = socket.recv(&mut answered).expect("an answer comes");
    assert!(count == echo.len() && answered[0] == answer && answered[8..count] == echo[8..], "{:?}", &answered[..8]);
}
