//! Clients of the echo that check every byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::support::{PATIENCE, stream_byte};

/// Sends `count` bytes of the stream `index`, closes that direction, and checks that the same come back.
pub fn echo_checked(index: usize, server: impl Into<SocketAddr>, count: u64) {
    let stream = TcpStream::connect(server.into()).expect("holdline listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    thread::scope(|scope| {
        scope.spawn(|| {
            let bytes: Vec<u8> = (0..count).map(|offset| stream_byte(index, offset)).collect();
            (&stream).write_all(&bytes).expect("the echo reads");
            stream.shutdown(Shutdown::Write).expect("connected");
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).expect("the echo writes and closes");
        assert_eq!(received.len() as u64, count, "client {index}");
        let wrong = (0..).zip(&received).find(|(offset, byte)| stream_byte(index, *offset) != **byte);
        assert_eq!(wrong, None, "client {index}");
    });
}

/// Sends one byte and waits for it.
pub fn echo_byte(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.write_all(b"x").expect("the echo reads");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("the echo writes");
    assert_eq!(byte, *b"x");
}

/// Waits until the server closes.
pub fn expect_fin(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a FIN, and no RST");
    assert!(rest.is_empty());
}
