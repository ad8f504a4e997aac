//! Several workers that drive several shards, over as many cables, on which most frames come to the wrong worker.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use holdline::link::{Link, MemoryLink, memory_pair};
use holdline::server::{MoveError, Options, Server, ServerError};
use holdline::service::{Echo, Hold, Service};
use holdline::shard::{Broadcast, Config, JobId, JobState, Notice, PushError, Shard, Storage, Ticket, Time};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::peer::{PATIENCE, Peer};
use super::{SERVER, capacity, config, opened, push};

/// So many cables: the server's ends, and the others.
fn cables(count: usize) -> (Vec<MemoryLink>, Vec<MemoryLink>) {
    (0..count).map(|_| memory_pair(1500, 1_024).expect("two eventfds")).unzip()
}

fn boxed(links: Vec<MemoryLink>) -> Vec<Box<dyn Link>> {
    links.into_iter().map(|link| Box::new(link) as Box<dyn Link>).collect()
}

fn in_memory(shards: u8) -> Vec<Storage> {
    (0..shards).map(|_| Storage::in_memory(capacity()).expect("memory")).collect()
}

fn serve(links: Vec<MemoryLink>, shards: u8, service: fn() -> Box<dyn Service + Send>, options: Options) -> Server {
    Server::start_all(config(), in_memory(shards), boxed(links), service, options).expect("it starts")
}

fn stream(index: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 3 + at * index + index) as u8).collect()
}

/// Sends so many bytes over each connection, has them come back, and calls `meanwhile` all the time.
fn echo_all(peer: &mut Peer, connections: usize, bytes: usize, mut meanwhile: impl FnMut()) {
    let streams: Vec<Vec<u8>> = (0..connections).map(|index| stream(index, bytes)).collect();
    let mut sent = vec![0; connections];
    peer.run_until("all echoes", |peer| {
        for (index, stream) in streams.iter().enumerate() {
            sent[index] += peer.send(index, &stream[sent[index]..]);
        }
        meanwhile();
        (0..connections).all(|index| peer.received(index).len() >= bytes)
    });
    for (index, stream) in streams.iter().enumerate() {
        assert!(peer.received(index) == stream, "connection {index}: what comes back is what was sent");
    }
}

#[test]
fn frames_at_the_wrong_worker_reach_their_shard() {
    const CONNECTIONS: usize = 32;
    let (ours, theirs) = cables(2);
    let server = serve(ours, 4, || Box::new(Echo), Options::default());
    let mut peer = Peer::over(theirs);
    let flows = opened(&mut peer, &server, CONNECTIONS);
    let shards: BTreeSet<u8> = flows.iter().map(|flow| flow.shard()).collect();
    assert_eq!(shards.into_iter().collect::<Vec<u8>>(), [0, 1, 2, 3]);
    echo_all(&mut peer, CONNECTIONS, 20_000, || ());
    let summary = server.stop().expect("it stops");
    assert_eq!(summary.stats.established as usize, CONNECTIONS);
}

#[test]
fn shards_move_to_and_fro_under_traffic_and_nobody_notices() {
    const CONNECTIONS: usize = 16;
    const SHARDS: u8 = 3;
    let (ours, theirs) = cables(3);
    let server = serve(ours, SHARDS, || Box::new(Echo), Options::default());
    let mut peer = Peer::over(theirs);
    opened(&mut peer, &server, CONNECTIONS);
    let (is_over, moves) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(8);
            while !is_over.load(Ordering::Relaxed) || moves.load(Ordering::Relaxed) < 200 {
                let (shard, worker) = (random.random_range(0..SHARDS), random.random_range(0..3));
                server.move_shard(shard, worker).expect("the server runs");
                assert_eq!(server.worker_of(shard), Some(worker));
                moves.fetch_add(1, Ordering::Relaxed);
            }
        });
        echo_all(&mut peer, CONNECTIONS, 200_000, || ());
        is_over.store(true, Ordering::Relaxed);
        // Those that are still to come move idle connections.
        while moves.load(Ordering::Relaxed) < 200 {
            peer.turn();
            peer.rest();
        }
    });
    let told: Vec<Notice> = server.notices().try_iter().collect();
    assert!(told.iter().all(|notice| !matches!(notice, Notice::Closed { .. })), "{told:?}");
    assert!((0..CONNECTIONS).all(|index| peer.is_established(index)));
    assert_eq!(server.stop().expect("it stops").stats.established as usize, CONNECTIONS);
}

