//! AF_XDP on one end of a veth pair, beside a kernel that goes on using the interface.
//!
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use holdline::link::af_xdp::{AfXdpOptions, Interface, Steering};
use holdline::link::{AfXdp, Link, complete_checksums, interface, veth};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::echo::echo_checked;
use crate::kill::kill_over;
use crate::pair::{
    CLIENT, KERNEL, beside_clients, counted, expect_given_back, is_attached, on_stage, ping, run, with_far_clients,
};
use crate::support::{HOLDLINE, PATIENCE, Served};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 2);
const SERVER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 2);

fn arguments<'a>(link: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["--address", "10.79.0.2/24", "--address", "fd79::2/64", "--listen", "7", "--service", "echo"];
    [&["--link", link, "--max-connections", "1000"], &fixed[..], more].concat()
}

/// What `serve` says instead of starting: one sentence.
fn refusal(link: &str, more: &[&str]) -> String {
    let said = Served::start(&arguments(link, more), &[]).err().expect("it cannot start");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn clients_are_echoed_while_the_kernel_keeps_the_rest_of_the_interface() {
    on_stage("clients_are_echoed_while_the_kernel_keeps_the_rest_of_the_interface", || {
        interface::set_address("ours", KERNEL.into(), 24).expect("it takes an address");
        let kernel = TcpListener::bind((KERNEL, 7)).expect("the kernel has that address");
        let questions = UdpSocket::bind((KERNEL, 53)).expect("the kernel has that address");
        let mut served = Served::start(&arguments("af-xdp:ours:0", &[]), &[]).expect("it starts");
        let said = served.before_ready.join("\n");
        assert!(said.contains("queue 0 of ours: native mode, copied, frames of 2048 bytes"), "{said}");
        assert!(said.contains("ethtool -K OTHER tx off"), "{said}");
        assert!(is_attached());
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = kernel.accept().expect("a client comes");
                std::io::copy(&mut stream.try_clone().expect("a socket can"), &mut stream).expect("it echoes");
                let mut question = [0; 16];
                let (bytes, from) = questions.recv_from(&mut question).expect("a question comes");
                questions.send_to(&question[..bytes], from).expect("the kernel sends");
            });
            let clients = || {
                let mut untouched = TcpStream::connect((KERNEL, 7)).expect("the kernel listens");
                untouched.set_read_timeout(Some(PATIENCE)).expect("a time");
                let mut exchange = |byte: u8| {
                    untouched.write_all(&[byte]).expect("connected");
                    let mut answer = [0];
                    untouched.read_exact(&mut answer).expect("the kernel echoes");
                    assert_eq!(answer, [byte]);
                };
                exchange(1);
                thread::scope(|scope| {
                    for index in 0..4 {
                        scope.spawn(move || echo_checked(index, (SERVER, 7), 2_000_000));
                        scope.spawn(move || echo_checked(4 + index, (SERVER_IPV6, 7), 2_000_000));
                    }
                    (2..50).for_each(&mut exchange);
                });
                drop(untouched);
                let asker = UdpSocket::bind((CLIENT, 0)).expect("an address of ours");
                asker.set_read_timeout(Some(PATIENCE)).expect("a time");
                asker.send_to(b"who?", (KERNEL, 53)).expect("the kernel sends");
                assert_eq!(asker.recv(&mut [0; 16]).expect("the kernel answers"), 4);
                // Echo requests of our addresses and of the kernel's, small, and in fragments.
                for address in [SERVER.into(), SERVER_IPV6.into(), KERNEL.into()] {
                    [56, 4_000].iter().for_each(|bytes| ping(address, *bytes));
                }
            };
            with_far_clients(clients, || {
                served.signal(Signal::SIGTERM);
                assert!(served.wait().success());
                expect_given_back();
                assert!(!Path::new("/sys/fs/bpf/holdline").exists());
            });
        });
    });
}

#[test]
fn large_frames_and_the_generic_mode_carry_the_same() {
    on_stage("large_frames_and_the_generic_mode_carry_the_same", || {
        beside_clients(|| {
            for name in ["ours", "clients"] {
                interface::set_mtu(name, 3_000).expect("a veth can");
            }
            for (link, said) in [
                ("af-xdp:ours", "native mode, copied, frames of 4096 bytes, 24 MiB"),
                ("af-xdp:ours:0,generic,copy", "generic mode, copied, frames of 4096 bytes"),
                ("af-xdp:ours:0,busy-poll", "busy polling"),
            ] {
                let mut served = Served::start(&arguments(link, &[]), &[]).expect("it starts");
                assert!(served.before_ready.join("\n").contains(said), "{:?}", served.before_ready);
                echo_checked(1, (SERVER, 7), 3_000_000);
                served.signal(Signal::SIGTERM);
                assert!(served.wait().success());
                expect_given_back();
            }
        });
    });
}

