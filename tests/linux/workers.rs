//! Two workers on the two queues of a TAP, with ordinary kernel sockets as clients.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use holdline::link::Tap;
use holdline::shard::FlowId;
use holdline::wire::tuple_hash;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::echo::{echo_byte, echo_checked, expect_fin};
use crate::support::{HOLDLINE, Served, add_ipv6, in_namespace, make_tap_of};

fn arguments<'a>(control: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let control = control.to_str().expect("a plain name");
    let mut arguments = vec!["--link", "tap:queues", "--address", "10.81.0.2/24", "--address", "fd81::2/64"];
    arguments.extend(["--listen", "7", "--service", "echo", "--max-connections", "1000", "--control", control]);
    arguments.extend(more);
    arguments
}

/// The lines of JSON that a subcommand prints.
fn ask(control: &Path, subcommand: &[&str]) -> Vec<Value> {
    let outcome = Command::new(HOLDLINE).args(subcommand).arg("--json").arg("--control").arg(control).output();
    let outcome = outcome.expect("it starts");
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    let text = String::from_utf8(outcome.stdout).expect("JSON is text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Asks for a shard to be moved; the answer must be that it was.
fn move_shard(control: &Path, shard: usize, worker: usize) {
    let mut stream = std::os::unix::net::UnixStream::connect(control).expect("the server listens");
    let head = "host: test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    write!(stream, "POST /shards/{shard}/move?worker={worker} HTTP/1.1\r\n{head}").expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn two_workers_echo_on_two_queues_and_each_flow_is_in_its_shard() {
    in_namespace("two_workers_echo_on_two_queues_and_each_flow_is_in_its_shard", || {
        if !make_tap_of(2, "queues", "10.81.0.1", 24) || !add_ipv6("queues", "fd81::1") {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let control = folder.path().join("control");
        let mut served = Served::start(&arguments(&control, &["--workers", "2"]), &[]).expect("it starts");
        let servers: [IpAddr; 2] = ["10.81.0.2", "fd81::2"].map(|address| address.parse().expect("an address"));
        let mut idle: Vec<TcpStream> =
            (0..40).map(|index| TcpStream::connect((servers[index % 2], 7)).expect("holdline listens")).collect();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|index| scope.spawn(move || echo_checked(index, (servers[index % 2], 7), 1_000_000)))
                .collect();
            scope.spawn(|| {
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) && number > 20 {
                        return;
                    }
                    move_shard(&control, number % 2, number / 2 % 2);
                }
            });
            let outcomes: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            is_over.store(true, Ordering::Relaxed);
            outcomes.into_iter().for_each(|outcome| outcome.expect("every byte came back"));
        });
        idle.iter_mut().for_each(echo_byte);
        let mut shards = BTreeSet::new();
        let flows = ask(&control, &["flows", "--state", "ESTABLISHED"]);
        for flow in &flows {
            let id: FlowId = flow["id"].as_str().expect("a text").parse().expect("an id");
            let [local, remote] = ["local", "remote"].map(|end| {
                let end: SocketAddr = flow[end].as_str().expect("a text").parse().expect("an address and a port");
                end
            });
            let hash = tuple_hash(remote.ip(), remote.port(), local.ip(), local.port());
            assert_eq!(u32::from(id.shard()), hash % 128 % 2, "{flow}");
            shards.insert(id.shard());
        }
        assert_eq!((flows.len(), shards.len()), (40, 2));
        let stats = ask(&control, &["stats"]).remove(0);
        assert!(stats["frames"]["handed_over"].as_u64() > Some(0), "{stats}");
        let workers = stats["workers"].as_array().expect("a list");
        assert!(workers.len() == 2 && workers.iter().all(|worker| worker["passes"].as_u64() > Some(100)), "{stats}");
        served.signal(Signal::SIGTERM);
        idle.iter_mut().for_each(expect_fin);
        drop(idle);
        assert!(served.wait().success());
    });
}

#[test]
fn what_two_workers_cannot_have_is_said() {
    in_namespace("what_two_workers_cannot_have_is_said", || {
        if !make_tap_of(2, "queues", "10.81.0.1", 24) {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (control, state) = (folder.path().join("control"), folder.path().join("state"));
        let state = state.to_str().expect("a plain name");
        let error = |more: &[&str]| {
            let said = Served::start(&arguments(&control, more), &[]).err().expect("it cannot start");
            assert!(said.starts_with("holdline: ") && said.lines().count() == 1, "{said}");
            said
        };
        let attached = Tap::open("queues").expect("one queue of two is enough for one worker");
        for workers in ["1", "2"] {
            let busy = error(&["--workers", workers]);
            assert!(busy.contains("another process is attached to the TAP queues"), "{busy}");
        }
        drop(attached);
        let served = Served::start(&arguments(&control, &["--workers", "2", "--state", state]), &[]);
        drop(served.expect("it starts"));
        let other = error(&["--workers", "2", "--shards", "4", "--state", state]);
        assert!(other.contains("made for 2 shards") && other.contains("--shards 2"), "{other}");
        // Without a word of shards those that there are go on.
        drop(Served::start(&arguments(&control, &["--state", state]), &[]).expect("it starts"));
        let cores = error(&["--workers", "2", "--pin", "0"]);
        assert!(cores.contains("1 cores are given for 2 workers"), "{cores}");
        let core = error(&["--workers", "1", "--pin", "1023"]);
        assert!(core.contains("may not use core 1023"), "{core}");
        if make_tap_of(1, "single", "10.82.0.1", 24) {
            let single = ["--link", "tap:single", "--address", "10.82.0.2/24", "--listen", "7", "--workers", "2"];
            let single = Served::start(&single, &[]).err().expect("it has one queue");
            assert!(single.contains("the TAP single cannot have 2 queues"), "{single}");
        }
        let raw = ["--link", "raw:queues", "--address", "10.81.0.3/24", "--listen", "7", "--workers", "2"];
        let raw = Served::start(&raw, &[]).err().expect("a raw link has one queue");
        assert!(raw.contains("--workers 1"), "{raw}");
    });
}
