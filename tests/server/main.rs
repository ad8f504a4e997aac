//! A server with its real thread and clock, over a cable in memory, with smoltcp at the other end.
//!
//! Needs no privilege. Every wait is for something that happens, and bounded.

mod peer;
mod several;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use holdline::link::{Link, MemoryLink, Received, memory_pair};
use holdline::server::{Options, Server, ServerError};
use holdline::service::{Echo, Hold};
use holdline::shard::{Capacity, CloseHow, Config, FlowId, Notice, PushError, Storage};
use peer::{PATIENCE, Peer};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn config() -> Config {
    Config::new(SERVER, 24, &[7])
}

fn capacity() -> Capacity {
    Capacity { flows: 256, actives: 256, spans: 4_096, blocks: 4_096 }
}

fn start(link: MemoryLink, options: Options) -> Server {
    let storage = Storage::in_memory(capacity()).expect("memory");
    Server::start(config(), storage, Box::new(link), Box::new(Hold), options).expect("it starts")
}

/// Connects `count` sockets and returns the flows in the order in which they opened, which is that of the sockets.
fn opened(peer: &mut Peer, server: &Server, count: usize) -> Vec<FlowId> {
    (0..count)
        .map(|_| {
            let socket = peer.connect(SERVER, 7);
            peer.run_until("a handshake", |peer| peer.is_established(socket));
            loop {
                let notice = server.notices().recv_timeout(PATIENCE).expect("a notice of the handshake");
                if let Notice::Opened { flow, .. } = notice {
                    return flow;
                }
            }
        })
        .collect()
}

/// Pushes until it is taken.
fn push(server: &Server, flow: FlowId, bytes: &[u8]) {
    let pusher = server.pusher();
    while let Err(error) = pusher.push(flow, bytes) {
        assert_eq!(error, PushError::ShardFull);
        thread::yield_now();
    }
}

