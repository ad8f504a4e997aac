//! A client of the control API, written down to the bytes, so that what it sends can be wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::peer::PATIENCE;

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The sentence of a failure.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no sentence: {self:?}")).to_owned()
    }

    /// The lines of a listing.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).expect("JSON is text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Asks, and reads the whole answer.
pub fn call(path: &Path, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    headers.iter().for_each(|header| text.push_str(&format!("{header}\r\n")));
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    raw(path, &[text.as_bytes(), body].concat())
}

/// Sends bytes, and reads the whole answer.
pub fn raw(path: &Path, bytes: &[u8]) -> Answer {
    let mut stream = connect(path);
    stream.write_all(bytes).expect("the server reads");
    let mut lines = Lines::new(stream);
    let mut body = Vec::new();
    while let Some(piece) = lines.piece() {
        body.extend_from_slice(&piece);
    }
    Answer { status: lines.status, head: lines.head, body }
}

/// A connection.
pub fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time");
    stream
}

/// An answer that is read as it comes.
pub struct Lines {
    reader: BufReader<UnixStream>,
    pub status: u16,
    pub head: String,
    is_chunked: bool,
    left: Option<usize>,
    waiting: Vec<u8>,
}

impl Lines {
    /// Asks for a stream.
    pub fn get(path: &Path, target: &str) -> Lines {
        let mut stream = connect(path);
        stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).expect("the server reads");
        Lines::new(stream)
    }

    fn new(stream: UnixStream) -> Lines {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while reader.read_line(&mut head).expect("a head") > 2 {}
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{head:?}"));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let is_chunked = head.contains("transfer-encoding: chunked");
        Lines { reader, status, head, is_chunked, left: length, waiting: Vec::new() }
    }

    /// The next piece of the body; `None` at its end.
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        let length = if self.is_chunked {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("a chunk");
            usize::from_str_radix(line.trim(), 16).ok()?
        } else {
            self.left.take().unwrap_or(0)
        };
        let mut piece = vec![0; length];
        self.reader.read_exact(&mut piece).expect("all of the piece");
        if self.is_chunked {
            self.reader.read_exact(&mut [0; 2]).expect("the end of the chunk");
        }
        (length > 0).then_some(piece)
    }

    /// The next line; `None` at the end.
    pub fn next_line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let piece = self.piece()?;
            self.waiting.extend_from_slice(&piece);
        }
    }
}
