//! One process of the demo's clients: thousands of ordinary kernel sockets, read by epoll.
//!
//! Comes in: flags, `go` and then the end of standard input; bytes from the server. Goes out, on standard output:
//! [`Line`]s, which the demo adds up. Every byte that arrives is checked at once and none is kept. The end of standard
//! input, be it meant or because the demo has died, ends the process and its connections.
//!
//! Invariant: a failed connection is counted and its first error told; it never ends the process.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket, sockopt,
};

use super::lines::{Line, Tally};
use super::payload::Payload;
use crate::cli::Outcome;

/// What a client process is told.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Whom to connect to.
    #[arg(long)]
    pub server: SocketAddr,
    /// How many connections to make.
    #[arg(long)]
    pub clients: usize,
    /// How many rounds of pushes will come.
    #[arg(long)]
    pub rounds: u32,
    /// How many bytes a push has.
    #[arg(long)]
    pub payload: usize,
    /// Expect the same bytes on every connection, as of a broadcast.
    #[arg(long)]
    pub shared: bool,
}

/// Connects, checks, and reports until standard input ends.
pub fn run(arguments: &Arguments) -> Outcome {
    raise_descriptor_limit()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    say(&Line::Ready)?;
    let mut word = [0; 3];
    if io::stdin().read_exact(&mut word).is_err() {
        return Ok(ExitCode::SUCCESS);
    }
    epoll.add(io::stdin(), EpollEvent::new(EpollFlags::EPOLLIN, STANDARD_INPUT))?;
    let clients = std::iter::repeat_with(|| None).take(arguments.clients).collect();
    let mut crowd = Crowd {
        arguments,
        epoll,
        clients,
        begun: 0,
        connecting: 0,
        tally: Tally::default(),
        told: Tally::default(),
        told_at: Instant::now(),
        has_told_trouble: false,
        buffer: vec![0; 64 * 1024],
    };
    crowd.run()?;
    crowd.abort_all();
    say(&Line::Tally(crowd.tally))?;
    Ok(ExitCode::SUCCESS)
}

/// Raises the soft limit of open descriptors to the hard one; returns it.
pub fn raise_descriptor_limit() -> Result<u64, Errno> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// One connection. `payload` is known once it is established.
struct Client {
    stream: TcpStream,
    payload: Option<Payload>,
    position: u64,
}

/// All connections of this process.
struct Crowd<'a> {
    arguments: &'a Arguments,
    epoll: Epoll,
    clients: Vec<Option<Client>>,
    begun: usize,
    connecting: usize,
    tally: Tally,
    told: Tally,
    told_at: Instant,
    has_told_trouble: bool,
    buffer: Vec<u8>,
}