#[test]
fn pushes_of_many_threads_arrive_once_and_in_order() {
    const FLOWS: usize = 4;
    const PUSHES: usize = 300;
    let (ours, theirs) = memory_pair(1500, 256).expect("two eventfds");
    let server = start(ours, Options { requests_max: 16, ..Options::default() });
    let mut peer = Peer::over(vec![theirs]);
    let flows = opened(&mut peer, &server, FLOWS);
    let message = |thread: usize, number: usize| format!("thread {thread} says {number}\n").into_bytes();
    thread::scope(|scope| {
        for (index, flow) in flows.iter().copied().enumerate() {
            let server = &server;
            scope.spawn(move || (0..PUSHES).for_each(|number| push(server, flow, &message(index, number))));
        }
        for index in 0..FLOWS {
            let expected: Vec<u8> = (0..PUSHES).flat_map(|number| message(index, number)).collect();
            peer.run_until("all bytes", |peer| peer.received(index).len() >= expected.len());
            assert_eq!(peer.received(index), expected);
        }
    });
    let (mut queued, mut delivered) = (0, 0);
    while delivered < FLOWS * PUSHES {
        peer.turn();
        for notice in server.notices().try_iter() {
            match notice {
                Notice::Queued { .. } => queued += 1,
                Notice::Delivered { .. } => delivered += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((queued, server.notices_lost()), (FLOWS * PUSHES, 0));
}

#[test]
fn a_worker_with_nothing_to_do_sleeps() {
    let (ours, theirs) = memory_pair(1500, 256).expect("two eventfds");
    let server = start(ours, Options::default());
    let mut peer = Peer::over(vec![theirs]);
    let flow = opened(&mut peer, &server, 1)[0];
    assert!(server.notices().recv_timeout(Duration::from_millis(300)).is_err(), "nothing happens, nothing is told");
    push(&server, flow, b"a sleeper wakes for a push");
    peer.run_until("the push", |peer| !peer.received(0).is_empty());
    let summary = server.stop().expect("it stops");
    assert!(summary.passes < 100, "{} passes for some ten events", summary.passes);
    assert_eq!(summary.stats.established, 1);
}

#[test]
fn a_worker_about_to_sleep_sees_the_push_that_comes_then() {
    let (ours, _theirs) = memory_pair(1500, 256).expect("two eventfds");
    let server = start(ours, Options::default());
    let pusher = server.pusher();
    let nobody = FlowId::new(0, 1, 200);
    for number in 0..100_000 {
        let ticket = pusher.push(nobody, b"anyone there?").expect("room");
        // Shorter than any interval at which a worker may wake for another reason.
        let notice = server.notices().recv_timeout(Duration::from_secs(4));
        let Ok(Notice::Refused { ticket: refused, error: PushError::Unknown, .. }) = notice else {
            panic!("push {number} was slept over: {notice:?}");
        };
        assert_eq!(refused, ticket);
    }
}

#[test]
fn a_slow_reader_loses_notices_and_no_bytes() {
    let (ours, theirs) = memory_pair(1500, 256).expect("two eventfds");
    let server = start(ours, Options { notices_max: 2, ..Options::default() });
    let mut peer = Peer::over(vec![theirs]);
    let flow = opened(&mut peer, &server, 1)[0];
    for _ in 0..100 {
        push(&server, flow, b"0123456789");
    }
    peer.run_until("all bytes", |peer| peer.received(0).len() == 1_000);
    peer.run_until("lost notices", |_| server.notices_lost() >= 100);
}

#[test]
fn a_full_link_delays_and_loses_nothing() {
    let (ours, theirs) = memory_pair(1500, 2).expect("two eventfds");
    let server = start(ours, Options::default());
    let mut peer = Peer::over(vec![theirs]);
    let flow = opened(&mut peer, &server, 1)[0];
    let bytes: Vec<u8> = (0..60_000u32).map(|number| (number % 251) as u8).collect();
    push(&server, flow, &bytes);
    peer.run_until("all bytes", |peer| peer.received(0).len() >= bytes.len());
    assert_eq!(peer.received(0), bytes);
}

#[test]
fn a_full_link_is_tried_again_without_a_reason_from_outside() {
    const QUESTIONS: usize = 6;
    let (ours, mut theirs) = memory_pair(1500, 2).expect("two eventfds");
    let _server = start(ours, Options::default());
    let mut who_has = vec![0xff; 6];
    who_has.extend([0x02, 0, 0, 0, 0, 2, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 2, 10, 0, 0, 1]);
    who_has.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    for _ in 0..QUESTIONS {
        while !theirs.send(&who_has).expect("memory does not fail") {
            thread::yield_now();
        }
    }
    // Two answers fit into the cable; the others wait at the server until there is room.
    let until = Instant::now() + PATIENCE;
    let mut answers = 0;
    while answers < QUESTIONS {
        let frames = theirs.receive().expect("memory does not fail");
        answers += frames.iter().filter(|frame| frame[12..14] == [0x08, 0x06] && frame[21] == 2).count();
        assert!(Instant::now() < until, "{answers} of {QUESTIONS} answers came");
        thread::yield_now();
    }
}

#[test]
fn a_stopped_server_leaves_connections_to_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = memory_pair(1500, 256).expect("two eventfds");
    let begin = || {
        let storage = Storage::in_directory(directory.path(), capacity()).expect("a state");
        Server::start(config(), storage, Box::new(ours.clone()), Box::new(Hold), Options::default()).expect("it starts")
    };
    let mut peer = Peer::over(vec![theirs]);
    let server = begin();
    assert!(server.resumption().is_fresh);
    let flow = opened(&mut peer, &server, 1)[0];
    let pusher = server.pusher();
    let first = pusher.push(flow, b"before ").expect("room");
    peer.run_until("the first push", |peer| peer.received(0) == b"before ");
    server.stop().expect("it stops");
    assert_eq!(pusher.push(flow, b"meanwhile"), Err(PushError::Gone));

    let server = begin();
    assert!(!server.resumption().is_fresh);
    assert_eq!(server.resumption().connections, 1);
    let second = server.pusher().push(flow, b"and after").expect("room");
    peer.run_until("the second push", |peer| peer.received(0).len() >= 16);
    assert_eq!(peer.received(0), b"before and after");
    assert_ne!(first, second, "tickets of two starts differ");
}

#[test]
fn a_drain_closes_all_in_order_and_ends() {
    let (ours, theirs) = memory_pair(1500, 256).expect("two eventfds");
    let server = start(ours, Options::default());
    let mut peer = Peer::over(vec![theirs]);
    opened(&mut peer, &server, 20);
    server.drain(1_000, PATIENCE);
    peer.run_until("the first FIN", |peer| (0..20).any(|index| peer.is_closed_by_server(index)));
    let refused = peer.connect(SERVER, 7);
    peer.run_until("a refusal", |peer| peer.is_over(refused));
    for index in 0..20 {
        peer.run_until("a FIN", |peer| peer.is_closed_by_server(index));
        peer.close(index);
    }
    let finished = server.finished().clone();
    peer.run_until("the end", |_| finished.try_recv() == Err(crossbeam::channel::TryRecvError::Disconnected));
    assert_eq!(server.stop().expect("it has drained").stats.established, 0);
}

#[test]
fn a_close_comes_after_the_pushes_before_it() {
    let (ours, theirs) = memory_pair(1500, 256).expect("two eventfds");
    let server = start(ours, Options::default());
    let mut peer = Peer::over(vec![theirs]);
    let flow = opened(&mut peer, &server, 1)[0];
    push(&server, flow, b"last words");
    server.pusher().close(flow, CloseHow::Fin).expect("room");
    peer.run_until("a FIN", |peer| peer.is_closed_by_server(0));
    assert_eq!(peer.received(0), b"last words");
}

#[test]
fn an_echo_returns_more_than_any_queue_holds() {
    let (ours, theirs) = memory_pair(1500, 256).expect("two eventfds");
    let storage = Storage::in_memory(capacity()).expect("memory");
    let server =
        Server::start(config(), storage, Box::new(ours), Box::new(Echo), Options::default()).expect("it starts");
    let mut peer = Peer::over(vec![theirs]);
    opened(&mut peer, &server, 1);
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number % 253) as u8).collect();
    let mut sent = 0;
    peer.run_until("the echo", |peer| {
        sent += peer.send(0, &bytes[sent..]);
        peer.received(0).len() >= bytes.len()
    });
    assert!(peer.received(0) == bytes, "the echo is what was sent");
}

