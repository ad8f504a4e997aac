//! The kernel's ends: the client of every transfer, and the server that holdline is measured beside.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockopt, listen as listen_on, setsockopt,
    socket, sockopt,
};

use super::{CLIENT, Course, Direction, PORT, Progress, SERVER};

/// Connects, sends or receives until the time is up, then sees the stream to its end. Returns what the receiving
/// application had by then, when that was, and nothing to remark.
pub fn client(course: &Course, progress: &Progress) -> (u64, Duration, String) {
    let socket = tcp_socket(course.buffer_bytes);
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(CLIENT, 0))).expect("the address is ours");
    connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(SERVER, PORT))).expect("the server answers");
    let began = Instant::now();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TICK)).expect("a socket takes a time-out");
    stream.set_write_timeout(Some(TICK)).expect("a socket takes a time-out");
    match progress.direction {
        Direction::Up => {
            let is_up = || began.elapsed() >= course.duration;
            while !is_up() && send_some(&mut stream, progress) {}
            let at_end = is_up().then(|| (progress.received.load(Ordering::Relaxed), began.elapsed()));
            stream.shutdown(Shutdown::Write).expect("it is connected");
            receive_until(&mut stream, progress, || false);
            let (bytes, elapsed) =
                at_end.unwrap_or_else(|| (progress.received.load(Ordering::Relaxed), began.elapsed()));
            (bytes, elapsed, String::new())
        }
        Direction::Down => {
            receive_until(&mut stream, progress, || began.elapsed() >= course.duration);
            let (bytes, elapsed) = (progress.received.load(Ordering::Relaxed), began.elapsed());
            progress.is_over.store(true, Ordering::Relaxed);
            receive_until(&mut stream, progress, || false);
            (bytes, elapsed, String::new())
        }
    }
}

/// A listener whose connections have the same buffers and congestion control as the client.
pub fn listen(course: &Course) -> TcpListener {
    let socket = tcp_socket(course.buffer_bytes);
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(SERVER, PORT))).expect("the address is ours");
    listen_on(&socket, Backlog::new(1).expect("one may wait")).expect("a bound socket listens");
    TcpListener::from(socket)
}

/// Serves one connection to its end.
pub fn serve(listener: &TcpListener, progress: &Progress) {
    let (mut stream, _) = listener.accept().expect("the client comes");
    if progress.direction == Direction::Down {
        while send_some(&mut stream, progress) {}
        stream.shutdown(Shutdown::Write).expect("it is connected");
    }
    // The FIN of a client that is done may not arrive: the cable ends with it.
    stream.set_read_timeout(Some(TICK)).expect("a socket takes a time-out");
    receive_until(&mut stream, progress, || progress.is_done.load(Ordering::Relaxed));
}

/// Sends what there is room for; false at the end of the stream.
fn send_some(stream: &mut TcpStream, progress: &Progress) -> bool {
    let chunk = progress.next_to_send();
    if chunk.is_empty() {
        return false;
    }
    match stream.write(chunk) {
        Ok(bytes) => progress.note_sent(bytes),
        Err(error) if is_time_out(&error) => {}
        Err(error) => panic!("the connection is lost while sending: {error}"),
    }
    true
}

/// Receives until the peer has closed, or it is enough.
fn receive_until(stream: &mut TcpStream, progress: &Progress, is_enough: impl Fn() -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while !is_enough() {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => progress.note_received(&buffer[..bytes]),
            Err(error) if is_time_out(&error) => {}
            Err(error) => panic!("the connection is lost while receiving: {error}"),
        }
    }
}

fn is_time_out(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// A socket with CUBIC and buffers of so many bytes, of which the kernel takes twice as much for its own records.
fn tcp_socket(buffer_bytes: usize) -> OwnedFd {
    let socket =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("there is a descriptor");
    setsockopt(&socket, sockopt::TcpCongestion, &CUBIC.into()).unwrap_or_else(|errno| {
        panic!(
            "this kernel lets no socket use CUBIC ({errno}): load it with `modprobe tcp_cubic`, and see that \
             net.ipv4.tcp_allowed_congestion_control has it"
        )
    });
    let name = getsockopt(&socket, sockopt::TcpCongestion).expect("every TCP socket has one");
    assert!(name.to_string_lossy().trim_end_matches('\0') == CUBIC, "the kernel took {name:?} instead of CUBIC");
    setsockopt(&socket, sockopt::RcvBufForce, &buffer_bytes).expect("root may have any buffer");
    setsockopt(&socket, sockopt::SndBufForce, &buffer_bytes).expect("root may have any buffer");
    socket
}

/// The congestion control of every kernel socket here.
pub const CUBIC: &str = "cubic";

/// How long a call may wait before the time is looked at.
const TICK: Duration = Duration::from_millis(5);