impl Crowd<'_> {
    /// Until standard input has ended.
    fn run(&mut self) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); 1024];
        loop {
            while self.connecting < CONNECTING_MAX && self.begun < self.clients.len() {
                self.begin(self.begun)?;
                self.begun += 1;
            }
            self.tell()?;
            let timeout = if self.tally == self.told { EpollTimeout::NONE } else { EpollTimeout::from(TELL_EVERY_MS) };
            let count = match self.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => 0,
                outcome => outcome?,
            };
            for event in &events[..count] {
                if event.data() == STANDARD_INPUT {
                    return Ok(());
                }
                let index = usize::try_from(event.data()).unwrap_or(usize::MAX);
                self.on_event(index, event.events())?;
            }
        }
    }

    /// Starts a connection.
    fn begin(&mut self, index: usize) -> io::Result<()> {
        match connecting_stream(self.arguments.server) {
            Ok(stream) => {
                let interest =
                    EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
                self.epoll.add(&stream, EpollEvent::new(interest, index as u64))?;
                self.clients[index] = Some(Client { stream, payload: None, position: 0 });
                self.connecting += 1;
                Ok(())
            }
            Err(error) => self.on_failed(&error),
        }
    }

    fn on_event(&mut self, index: usize, flags: EpollFlags) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        if client.payload.is_none() {
            if !flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                return Ok(());
            }
            self.connecting -= 1;
            match established(&client.stream) {
                Ok(_) if self.arguments.shared => client.payload = Some(Payload::shared()),
                Ok(local) => client.payload = Some(Payload::new(local, self.arguments.server.port())),
                Err(error) => {
                    self.clients[index] = None;
                    return self.on_failed(&error);
                }
            }
            self.tally.connected += 1;
        }
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLERR) {
            return self.read(index);
        }
        Ok(())
    }

    /// Reads and checks what has come, until nothing waits.
    fn read(&mut self, index: usize) -> io::Result<()> {
        let Some(Client { stream, payload: Some(payload), position }) = self.clients[index].as_mut() else {
            return Ok(());
        };
        let Arguments { payload: payload_bytes, rounds, .. } = *self.arguments;
        let mut first_wrong = None;
        let end = loop {
            match stream.read(&mut self.buffer) {
                Ok(0) => break Some("a FIN".to_owned()),
                Ok(count) => {
                    let wrong = payload.wrong_bytes(*position, &self.buffer[..count], payload_bytes, rounds);
                    if wrong > 0 && first_wrong.is_none() {
                        first_wrong = Some((wrong, *position));
                    }
                    self.tally.bytes += count as u64;
                    self.tally.wrong_bytes += wrong;
                    *position += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Some(error.to_string()),
            }
        };
        if let Some((wrong, position)) = first_wrong {
            self.tell_trouble(format!("{wrong} wrong bytes arrived from byte {position} of a connection on"))?;
        }
        end.map_or(Ok(()), |how| self.on_closed(index, &how))
    }

    fn on_failed(&mut self, error: &io::Error) -> io::Result<()> {
        self.tally.failed += 1;
        let server = self.arguments.server;
        let advice = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRNOTAVAIL) => ": every local port for this server port is taken",
            Some(Errno::EMFILE | Errno::ENFILE) => ": the limit of open descriptors is too low",
            _ => "",
        };
        self.tell_trouble(format!("a client could not connect to {server}: {error}{advice}"))
    }

    fn on_closed(&mut self, index: usize, how: &str) -> io::Result<()> {
        let client = self.clients[index].take();
        self.tally.closed += 1;
        let received = client.map_or(0, |client| client.position);
        self.tell_trouble(format!("a connection was ended by the server after {received} bytes ({how})"))
    }

    fn tell_trouble(&mut self, sentence: String) -> io::Result<()> {
        if self.has_told_trouble {
            return Ok(());
        }
        self.has_told_trouble = true;
        say(&Line::Trouble(sentence))
    }

    /// Tells the tally, not too often.
    fn tell(&mut self) -> io::Result<()> {
        let is_due = self.told_at.elapsed() >= Duration::from_millis(TELL_EVERY_MS.into());
        if self.tally == self.told || !is_due {
            return Ok(());
        }
        self.told = self.tally;
        self.told_at = Instant::now();
        say(&Line::Tally(self.tally))
    }

    /// Ends every connection by RST, so that the kernel keeps none of them in TIME-WAIT.
    fn abort_all(&mut self) {
        for client in self.clients.drain(..).flatten() {
            if let Ok(mut linger) = getsockopt(&client.stream, sockopt::Linger) {
                (linger.l_onoff, linger.l_linger) = (1, 0);
                // A socket that refuses is closed all the same, by FIN.
                let _ = setsockopt(&client.stream, sockopt::Linger, &linger);
            }
        }
    }
}

fn connecting_stream(server: SocketAddr) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket(family, SockType::Stream, flags, None)?;
    match connect(descriptor.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(descriptor)),
        Err(errno) => Err(errno.into()),
    }
}

/// The local address of a connection, or why there is none.
fn established(stream: &TcpStream) -> io::Result<SocketAddr> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.peer_addr()?;
    stream.local_addr()
}

fn say(line: &Line) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// Connects under way at once: with some processes together fewer than the frames that a TAP lets wait (1,000).
const CONNECTING_MAX: usize = 64;

/// The least time between two tallies, in milliseconds.
const TELL_EVERY_MS: u8 = 20;

/// Names standard input among the events.
const STANDARD_INPUT: u64 = u64::MAX;
