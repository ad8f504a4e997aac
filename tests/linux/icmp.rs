//! ICMP over AF_XDP: what routers say of our connections, and of themselves.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream, UdpSocket};
use std::sync::Mutex;

use holdline::link::{interface, veth};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use crate::pair::{KERNEL, counted, elsewhere, on_stage, run, until, with_far_clients};
use crate::support::{HOLDLINE, PATIENCE, Served};

/// Of our own, and of the kernel's, in both families.
const SERVERS: [&str; 4] = ["10.79.0.2:7000", "10.79.0.3:7000", "[fd79::2]:7000", "[fd79::3]:7000"];

/// A server on an address of its own and one of the kernel's, of each family.
fn serve(control: &str) -> Served {
    interface::set_address("ours", KERNEL.into(), 24).expect("it takes an address");
    interface::set_address("ours", "fd79::3".parse().expect("one"), 64).expect("it takes IPv6");
    let addresses = ["10.79.0.2/24", "10.79.0.3/24", "fd79::2/64", "fd79::3/64"];
    let addresses = addresses.iter().flat_map(|address| ["--address", address]);
    let fixed = ["--link", "af-xdp:ours", "--listen", "7000", "--service", "echo", "--control", control];
    let arguments: Vec<&str> = addresses.chain(fixed).chain(["--max-connections", "1000"]).collect();
    Served::start(&arguments, &[]).expect("it starts")
}

/// Has this namespace forward to another one behind a link that takes less, whose address it answers for.
fn lay_behind() {
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{switch}"), "1").expect("root may");
    }
    veth::make_pair("inner", "end").expect("root may make a veth pair");
    interface::set_mtu("inner", 1_300).expect("a veth can");
    interface::set_address("inner", "10.80.0.1".parse().expect("one"), 24).expect("it takes an address");
    interface::bring_up("inner").expect("it comes up");
    interface::set_address("inner", "fd80::1".parse().expect("one"), 64).expect("it takes IPv6");
}

/// Connections from behind to each of the servers. What they send is small: that end believes in larger packets.
fn connect_from_behind() -> Vec<TcpStream> {
    interface::set_address("end", "10.80.0.2".parse().expect("one"), 24).expect("it takes an address");
    interface::bring_up("end").expect("it comes up");
    interface::set_address("end", "fd80::2".parse().expect("one"), 64).expect("it takes IPv6");
    run("ip", &["route", "add", "default", "via", "10.80.0.1"]);
    run("ip", &["-6", "route", "add", "default", "via", "fd80::1"]);
    let mut streams: Vec<TcpStream> =
        SERVERS.iter().map(|server| TcpStream::connect(server).expect("holdline listens")).collect();
    for stream in &mut streams {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.write_all(b"x").expect("connected");
        expect_all(stream, b"x");
    }
    streams
}

fn expect_all(stream: &mut TcpStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    stream.read_exact(&mut came).expect("what was sent comes");
    assert!(came == bytes);
}

#[test]
fn what_routers_say_of_our_connections_reaches_them() {
    on_stage("what_routers_say_of_our_connections_reaches_them", || {
        let folder = tempfile::tempdir().expect("a directory");
        let control = folder.path().join("control");
        let control = control.to_str().expect("text");
        let _served = serve(control);
        // The servers' end speaks to its neighbours only: peers behind them are reached the way they came.
        let streams = Mutex::new(Vec::new());
        let behind = || {
            let mut open = connect_from_behind();
            let large = "y".repeat(20_000);
            run(HOLDLINE, &["broadcast", "--control", control, &large]);
            open.iter_mut().for_each(|stream| expect_all(stream, large.as_bytes()));
            streams.lock().expect("nobody panicked").extend(open);
        };
        let router = || {
            lay_behind();
            elsewhere("end", behind, || {
                assert!(counted(control, "rules", "PathMtuLowered") >= 4, "each connection was told");
                assert!(counted(control, "link", "icmp_error") >= 2, "two are on addresses of the kernel's");
                let routes = [("-4", "10.80.0.2/32"), ("-6", "fd80::2/128")];
                for (family, to) in routes {
                    run("ip", &[family, "route", "add", "unreachable", to, "metric", "1"]);
                }
                run(HOLDLINE, &["broadcast", "--control", control, "?"]);
                until("nobody was told", || counted(control, "rules", "IcmpSoftError") >= 4);
                for (family, to) in routes {
                    run("ip", &[family, "route", "delete", "unreachable", to, "metric", "1"]);
                }
                streams.lock().expect("nobody panicked").iter_mut().for_each(|stream| expect_all(stream, b"?"));
            });
        };
        with_far_clients(router, || ());
    });
}

#[test]
fn a_router_that_advertises_itself_is_heard_here_and_by_the_kernel() {
    on_stage("a_router_that_advertises_itself_is_heard_here_and_by_the_kernel", || {
        let folder = tempfile::tempdir().expect("a directory");
        let control = folder.path().join("control");
        let control = control.to_str().expect("text");
        let _served = serve(control);
        let router = || {
            let (family, flags) = (AddressFamily::Inet6, SockFlag::empty());
            let raw = socket(family, SockType::Raw, flags, SockProtocol::IcmpV6).expect("root may");
            setsockopt(&raw, sockopt::Ipv6MulticastHops, &255).expect("a number of hops");
            let raw = UdpSocket::from(raw);
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            let scope = if_nametoindex("clients").expect("it is here");
            let lifetime_s = 1_800_u16.to_be_bytes();
            let head = [134, 0, 0, 0, 64, 0, lifetime_s[0], lifetime_s[1], 0, 0, 0, 0, 0, 0, 0, 0];
            let mac = interface::ethernet_address("clients").expect("it has one");
            let advertisement = [&head[..], &[1, 1], &mac].concat();
            until("nobody has heard the router", || {
                // The link-local address is not there from the start.
                let _ = raw.send_to(&advertisement, SocketAddrV6::new(all_nodes, 0, 0, scope));
                counted(control, "rules", "RouterLearns") > 0
            });
        };
        with_far_clients(router, || {
            until("the kernel has not heard it", || {
                let routes = run("ip", &["-6", "route", "show", "default"]).stdout;
                String::from_utf8_lossy(&routes).contains("via fe80::")
            });
        });
    });
}
