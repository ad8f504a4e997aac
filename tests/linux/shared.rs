//! Ports of an address that the kernel keeps, over AF_XDP on one end of a veth pair.
//!
//! holdline has its own, the kernel all others, and neither touches what is the other's.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::thread;

use holdline::link::interface;
use nix::sys::signal::Signal;

use crate::echo::echo_checked;
use crate::pair::{CLIENT, KERNEL, expect_given_back, on_stage, ping, run, with_far_clients};
use crate::support::{HOLDLINE, PATIENCE, Served};

const KERNEL_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 3);
const BOTH: [IpAddr; 2] = [IpAddr::V4(KERNEL), IpAddr::V6(KERNEL_IPV6)];
/// Of holdline, and of a server of the kernel's at the same addresses.
const PORT: u16 = 7000;
const OTHER_PORT: u16 = 22;

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["--link", "af-xdp:ours", "--address", "10.79.0.3/24", "--address", "fd79::3/64", "--service", "echo"];
    [&fixed[..], &["--listen", "7000", "--max-connections", "1000"], more].concat()
}

/// The kernel of our end has its addresses, and no others.
fn give_addresses() {
    interface::set_address("ours", KERNEL.into(), 24).expect("it takes an address");
    interface::set_address("ours", KERNEL_IPV6.into(), 64).expect("it takes IPv6");
}

/// How many RSTs the kernel of this namespace has sent.
fn resets_sent() -> u64 {
    let counts = fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel tells");
    let mut lines = counts.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let place = names.split(' ').position(|name| name == "OutRsts").expect("it is counted");
    values.split(' ').nth(place).and_then(|value| value.parse().ok()).expect("a number")
}

fn exchange(stream: &mut TcpStream, byte: u8) {
    stream.write_all(&[byte]).expect("connected");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("an echo");
    assert_eq!(answer, [byte]);
}

fn connect(to: impl Into<SocketAddr>) -> TcpStream {
    let stream = TcpStream::connect(to.into()).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream
}

/// A server of the kernel's that echoes as long as anybody is connected, one connection to each address.
fn echo_by_the_kernel(listeners: Vec<TcpListener>) {
    thread::scope(|scope| {
        for listener in listeners {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client comes");
                std::io::copy(&mut stream.try_clone().expect("a socket can"), &mut stream).expect("it echoes");
            });
        }
    });
}

#[test]
fn the_kernel_keeps_all_of_its_address_but_our_ports() {
    on_stage("the_kernel_keeps_all_of_its_address_but_our_ports", || {
        give_addresses();
        let others = BOTH.map(|address| TcpListener::bind((address, OTHER_PORT)).expect("the kernel has it")).into();
        let questions = UdpSocket::bind((KERNEL, PORT)).expect("the kernel has that address");
        let mut served = Served::start(&arguments(&[]), &[]).expect("it starts");
        let taken = TcpListener::bind((KERNEL, PORT)).err().map(|error| error.kind());
        assert_eq!(taken, Some(std::io::ErrorKind::AddrInUse), "our ports are nobody else's");
        thread::scope(|scope| {
            scope.spawn(|| echo_by_the_kernel(others));
            scope.spawn(move || {
                let mut question = [0; 16];
                let (bytes, from) = questions.recv_from(&mut question).expect("a question comes");
                questions.send_to(&question[..bytes], from).expect("the kernel sends");
            });
            let clients = || {
                let mut untouched = BOTH.map(|address| connect((address, OTHER_PORT)));
                thread::scope(|scope| {
                    for index in 0..8 {
                        scope.spawn(move || echo_checked(index, (BOTH[index % 2], PORT), 1_000_000));
                    }
                    for stream in &mut untouched {
                        (1..50).for_each(|byte| exchange(stream, byte));
                    }
                });
                let refused = TcpStream::connect((KERNEL, PORT + 1)).map_err(|error| error.kind());
                assert_eq!(refused.err(), Some(std::io::ErrorKind::ConnectionRefused), "so says the kernel");
                let asker = UdpSocket::bind((CLIENT, 0)).expect("an address of ours");
                asker.set_read_timeout(Some(PATIENCE)).expect("a time");
                asker.send_to(b"who?", (KERNEL, PORT)).expect("the kernel sends");
                assert_eq!(asker.recv(&mut [0; 16]).expect("the kernel answers"), 4);
                for address in BOTH {
                    [56, 4_000].iter().for_each(|bytes| ping(address, *bytes));
                }
            };
            with_far_clients(clients, || {
                // That of the refused one.
                assert_eq!(resets_sent(), 1);
                served.signal(Signal::SIGTERM);
                assert!(served.wait().success());
                expect_given_back();
                TcpListener::bind((KERNEL, PORT)).expect("the port is free again");
            });
        });
    });
}

