//! `holdline serve`, with ordinary kernel sockets as clients.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use holdline::link::{Tap, veth};
use nix::sys::signal::Signal;

use crate::echo::{echo_byte, echo_checked, expect_fin};
use crate::support::{Served, add_ipv6, in_namespace, make_tap};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

const ECHO: &[&str] =
    &["--link", "tap:served", "--address", "10.78.0.2/24", "--listen", "7-9", "--service", "echo", "--max-connections"];
const SERVERS_IPV6: &[&str] = &["fd78::2", "fd78::3"];

fn echo_arguments() -> Vec<&'static str> {
    [ECHO, &["1000", "--drain-rate", "1000"]].concat()
}

#[test]
fn serve_echoes_to_kernel_sockets_and_drains_on_sigterm() {
    in_namespace("serve_echoes_to_kernel_sockets_and_drains_on_sigterm", || {
        if !make_tap("served", "10.78.0.1") {
            return;
        }
        let mut served = Served::start(&echo_arguments(), &[]).expect("it starts");
        thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|index| {
                    // A thread is in its maker's namespace.
                    scope.spawn(move || echo_checked(index, (SERVER, [7, 8, 9][index % 3]), 300_000))
                })
                .collect();
            for client in clients {
                client.join().expect("every byte came back");
            }
        });
        let closed = TcpStream::connect(("10.78.0.2", 10)).map_err(|error| error.kind());
        assert_eq!(closed.err(), Some(ErrorKind::ConnectionRefused), "nobody listens on port 10");

        let mut idle: Vec<TcpStream> =
            (0..20).map(|_| TcpStream::connect(("10.78.0.2", 7)).expect("holdline listens")).collect();
        idle.iter_mut().for_each(echo_byte);
        served.signal(Signal::SIGTERM);
        idle.iter_mut().for_each(expect_fin);
        drop(idle);
        assert!(served.wait().success());
    });
}

#[test]
fn serve_echoes_over_both_families_on_several_addresses() {
    in_namespace("serve_echoes_over_both_families_on_several_addresses", || {
        if !make_tap("served", "10.78.0.1") || !add_ipv6("served", "fd78::1") {
            return;
        }
        let more = ["--address", "fd78::2/64", "--address", "10.78.0.3/24", "--address", "fd78::3/64"];
        let mut served = Served::start(&[&echo_arguments()[..], &more].concat(), &[]).expect("it starts");
        let servers: Vec<IpAddr> = ["10.78.0.2", "10.78.0.3"]
            .iter()
            .chain(SERVERS_IPV6)
            .map(|address| address.parse().expect("an address"))
            .collect();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|index| {
                    let server = servers[index % servers.len()];
                    scope.spawn(move || echo_checked(index, (server, 7), 300_000))
                })
                .collect();
            for client in clients {
                client.join().expect("every byte came back");
            }
        });
        for server in servers {
            let closed = TcpStream::connect((server, 10)).map_err(|error| error.kind());
            assert_eq!(closed.err(), Some(ErrorKind::ConnectionRefused), "nobody listens on port 10 of {server}");
        }
        served.signal(Signal::SIGTERM);
        assert!(served.wait().success());
    });
}

#[test]
fn serve_says_in_one_sentence_why_it_cannot_start() {
    in_namespace("serve_says_in_one_sentence_why_it_cannot_start", || {
        if !make_tap("served", "10.78.0.1") {
            return;
        }
        let error = |arguments: &[&str]| Served::start(arguments, &[]).err().expect("it cannot start");
        let attached = Tap::open("served").expect("it is free");
        let busy = error(&echo_arguments());
        assert!(busy.contains("another process is attached to the TAP served") && busy.lines().count() == 1, "{busy}");
        drop(attached);
        let wrong_kind = error(&["--link", "tap:lo", "--address", "10.78.0.2/24", "--listen", "7"]);
        assert!(wrong_kind.contains("the interface lo is no TAP"), "{wrong_kind}");
        let missing = error(&["--link", "af-xdp:no-such-if", "--address", "10.78.0.2/24", "--listen", "7"]);
        assert!(missing.contains("there is no interface no-such-if"), "{missing}");
        let unknown = error(&["--link", "slip:eth0", "--address", "10.78.0.2/24", "--listen", "7"]);
        assert!(unknown.contains("a link is tap:NAME"), "{unknown}");
        let file = std::env::temp_dir().join(format!("holdline-no-directory-{}", std::process::id()));
        std::fs::write(&file, b"not a directory").expect("there is room");
        let state = error(&[&echo_arguments()[..], &["--state", file.to_str().expect("text")]].concat());
        std::fs::remove_file(&file).expect("it is ours");
        assert!(state.starts_with("holdline: ") && state.lines().count() == 1, "{state}");
    });
}

#[test]
fn serve_names_a_path_or_a_port_that_it_cannot_have() {
    in_namespace("serve_names_a_path_or_a_port_that_it_cannot_have", || {
        veth::make_pair("clients", "ours").expect("root may make a veth pair");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a-file");
        std::fs::write(&file, b"mine").expect("there is room");
        let file = file.to_str().expect("a plain name");
        let taken = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let taken = taken.local_addr().expect("it has one").to_string();
        for (flag, value) in [
            ("--control", "/nowhere/control"),
            ("--control", file),
            ("--capture", "/nowhere/it.pcapng"),
            ("--capture", "/"),
            ("--state", file),
            ("--metrics", taken.as_str()),
            ("--metrics", "192.0.2.1:9100"),
            ("--max-memory", "1M"),
        ] {
            let arguments = ["--link", "raw:ours", "--address", "10.78.0.2/24", "--listen", "7", flag, value];
            let said = Served::start(&arguments, &[]).err().unwrap_or_else(|| panic!("{flag} {value} is taken"));
            let sentence = said.lines().last().unwrap_or_default();
            let value = if value == "1M" { "--max-memory 1048576" } else { value };
            assert!(sentence.starts_with("holdline: ") && sentence.contains(value), "{flag} {value}: {said}");
        }
        assert_eq!(std::fs::read(file).expect("it is there"), b"mine", "a file that is no socket is not replaced");
    });
}