#[test]
fn a_burst_waits_where_the_ring_behind_the_queue_is_full() {
    on_stage("a_burst_waits_where_the_ring_behind_the_queue_is_full", || {
        let devices = tempfile::tempdir().expect("a directory");
        let nothing = None::<&str>;
        mount(Some("sysfs"), devices.path(), Some("sysfs"), MsFlags::empty(), nothing).expect("root may");
        let clients = devices.path().join("class/net/clients");
        let mut link = Interface::open("ours", &Steering::default(), AfXdpOptions::default())
            .and_then(|interface| interface.queue(0))
            .expect("it is free");
        interface::bring_up("clients").expect("it comes up");
        // Without, a veth hands on at once what it sends.
        run("ethtool", &["-K", "clients", "gro", "on"]);
        run("ethtool", &["-K", "ours", "tso", "off"]);
        // The other end looks at its ring of 256 once in two milliseconds.
        fs::write(clients.join("napi_defer_hard_irqs"), "1000").expect("root may");
        fs::write(clients.join("gro_flush_timeout"), "2000000").expect("root may");
        let received = || -> u64 {
            let count = fs::read_to_string(clients.join("statistics/rx_packets")).expect("it counts");
            count.trim().parse().expect("a number")
        };
        let before = received();
        let rest = |link: &AfXdp| link.pause().into_iter().for_each(thread::sleep);
        for _ in 0..5_000 {
            while !link.send(&[0xff; 60]).expect("it is there") {
                link.flush().expect("it is there");
                rest(&link);
            }
        }
        link.flush().expect("it is there");
        while link.pause().is_some() {
            rest(&link);
            link.flush().expect("it is there");
        }
        thread::sleep(Duration::from_millis(20));
        let arrived = received() - before;
        assert!(arrived > 4_000, "{arrived} of 5,000 frames");
        drop(link);
        nix::mount::umount(devices.path()).expect("it is mounted");
    });
}

#[test]
fn kills_on_af_xdp_lose_no_connection_and_no_byte() {
    on_stage("kills_on_af_xdp_lose_no_connection_and_no_byte", || {
        beside_clients(|| {
            let kills = kill_over("af-xdp:ours", "clients", 8, 200, 2, 1);
            eprintln!("{kills:?}");
            assert_eq!((kills.random, kills.switched), (4, 4));
            assert!(is_attached(), "what outlives the process drops what nobody takes");
            fs::remove_dir_all("/sys/fs/bpf/holdline/ours").expect("root may");
            expect_given_back();
        });
    });
}

#[test]
fn kills_of_two_workers_on_two_queues_lose_nothing() {
    on_stage("kills_of_two_workers_on_two_queues_lose_nothing", || {
        lay_two_queues();
        beside_clients(|| {
            let kills = kill_over("af-xdp:ours", "clients", 8, 200, 3, 2);
            eprintln!("{kills:?}");
            assert_eq!((kills.random, kills.switched), (4, 4));
            assert!(is_attached());
            fs::remove_dir_all("/sys/fs/bpf/holdline/ours").expect("root may");
        });
    });
}

#[test]
fn a_queue_that_another_process_has_is_named() {
    on_stage("a_queue_that_another_process_has_is_named", || {
        let state = tempfile::tempdir().expect("a directory");
        let kept = ["--state", state.path().to_str().expect("text")];
        let _other = Served::start(&arguments("af-xdp:ours", &kept), &[]).expect("it starts");
        // Its program goes, its socket stays.
        fs::remove_dir_all("/sys/fs/bpf/holdline/ours").expect("root may");
        expect_given_back();
        let taken = refusal("af-xdp:ours", &[]);
        assert!(taken.contains("queue 0 of ours is taken by another AF_XDP socket"), "{taken}");
        expect_given_back();
    });
}