#[test]
fn a_push_finds_its_shard_wherever_it_has_gone() {
    let (ours, _theirs) = cables(2);
    let server = serve(ours, 2, || Box::new(Hold), Options::default());
    let nobody = [0, 1].map(|shard| holdline::shard::FlowId::new(shard, 1, 200));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0_usize.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                server.move_shard((number % 2) as u8, number / 2 % 2).expect("the server runs");
            }
        });
        let pusher = server.pusher();
        for number in 0..20_000 {
            let ticket = pusher.push(nobody[number % 2], b"anyone there?").expect("room");
            let notice = server.notices().recv_timeout(Duration::from_secs(4));
            let Ok(Notice::Refused { ticket: refused, error: PushError::Unknown, .. }) = notice else {
                is_over.store(true, Ordering::Relaxed);
                panic!("push {number} was slept over: {notice:?}");
            };
            assert_eq!(refused, ticket);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(server.move_shard(2, 0), Err(MoveError::NoShard));
    assert_eq!(server.move_shard(0, 2), Err(MoveError::NoWorker));
    assert_eq!((server.worker_of(2), server.move_shard(1, 1)), (None, Ok(())));
}

#[test]
fn a_question_is_answered_once_wherever_it_comes() {
    let (ours, mut theirs) = cables(2);
    let _server = serve(ours, 4, || Box::new(Hold), Options::default());
    let mut who_has = vec![0xff; 6];
    who_has.extend([0x02, 0, 0, 0, 0, 2, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 2, 10, 0, 0, 1]);
    who_has.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    let until = Instant::now() + PATIENCE;
    for asked in [0, 1] {
        assert!(theirs[asked].send(&who_has).expect("memory does not fail"));
        let mut answers = 0;
        let mut more_until = until;
        while Instant::now() < more_until {
            for link in &mut theirs {
                answers += link.receive().expect("memory does not fail").len();
            }
            if answers > 0 {
                // A second answer would come at once, too.
                more_until = more_until.min(Instant::now() + Duration::from_millis(100));
            }
            thread::yield_now();
        }
        assert_eq!(answers, 1, "asked on cable {asked}");
    }
}

#[test]
fn a_frame_that_comes_to_one_about_to_sleep_is_not_slept_over() {
    let (ours, mut theirs) = cables(2);
    // The one shard is driven by the first worker, and the questions come to the second.
    let _server = serve(ours, 1, || Box::new(Hold), Options::default());
    let mut who_has = vec![0xff; 6];
    who_has.extend([0x02, 0, 0, 0, 0, 2, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 0x02, 0, 0, 0, 0, 2, 10, 0, 0, 1]);
    who_has.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    for number in 0..5_000 {
        assert!(theirs[1].send(&who_has).expect("memory does not fail"));
        let descriptor = theirs[0].descriptor().expect("a memory link has a descriptor");
        let answered = poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::from(10_000_u16));
        assert_eq!(answered, Ok(1), "question {number} was slept over");
        assert_eq!(theirs[0].receive().expect("memory does not fail").len(), 1);
    }
}

#[test]
fn workers_with_nothing_to_do_sleep() {
    let (ours, theirs) = cables(2);
    let server = serve(ours, 4, || Box::new(Hold), Options::default());
    let mut peer = Peer::over(theirs);
    let flows = opened(&mut peer, &server, 4);
    assert!(server.notices().recv_timeout(Duration::from_millis(300)).is_err(), "nothing happens, nothing is told");
    for (index, flow) in flows.into_iter().enumerate() {
        push(&server, flow, b"a sleeper wakes for a push");
        peer.run_until("the push", |peer| !peer.received(index).is_empty());
    }
    let summary = server.stop().expect("it stops");
    assert!(summary.passes < 400, "{} passes for some sixty events", summary.passes);
}

