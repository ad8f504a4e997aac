//! Bodies: what a request brings, read with a bound, and streams of lines that a response writes piece by piece.
//!
//! Invariant: a response holds one piece. What makes the pieces waits until the last one was taken, so a reader that
//! never reads costs its socket's buffers and one piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::failure::Failure;

/// Reads a body of at most `bytes_max` bytes.
pub(super) async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|bytes| bytes > (bytes_max + DRAINED_BYTES_MAX) as u64) {
        return Err(too_large(bytes_max));
    }
    let reading = read_all(body, bytes_max);
    tokio::time::timeout(BODY_PATIENCE, reading).await.map_err(|_| {
        let sentence = format!("the body of the request did not come within {} s", BODY_PATIENCE.as_secs());
        Failure::new(StatusCode::REQUEST_TIMEOUT, sentence)
    })?
}

/// A client that is still writing would not see the answer, so what is too much is read a while and thrown away.
async fn read_all(mut body: Body, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let (mut bytes, mut count) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::bad(format!("the body of the request broke off: {error}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        count += piece.len();
        if count > bytes_max + DRAINED_BYTES_MAX {
            break;
        }
        if count <= bytes_max {
            bytes.extend_from_slice(&piece);
        }
    }
    if count > bytes_max { Err(too_large(bytes_max)) } else { Ok(bytes) }
}

fn too_large(bytes_max: usize) -> Failure {
    let sentence = format!("a push has at most {bytes_max} bytes, which is a connection's send queue (--push-queue)");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}

/// Where pieces of a response go. Sending waits until the piece before was taken; an error: the reader is gone.
pub(super) type Pieces = mpsc::Sender<Bytes>;

/// A response of lines of JSON, and where they go. The place is given back when the response is over.
pub(super) fn lines(place: OwnedSemaphorePermit) -> (Response, Pieces) {
    let (pieces, receiver) = mpsc::channel(1);
    let mut response = Response::new(Body::new(Lines { receiver, _place: place }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    (response, pieces)
}

/// Adds a line to a piece.
pub(super) fn write_line(piece: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *piece, line).expect("a line has no map and a vector takes everything");
    piece.push(b'\n');
}

struct Lines {
    receiver: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.receiver.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// How long a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// How much of a body that is too large is read to be thrown away.
const DRAINED_BYTES_MAX: usize = 8 << 20;