#[test]
fn a_server_without_a_state_takes_what_a_killed_one_left_and_leaves_nothing() {
    on_stage("a_server_without_a_state_takes_what_a_killed_one_left_and_leaves_nothing", || {
        beside_clients(|| {
            let state = tempfile::tempdir().expect("a directory");
            let kept = ["--state", state.path().to_str().expect("text")];
            let mut served = Served::start(&arguments("af-xdp:ours", &kept), &[]).expect("it starts");
            for pin in ["link", "program", "sockets", "addresses", "ports", "fragments", "settings", "verdicts"] {
                assert!(Path::new("/sys/fs/bpf/holdline/ours").join(pin).exists(), "{pin}");
            }
            let busy = refusal("af-xdp:ours", &[]);
            assert!(busy.contains("another process has the pins in /sys/fs/bpf/holdline/ours"), "{busy}");
            echo_checked(1, (SERVER, 7), 100_000);
            served.signal(Signal::SIGKILL);
            served.wait();
            assert!(is_attached());
            let mut served = Served::start(&arguments("af-xdp:ours", &[]), &[]).expect("it starts");
            assert!(is_attached() && !Path::new("/sys/fs/bpf/holdline").exists());
            echo_checked(2, (SERVER, 7), 100_000);
            served.signal(Signal::SIGKILL);
            served.wait();
            expect_given_back();
        });
    });
}

#[test]
fn pins_of_an_interface_that_is_gone_are_replaced() {
    on_stage("pins_of_an_interface_that_is_gone_are_replaced", || {
        beside_clients(|| {
            let state = tempfile::tempdir().expect("a directory");
            let kept = ["--state", state.path().to_str().expect("text")];
            let mut served = Served::start(&arguments("af-xdp:ours", &kept), &[]).expect("it starts");
            run("ip", &["link", "delete", "ours"]);
            assert!(!served.wait().success());
            let said = served.said_until_end().join("\n");
            assert!(said.contains("the interface ours was deleted while it was in use"), "{said}");
            veth::make_pair("clients", "ours").expect("root may make a veth pair");
            complete_checksums("clients").expect("a veth can");
            interface::bring_up("ours").expect("it comes up");
            beside_clients(|| {
                let _served = Served::start(&arguments("af-xdp:ours", &kept), &[]).expect("it starts");
                echo_checked(1, (SERVER, 7), 100_000);
            });
        });
    });
}

#[test]
fn what_cannot_be_is_said_in_one_sentence() {
    on_stage("what_cannot_be_is_said_in_one_sentence", || {
        let missing = refusal("af-xdp:none", &[]);
        assert!(missing.contains("there is no interface none"), "{missing}");
        assert!(refusal("af-xdp:lo", &[]).contains("lo does not carry Ethernet"));
        let queue = refusal("af-xdp:ours:7", &[]);
        assert!(queue.contains("no receive queue 7, only 0 to 0") && queue.contains("combined 8"), "{queue}");
        let served = Served::start(&arguments("af-xdp:ours", &[]), &[]).expect("it starts");
        let foreign = refusal("af-xdp:ours", &[]);
        assert!(foreign.contains("another XDP program is attached to ours"), "{foreign}");
        drop(served);

        let options = AfXdpOptions { queues: 2, ..AfXdpOptions::default() };
        let twice = Interface::open("ours", &Steering::default(), options).expect("it is free");
        let first = twice.queue(0).expect("it is free");
        let taken = twice.queue(0).err().expect("it is taken").to_string();
        assert!(taken.contains("queue 0 of ours is taken") && taken.contains("ss --xdp"), "{taken}");
        drop((first, twice));

        interface::set_mtu("ours", 9_000).expect("a veth can");
        let large = refusal("af-xdp:ours", &[]);
        assert!(large.contains("MTU of ours is 9000") && large.contains("mtu 3822"), "{large}");
        interface::set_mtu("ours", 1_500).expect("a veth can");
        interface::set_mtu("clients", 9_000).expect("a veth can");
        let other = refusal("af-xdp:ours", &[]);
        assert!(other.contains("the driver of ours takes no XDP program"), "{other}");
        interface::set_mtu("clients", 1_500).expect("a veth can");

        // A driver that knows no XDP: the kernel runs the program, which is said.
        let add = |kind: &&str| Command::new("ip").args(["link", "add", "plain", "type", kind]).output();
        let is_made = |kind: &&str| add(kind).is_ok_and(|output| output.status.success());
        if ["dummy", "ifb", "bridge"].iter().any(is_made) {
            interface::bring_up("plain").expect("it comes up");
            let served = Served::start(&arguments("af-xdp:plain", &[]), &[]).expect("it starts");
            assert!(served.before_ready.join("\n").contains("generic mode"), "{:?}", served.before_ready);
        } else {
            eprintln!("the generic mode by itself skipped: this kernel has no driver without XDP");
        }

        let line = arguments("af-xdp:ours", &[]).join(" ");
        let as_nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";
        let output = Command::new("sh").args(["-c", &format!("{as_nobody} {HOLDLINE} serve {line}")]).output();
        let output = output.expect("sh is there");
        let said = String::from_utf8_lossy(&output.stderr);
        let may_run = output.status.code() != Some(127) && !said.contains("ermission denied");
        assert!(!may_run || said.contains("cap_bpf,cap_net_admin,cap_net_raw"), "{said}");

        let nothing = None::<&str>;
        mount(Some("none"), "/sys/fs/bpf", Some("tmpfs"), MsFlags::empty(), nothing).expect("root may");
        let nowhere = refusal("af-xdp:ours", &["--state", "/nowhere"]);
        assert!(nowhere.contains("mount -t bpf bpf /sys/fs/bpf"), "{nowhere}");
        expect_given_back();
    });
}