/// A link that fails at once.
struct Gone(MemoryLink);
impl Link for Gone {
    fn mac(&self) -> [u8; 6] {
        self.0.mac()
    }
    fn mtu(&self) -> u16 {
        self.0.mtu()
    }
    fn receive(&mut self) -> io::Result<Received<'_>> {
        Err(io::Error::other("pulled out"))
    }
    fn send(&mut self, _frame: &[u8]) -> io::Result<bool> {
        Err(io::Error::other("pulled out"))
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }
}

#[test]
fn a_link_that_is_gone_ends_the_server_with_its_reason() {
    let (ours, _theirs) = memory_pair(1500, 256).expect("two eventfds");
    let storage = Storage::in_memory(capacity()).expect("memory");
    let server =
        Server::start(config(), storage, Box::new(Gone(ours)), Box::new(Hold), Options::default()).expect("it starts");
    assert!(server.finished().recv_timeout(PATIENCE).is_err_and(|error| error.is_disconnected()));
    let error = server.stop().expect_err("the link is gone");
    assert!(matches!(error, ServerError::Link(_)) && error.to_string().contains("pulled out"), "{error}");
}

#[test]
fn a_dropped_server_ends_its_thread() {
    let (ours, _theirs) = memory_pair(1500, 256).expect("two eventfds");
    let server = start(ours, Options::default());
    let finished = server.finished().clone();
    drop(server);
    assert_eq!(finished.try_recv(), Err(crossbeam::channel::TryRecvError::Disconnected));
}
