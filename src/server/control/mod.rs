//! The control API: HTTP/1.1 over a Unix socket, so that curl is a client; metrics on a TCP port as well.
//!
//! Comes in: calls (the table is in `routes`), and through `teller` what the shards tell. Goes out: answers; JSON with
//! an `error` that is a sentence where a call failed. One thread serves it all: `line` leads to the shards, `events`
//! keeps what happened, of all shards in one numbering.
//!
//! ```text
//! curl -- socket -- routes -- flows, push, broadcast, figures, shards -- line ==asks==> workers
//!                     stream -- ring of events <==told== workers
//! ```
//!
//! Invariant: no worker waits for anything here, and what a client can make wait here is bounded: connections, bodies,
//! streams, asks and pushes each have their number.

mod body;
mod broadcast;
mod events;
mod failure;
mod figures;
mod flows;
mod line;
mod listen;
mod metrics;
mod parameters;
mod push;
mod routes;
mod shards;
mod stream;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use super::ServerError;
use super::clock::{wall_clock, whole};
use super::shared::Shared;
use super::teller::ToldQueue;

use events::Ring;
use figures::Rates;
use line::Line;
use listen::NamedListener;

/// Where a server is driven and watched from.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// The Unix socket of the control API.
    pub socket: Option<PathBuf>,
    /// The TCP address that has `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// Closes a second of a drain that is told no rate.
    pub drain_rate_per_s: u32,
}

impl Default for ControlOptions {
    fn default() -> ControlOptions {
        ControlOptions { socket: None, metrics: None, drain_rate_per_s: 10_000 }
    }
}

impl ControlOptions {
    /// Whether there is anything to serve.
    pub(super) fn is_wanted(&self) -> bool {
        self.socket.is_some() || self.metrics.is_some()
    }
}

/// What all calls share.
#[derive(Debug)]
struct Api {
    line: Line,
    ring: Mutex<Ring>,
    ring_changed: watch::Sender<()>,
    rates: Mutex<Rates>,
    /// Places for readers of events.
    streams: Arc<Semaphore>,
    /// Places for listings, which are written piece by piece too.
    listings: Arc<Semaphore>,
    /// Places for bodies that are being read.
    bodies: Semaphore,
    /// Held while a broadcast is started in all shards.
    broadcasts: tokio::sync::Mutex<()>,
    push_bytes_max: usize,
    drain_rate_per_s: u32,
    started: Instant,
    has_ended: AtomicBool,
}

impl Api {
    /// Whether the worker has ended, so that nothing more will happen.
    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }
}

/// The thread that serves the control side. Dropping it ends it, after readers were told the last events.
#[derive(Debug)]
pub(super) struct Control {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    metrics: Option<SocketAddr>,
}

impl Control {
    /// Opens the doors and starts the thread. Errors say which door and why.
    pub(super) fn start(
        options: &ControlOptions,
        shared: Arc<Shared>,
        told: Arc<ToldQueue>,
        start_number: u64,
    ) -> Result<Control, ServerError> {
        let socket = options.socket.as_deref().map(NamedListener::bind).transpose().map_err(ServerError::Control)?;
        let tcp = options.metrics.map(listen::bind_metrics).transpose().map_err(ServerError::Control)?;
        let metrics = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let push_bytes_max = shared.push_bytes_max();
        let api = Arc::new(Api {
            line: Line::new(shared),
            ring: Mutex::new(Ring::new(start_number)),
            ring_changed: watch::Sender::new(()),
            rates: Mutex::new(Rates::new()),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
            bodies: Semaphore::new((BODIES_BYTES_MAX / push_bytes_max.max(1)).clamp(BODIES_MIN, CONNECTIONS_MAX)),
            broadcasts: tokio::sync::Mutex::new(()),
            push_bytes_max,
            drain_rate_per_s: options.drain_rate_per_s,
            started: Instant::now(),
            has_ended: AtomicBool::new(false),
        });
        let system = |what| move |error| ServerError::System(what, error);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("an event loop"))?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    if let Err(error) = serve(api, socket, tcp, told, ended).await {
                        tracing::error!("the control API cannot be served: {error}");
                    }
                });
                // Whoever is in the middle of a call when the server ends is cut off.
                runtime.shutdown_background();
            })
            .map_err(system("a thread"))?;
        Ok(Control { end: Some(end), thread: Some(thread), metrics })
    }

    /// The address that metrics are served on.
    pub(super) fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The thread waits for this or has ended.
        let _ = self.end.take().map(|end| end.send(()));
        // What it had to say it has logged.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(
    api: Arc<Api>,
    socket: Option<(NamedListener, UnixListener)>,
    metrics: Option<TcpListener>,
    told: Arc<ToldQueue>,
    ended: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut doors = JoinSet::new();
    let mut _name = None;
    if let Some((named, listener)) = socket {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let (routes, places) = (routes::control(Arc::clone(&api)), Arc::clone(&places));
        _name = Some(named);
        doors.spawn(accept(places, routes, listener));
    }
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (routes, places) = (routes::metrics_only(Arc::clone(&api)), Arc::new(Semaphore::new(METRICS_MAX)));
        doors.spawn(accept(places, routes, listener));
    }
    tokio::select! {
        // Only the end of the server ends it.
        _ = ended => {}
        () = take_in(&api, &told) => {}
    }
    while put_some(&api, &told) {}
    api.has_ended.store(true, Ordering::Relaxed);
    api.ring_changed.send_replace(());
    // A door holds a place for who comes next.
    doors.shutdown().await;
    // Readers that read get the rest; nobody waits for one that does not.
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(LAST_WORDS, places.acquire_many(all)).await;
    Ok(())
}