#[test]
fn two_queues_share_the_memory() {
    on_stage("two_queues_share_the_memory", || {
        let (two, ends) = (["numrxqueues", "2", "numtxqueues", "2"], (["one"], ["type", "veth", "peer", "other"]));
        run("ip", &[&["link", "add"], &ends.0[..], &two, &ends.1, &two].concat());
        ["one", "other"].iter().for_each(|name| interface::bring_up(name).expect("it comes up"));
        let steering = Steering { addresses: vec![IpAddr::V4(SERVER)], ..Steering::default() };
        let options = AfXdpOptions { queues: 2, ..AfXdpOptions::default() };
        let interface = Interface::open("one", &steering, options).expect("it is free");
        let mut queues = [0, 1].map(|queue| interface.queue(queue).expect("it is free"));
        assert!(queues[0].description().contains("24 MiB"), "{}", queues[0].description());
        let steering = Steering { addresses: vec![CLIENT.into()], ..steering };
        let far = Interface::open("other", &steering, options).expect("it is free");
        let mut far = [0, 1].map(|queue| far.queue(queue).expect("it is free"));
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&far[0].mac());
        (frame[12], frame[14]) = (8, 0x45);
        frame[30..34].copy_from_slice(&CLIENT.octets());
        for (number, queue) in queues.iter_mut().enumerate() {
            frame[59] = number as u8;
            assert!(queue.send(&frame).expect("it is up"));
            queue.flush().expect("it is up");
        }
        let mut came = Vec::new();
        let until = Instant::now() + PATIENCE;
        while came.len() < 2 {
            for queue in &mut far {
                came.extend(queue.receive().expect("it is up").iter().map(|frame| frame[59]));
            }
            assert!(Instant::now() < until, "{came:?}");
        }
        came.sort_unstable();
        assert_eq!(came, [0, 1]);
    });
}

/// Exchanges the pair for one of two queues.
fn lay_two_queues() {
    run("ip", &["link", "delete", "ours"]);
    let two = ["numrxqueues", "2", "numtxqueues", "2"];
    let peer = ["type", "veth", "peer", "ours"];
    run("ip", &[&["link", "add", "clients"], &two[..], &peer, &two].concat());
    complete_checksums("clients").expect("a veth can");
    interface::bring_up("ours").expect("it comes up");
}

#[test]
fn two_workers_serve_two_queues_and_their_counts_are_told() {
    on_stage("two_workers_serve_two_queues_and_their_counts_are_told", || {
        lay_two_queues();
        beside_clients(|| {
            let folder = tempfile::tempdir().expect("a directory");
            let control = folder.path().join("control");
            let control = control.to_str().expect("text");
            let few = refusal("af-xdp:ours:0-1", &["--workers", "1"]);
            assert!(few.contains("not as many"), "{few}");
            let more = ["--workers", "2", "--control", control];
            let mut served = Served::start(&arguments("af-xdp:ours:0-1", &more), &[]).expect("it starts");
            assert!(served.before_ready.join("\n").contains("AF_XDP on queue 1 of ours"));
            thread::scope(|scope| {
                for index in 0..16 {
                    scope.spawn(move || echo_checked(index, (SERVER, 7), 500_000));
                }
            });
            let count = |name| counted(control, "link", name);
            assert!(count("address") > 1_000 && count("arp") > 0);
            assert_eq!(["no_socket", "misnamed"].map(count), [0, 0]);
            served.signal(Signal::SIGTERM);
            assert!(served.wait().success());
            expect_given_back();
        });
    });
}