#[test]
fn a_kill_lets_the_kernel_end_nothing() {
    on_stage("a_kill_lets_the_kernel_end_nothing", || {
        give_addresses();
        let state = tempfile::tempdir().expect("a directory");
        let state = state.path().to_str().expect("text");
        let kept = arguments(&["--state", state]);
        let mut served = Served::start(&kept, &[]).expect("it starts");
        let ((tell, told), (go, gone)) = (channel(), channel());
        thread::scope(|scope| {
            let kept = &kept;
            scope.spawn(move || {
                for round in 0..3 {
                    told.recv().expect("the clients are there");
                    served.signal(Signal::SIGKILL);
                    served.wait();
                    go.send(()).expect("the clients wait");
                    told.recv().expect("the clients have spoken to nobody");
                    if round == 0 {
                        // A port that the state needs is not given up to the kernel.
                        let other: Vec<&str> =
                            kept.iter().map(|word| if *word == "7000" { "7001" } else { word }).collect();
                        let refused = Served::start(&other, &[]).err().expect("it must not");
                        assert!(refused.contains("give --listen 7000 again"), "{refused}");
                    }
                    served = Served::start(kept, &[]).expect("it starts on its state");
                    let resumed = format!("resumed {} connections", 20);
                    assert!(served.before_ready.join("\n").contains(&resumed), "{:?}", served.before_ready);
                }
                told.recv().expect("the clients are done");
            });
            let clients = move || {
                let mut streams: Vec<TcpStream> = (0..20).map(|index| connect((BOTH[index % 2], PORT))).collect();
                for round in 0..3 {
                    streams.iter_mut().for_each(|stream| exchange(stream, round));
                    tell.send(()).expect("the test waits for it");
                    gone.recv().expect("it was killed");
                    streams.iter_mut().for_each(|stream| stream.write_all(b"x").expect("connected"));
                    ping(KERNEL.into(), 56);
                    tell.send(()).expect("the test waits for it");
                    for stream in &mut streams {
                        let mut answer = [0];
                        stream.read_exact(&mut answer).expect("the connection goes on");
                        assert_eq!(answer, *b"x");
                    }
                }
                tell.send(()).expect("the test waits for it");
            };
            with_far_clients(clients, || {
                assert_eq!(resets_sent(), 0);
                fs::remove_dir_all("/sys/fs/bpf/holdline/ours").expect("root may");
            });
        });
    });
}

#[test]
fn a_peer_that_has_moved_is_found_by_the_kernels_neighbours() {
    on_stage("a_peer_that_has_moved_is_found_by_the_kernels_neighbours", || {
        give_addresses();
        let folder = tempfile::tempdir().expect("a directory");
        let control = folder.path().join("control");
        let control = control.to_str().expect("text");
        let _served = Served::start(&arguments(&["--control", control]), &[]).expect("it starts");
        let clients = || {
            let mut streams = BOTH.map(|address| connect((address, PORT)));
            streams.iter_mut().for_each(|stream| exchange(stream, 1));
            // A card that was exchanged: nobody is told.
            run("ip", &["link", "set", "clients", "address", "02:00:00:00:79:01"]);
            run(HOLDLINE, &["broadcast", "--control", control, "?"]);
            for stream in &mut streams {
                let mut pushed = [0];
                stream.read_exact(&mut pushed).expect("a push that was repeated to another address");
                assert_eq!(pushed, *b"?");
            }
        };
        with_far_clients(clients, || ());
    });
}

#[test]
fn what_cannot_be_shared_is_said_in_one_sentence() {
    on_stage("what_cannot_be_shared_is_said_in_one_sentence", || {
        give_addresses();
        let refusal = |arguments: &[&str]| {
            let said = Served::start(arguments, &[]).err().expect("it cannot start");
            assert_eq!(said.lines().count(), 1, "{said}");
            said
        };
        let taken = TcpListener::bind((KERNEL_IPV6, PORT)).expect("the kernel has it");
        let said = refusal(&arguments(&[]));
        assert!(said.contains("the kernel uses port 7000 of fd79::3") && said.contains("ss -tanp"), "{said}");
        drop(taken);
        interface::set_address("clients", CLIENT.into(), 24).expect("it takes an address");
        let elsewhere = refusal(&arguments(&["--address", "10.79.0.1/24"]));
        assert!(elsewhere.contains("the kernel has 10.79.0.1 itself, on clients"), "{elsewhere}");
        let raw: Vec<&str> =
            arguments(&[]).iter().map(|word| if *word == "af-xdp:ours" { "raw:ours" } else { word }).collect();
        let raw = refusal(&raw);
        assert!(raw.contains("itself, on ours") && raw.contains("share it over af-xdp:ours"), "{raw}");
        expect_given_back();
    });
}