#[test]
fn a_worker_that_is_to_look_again_does_so_for_a_bounded_time() {
    let (ours, theirs) = cables(2);
    let spin = Duration::from_millis(1);
    let server = serve(ours, 2, || Box::new(Hold), Options { spin, ..Options::default() });
    let mut peer = Peer::over(theirs);
    opened(&mut peer, &server, 1);
    let before = server.step_times().expect("it runs").count();
    assert!(server.notices().recv_timeout(Duration::from_millis(900)).is_err(), "nothing happens");
    let after = server.step_times().expect("it runs").count();
    assert!(after - before < 50, "passes that had something to do");
    let passes = server.stop().expect("it stops").passes;
    // Some ten times it was woken; were it not for the bound, both would go round a million times.
    assert!((200..100_000).contains(&passes), "{passes} passes");
}

#[test]
fn a_state_of_several_shards_goes_on_under_any_number_of_workers() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = cables(2);
    let begin = |workers: usize| {
        let storages = Storage::all_in_directory(directory.path(), 3, capacity()).expect("a state");
        let links = boxed(ours[..workers].to_vec());
        Server::start_all(config(), storages, links, || Box::new(Hold), Options::default()).expect("it starts")
    };
    // The other end sends over the one cable that always has a worker.
    let mut peer = Peer::over(theirs[..1].to_vec());
    let mut other = theirs[1].clone();
    let server = begin(2);
    assert!(server.resumption().is_fresh);
    // Answers leave over the cable of the worker that drives the shard.
    for shard in 0..3 {
        server.move_shard(shard, 0).expect("it runs");
    }
    let flows = opened(&mut peer, &server, 9);
    let mut expected: Vec<Vec<u8>> = vec![Vec::new(); 9];
    let mut tickets = BTreeSet::new();
    let mut server = Some(server);
    for (round, workers) in [2, 1, 2, 1].into_iter().enumerate() {
        let running = match server.take() {
            Some(running) => running,
            None => begin(workers),
        };
        assert!(round == 0 || running.resumption().connections == 9, "{:?}", running.resumption());
        for shard in 0..3 {
            running.move_shard(shard, 0).expect("it runs");
        }
        for (index, flow) in flows.iter().enumerate() {
            let bytes = format!("round {round} for {index}, ");
            expected[index].extend(bytes.as_bytes());
            assert!(tickets.insert(running.pusher().push(*flow, bytes.as_bytes()).expect("room").0));
        }
        peer.run_until("the pushes", |peer| {
            // What left over the other cable before the shards had moved goes again.
            let _ = other.receive();
            (0..9).all(|index| peer.received(index).len() >= expected[index].len())
        });
        running.stop().expect("it stops");
    }
    (0..9).for_each(|index| assert_eq!(peer.received(index), expected[index]));
    let error = Storage::all_in_directory(directory.path(), 2, capacity()).err().expect("it has three").to_string();
    assert!(error.contains("--shards 3"), "{error}");
}

#[test]
fn a_broadcast_that_not_every_shard_has_taken_is_taken_back_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let news = Broadcast { ticket: Ticket(7), bytes: b"news", pace_per_s: 0, prefix: b"", expires_in_s: 0 };
    let shards = || {
        let storages = Storage::all_in_directory(directory.path(), 2, capacity()).expect("a state");
        let shards = (0..2).zip(storages).map(|(shard, storage)| {
            let now = storage.last_time();
            Shard::new(Config { shard, shards: 2, ..config() }, storage, Hold, [1; 32], now).expect("it starts")
        });
        shards.collect::<Vec<Shard<Hold>>>()
    };
    let mut before = shards();
    for shard in &mut before {
        assert_eq!(shard.hold_job(Time(0), &news, Some(JobId(1))), Ok(JobId(1)));
    }
    assert_eq!(before[0].hold_job(Time(0), &news, None), Ok(JobId(2)));
    drop(before);
    let (ours, _theirs) = cables(1);
    let storages = Storage::all_in_directory(directory.path(), 2, capacity()).expect("a state");
    let server = Server::start_all(config(), storages, boxed(ours), || Box::new(Hold), Options::default());
    server.expect("it starts").stop().expect("it stops");
    let after = shards();
    assert_eq!(after[0].job(JobId(2)).map(|job| job.state), Some(JobState::Cancelled));
    assert_eq!(after[1].job(JobId(2)).map(|job| job.state), None);
    for shard in &after {
        let state = shard.job(JobId(1)).map(|job| job.state);
        assert!(matches!(state, Some(JobState::Running | JobState::Done)), "all have it, so it goes on: {state:?}");
    }
}