/// Fills the ring from what the worker tells, for as long as the server runs. What comes alone comes at once; of very
/// many, those of a pause come together, as waking this thread costs more than what it does for one.
async fn take_in(api: &Api, told: &ToldQueue) {
    let mut rests_until = Instant::now();
    loop {
        told.rung().await;
        let rest = rests_until.saturating_duration_since(Instant::now());
        // A sleep of no length takes a tick of the clock.
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        while put_some(api, told) {
            tokio::task::yield_now().await;
        }
        rests_until = Instant::now() + EVENTS_PAUSE;
    }
}

/// Puts a bounded number of events into the ring. Returns whether there were any.
fn put_some(api: &Api, told: &ToldQueue) -> bool {
    let time_ms = whole(wall_clock().as_millis());
    let mut ring = stream::ring(api);
    let mut count = 0;
    while count < EVENTS_AT_ONCE
        && let Some(told) = told.pop()
    {
        ring.put(time_ms, told);
        count += 1;
    }
    drop(ring);
    if count > 0 {
        api.ring_changed.send_replace(());
    }
    count > 0
}

/// Where connections come in.
trait Door: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    fn next(&self) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

impl Door for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> std::io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

impl Door for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> std::io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

/// Takes connections, as many at a time as there are places; others wait in the socket's own queue.
async fn accept(places: Arc<Semaphore>, routes: Router, door: impl Door) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match door.next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("a connection to the control API was lost: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let routes = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), routes);
            // A client that breaks off, or speaks something else than HTTP, has been answered as far as it goes.
            let _ = serving.await;
            drop(place);
        });
    }
}

/// Connections at a time.
const CONNECTIONS_MAX: usize = 512;

/// Connections to the metrics port at a time.
const METRICS_MAX: usize = 16;

/// Readers of events at a time.
const STREAMS_MAX: usize = 64;

/// Listings at a time. More wait until one is over.
const LISTINGS_MAX: usize = 64;

/// Bodies of requests that are read at the same time hold so many bytes together, and there are some in any case.
const BODIES_BYTES_MAX: usize = 64 << 20;
const BODIES_MIN: usize = 4;

/// How often events are taken in, at most.
const EVENTS_PAUSE: Duration = Duration::from_millis(2);

/// Events that are taken in before others have their turn.
const EVENTS_AT_ONCE: usize = 1_024;

/// How long a client may take for the head of a request, and may be silent between two.
const HEADER_PATIENCE: Duration = Duration::from_secs(30);

/// Buffer of a connection, in bytes: room for the head of a request, and what is written ahead of a slow reader.
const BUFFER_BYTES: usize = 64 << 10;

/// Pause after a connection could not be taken, as when no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How long readers have for the last events when the server ends.
const LAST_WORDS: Duration = Duration::from_secs(1);
