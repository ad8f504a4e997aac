//! How much do ten thousand requests at once, and a reader of events that never reads, disturb a worker?
//!
//! `cargo bench --bench control -- [REQUESTS]`, by default 10000. A server with its threads runs over a cable in
//! memory; a smoltcp peer at the other end holds 32 connections, to which another thread pushes 2,000 times a
//! second all the while. Figures are the worker's own of how long its passes took: for three seconds before, and
//! while the requests (a mix of pushes, listings, figures and errors, each on a connection of its own) are
//! answered.
//!
//! Everything runs on this machine's cores at the same time, clients and peer included.

// The tests use more of it.
#[allow(dead_code)]
#[path = "../tests/server/peer.rs"]
mod peer;

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use holdline::link::memory_pair;
use holdline::server::{ControlOptions, Histogram, Options, Server};
use holdline::service::Hold;
use holdline::shard::{Capacity, Config, FlowId, Notice, Storage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use peer::Peer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CONNECTIONS: usize = 32;
const PUSHES_PER_S: u32 = 2_000;
const QUIET: Duration = Duration::from_secs(3);

fn start(socket: &Path, link: holdline::link::MemoryLink) -> Server {
    let mut config = Config::new(SERVER, 24, &[7]);
    config.report_received_bytes = 1_024;
    let storage = Storage::in_memory(Capacity::for_connections(100_000)).expect("memory");
    let control = ControlOptions { socket: Some(socket.to_owned()), ..ControlOptions::default() };
    let options = Options { control, ..Options::default() };
    Server::start(config, storage, Box::new(link), Box::new(Hold), options).expect("it starts")
}

fn open(peer: &mut Peer, server: &Server) -> Vec<FlowId> {
    let sockets: Vec<usize> = (0..CONNECTIONS).map(|_| peer.connect(SERVER, 7)).collect();
    peer.run_until("handshakes", |peer| sockets.iter().all(|socket| peer.is_established(*socket)));
    let notices = server.notices().iter().filter_map(|notice| match notice {
        Notice::Opened { flow, .. } => Some(flow),
        _ => None,
    });
    notices.take(CONNECTIONS).collect()
}

/// Pushes at its pace until it is told to end; returns how often.
fn push(server: &Server, flows: &[FlowId], has_ended: &AtomicBool) -> u64 {
    let (pusher, began, mut count) = (server.pusher(), Instant::now(), 0u64);
    while !has_ended.load(Ordering::Relaxed) {
        let due = began.elapsed().as_micros() as u64 * u64::from(PUSHES_PER_S) / 1_000_000;
        while count < due {
            // A full queue loses the push, which is what a worker that is held up would be seen by.
            let _ = pusher.push(flows[count as usize % flows.len()], &[7; 64]);
            count += 1;
        }
        server.notices().try_iter().for_each(drop);
        thread::sleep(Duration::from_millis(1));
    }
    count
}

async fn request(path: Arc<Path>, number: usize, flow: FlowId) -> io::Result<u16> {
    let (method, target, body) = match number % 5 {
        0 | 1 => ("POST", format!("/flows/{flow}/push"), "from a request"),
        2 => ("GET", "/flows?limit=100".to_owned(), ""),
        3 => ("GET", "/stats".to_owned(), ""),
        _ => ("GET", "/flows/ffffffffffffffff".to_owned(), ""),
    };
    let text = format!(
        "{method} {target} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => break stream,
            // The socket's own queue is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(error),
        }
    };
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = answer.get(9..12).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::other("no HTTP"))
}

/// All requests at once, and a reader that never reads beside them. Returns how many had which status.
fn storm(socket: &Path, requests: usize, flows: &[FlowId]) -> Vec<(u16, usize)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let path: Arc<Path> = Arc::from(socket);
        let mut asleep = UnixStream::connect(&path).await.expect("it listens");
        asleep.write_all(b"GET /events?after=0 HTTP/1.1\r\nhost: bench\r\n\r\n").await.expect("it reads");
        let tasks: Vec<_> = (0..requests)
            .map(|number| tokio::spawn(request(Arc::clone(&path), number, flows[number % flows.len()])))
            .collect();
        let mut statuses: Vec<(u16, usize)> = Vec::new();
        for task in tasks {
            let status = task.await.expect("it does not panic").expect("an answer");
            match statuses.iter_mut().find(|(known, _)| *known == status) {
                Some((_, count)) => *count += 1,
                None => statuses.push((status, 1)),
            }
        }
        drop(asleep);
        statuses.sort_unstable();
        statuses
    })
}

fn line(what: &str, steps: &Histogram) -> String {
    let us = |share| steps.quantile(share).map_or(0.0, |duration| duration.as_secs_f64() * 1e6);
    format!("{what:<8} {:>9}  {:>8.1}  {:>8.1}  {:>8.1}", steps.count(), us(0.5), us(0.99), us(1.0))
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| argument != "--bench");
    let requests =
        wanted.map_or(10_000, |text| text.parse().expect("usage: cargo bench --bench control -- [REQUESTS]"));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit");
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("control");
    let (ours, theirs) = memory_pair(1500, 4_096).expect("two eventfds");
    let server = start(&socket, ours);
    let mut peer = Peer::over(vec![theirs]);
    let flows = open(&mut peer, &server);
    let (has_ended, pushed) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| pushed.store(push(&server, &flows, &has_ended), Ordering::Relaxed));
        let acting = scope.spawn(|| {
            let begin = server.step_times().expect("it runs");
            thread::sleep(QUIET);
            let before = server.step_times().expect("it runs");
            let began = Instant::now();
            let statuses = storm(&socket, requests, &flows);
            let elapsed = began.elapsed();
            let during = server.step_times().expect("it runs");
            println!("step, us  passes    median       p99   longest");
            println!("{}", line("before", &before.since(&begin)));
            println!("{}", line("during", &during.since(&before)));
            println!("{requests} requests in {:.2} s; status and count: {statuses:?}", elapsed.as_secs_f64());
        });
        // Longer than any patience: the bench ends by itself.
        while !acting.is_finished() {
            peer.turn();
            peer.rest();
        }
        has_ended.store(true, Ordering::Relaxed);
    });
    println!("{} pushes a second all the while, {} in all", PUSHES_PER_S, pushed.load(Ordering::Relaxed));
}