#[test]
fn a_drain_ends_when_every_shard_has_drained() {
    let (ours, theirs) = cables(2);
    let server = serve(ours, 3, || Box::new(Hold), Options::default());
    let mut peer = Peer::over(theirs);
    let flows = opened(&mut peer, &server, 20);
    server.drain(1_000, PATIENCE);
    peer.run_until("all FINs", |peer| (0..20).all(|index| peer.is_closed_by_server(index)));
    let finished = server.finished().clone();
    // One shard after the other, so that one is drained long before the last.
    for shard in 0..3 {
        let (ends, until) = (Err(crossbeam::channel::TryRecvError::Empty), Instant::now() + Duration::from_millis(100));
        peer.run_until("a while", |_| Instant::now() > until);
        assert_eq!(finished.try_recv(), ends, "shard {shard} has connections still");
        let of_shard = (0..20).filter(|&index| flows[index].shard() == shard);
        of_shard.for_each(|index| peer.close(index));
    }
    peer.run_until("the end", |_| finished.try_recv() == Err(crossbeam::channel::TryRecvError::Disconnected));
    assert_eq!(server.stop().expect("it has drained").stats.established, 0);
}

#[test]
fn one_link_that_is_gone_ends_all_workers_with_its_reason() {
    let (mut ours, _theirs) = cables(1);
    let links: Vec<Box<dyn Link>> = vec![Box::new(ours.remove(0)), Box::new(super::Gone(cables(1).0.remove(0)))];
    let server = Server::start_all(config(), in_memory(2), links, || Box::new(Hold), Options::default());
    let server = server.expect("it starts");
    assert!(server.finished().recv_timeout(PATIENCE).is_err_and(|error| error.is_disconnected()));
    let error = server.stop().expect_err("a link is gone");
    assert!(matches!(error, ServerError::Link(_)) && error.to_string().contains("pulled out"), "{error}");
}

#[test]
fn what_cannot_go_together_is_refused() {
    let refused = |links: Vec<MemoryLink>, shards: u8, options: Options| {
        let server = Server::start_all(config(), in_memory(shards), boxed(links), || Box::new(Hold), options);
        server.err().expect("it cannot start").to_string()
    };
    let (one, other) = memory_pair(1500, 1).expect("two eventfds");
    assert!(refused(vec![one.clone(), other], 1, Options::default()).contains("queues of one interface"));
    assert!(refused(Vec::new(), 1, Options::default()).contains("at least one link"));
    assert!(refused(vec![one.clone()], 0, Options::default()).contains("1 to 128 shards"));
    assert!(refused(vec![one.clone()], 129, Options::default()).contains("1 to 128 shards"));
    let cores = vec![0, 0];
    assert!(refused(vec![one], 1, Options { cores, ..Options::default() }).contains("2 cores are given for 1 workers"));
}

#[test]
fn more_workers_than_shards_hand_everything_over() {
    let (ours, theirs) = cables(3);
    let server = serve(ours, 1, || Box::new(Echo), Options::default());
    let mut peer = Peer::over(theirs);
    opened(&mut peer, &server, 3);
    echo_all(&mut peer, 3, 50_000, || ());
    let refused = peer.connect(SERVER, 8);
    peer.run_until("a refusal", |peer| peer.is_over(refused));
}
