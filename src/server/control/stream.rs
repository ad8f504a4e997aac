//! The call that streams events.
//!
//! Comes in: a cursor, kinds, and how many lines are wanted. Goes out: JSON lines as they happen, until the reader
//! goes, has what it wanted, or the server ends.
//!
//! Invariant: a reader waits for itself only. The ring goes on without it, and tells it of the gap when it reads again.

use std::str::FromStr;
use std::sync::{Arc, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::extract::State as Of;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use strum::IntoEnumIterator;

use super::Api;
use super::body::{self, Pieces};
use super::events::{Cursor, Kind, Kinds, Ring};
use super::failure::Failure;
use super::parameters::Parameters;

/// `GET /events?after=&kinds=&limit=`
pub(super) async fn events(Of(api): Of<Arc<Api>>, uri: Uri) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["after", "kinds", "limit"])?;
    let kinds = parameters.text("kinds").map(read_kinds).transpose()?.unwrap_or(Kinds::ALL);
    let limit = parameters.number("limit", 1..=u64::MAX)?.unwrap_or(u64::MAX);
    let after = match parameters.text("after") {
        Some(text) => Cursor::from_str(text).map_err(|()| {
            Failure::bad(format!("after={text} is no cursor: a cursor is 1 to 16 hexadecimal digits, 0 the oldest"))
        })?,
        None => ring(&api).last(),
    };
    let place = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        let sentence = format!("{} readers of events are there already; end one", super::STREAMS_MAX);
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    })?;
    let (response, pieces) = body::lines(place);
    tokio::spawn(follow(api, after, kinds, limit, pieces));
    Ok(response)
}

fn read_kinds(text: &str) -> Result<Kinds, Failure> {
    let mut kinds = Vec::new();
    for word in text.split(',').map(str::trim) {
        kinds.push(Kind::from_str(word).map_err(|_| {
            let known: Vec<&str> = Kind::iter().map(Into::into).collect();
            Failure::bad(format!("kinds={text}: `{word}` is none of: {}", known.join(", ")))
        })?);
    }
    Ok(Kinds::of(kinds))
}

async fn follow(api: Arc<Api>, mut after: Cursor, kinds: Kinds, mut lines_left: u64, pieces: Pieces) {
    let mut changes = api.ring_changed.subscribe();
    while lines_left > 0 {
        changes.mark_unchanged();
        let mut lines = Vec::new();
        let (read_up_to, count) = ring(&api).read(after, kinds, lines_left, &mut lines);
        let has_moved = after != read_up_to;
        after = read_up_to;
        lines_left -= count;
        if !lines.is_empty() {
            if pieces.send(Bytes::from(lines)).await.is_err() {
                return;
            }
        } else if has_moved {
            // A long walk over kinds that are not wanted lets others have their turn.
            tokio::task::yield_now().await;
        } else {
            tokio::select! {
                () = pieces.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
        if api.has_ended() && after == ring(&api).last() {
            return;
        }
    }
}

/// A panic in another task leaves the ring whole: every change of it is one push or one pop.
pub(super) fn ring(api: &Api) -> MutexGuard<'_, Ring> {
    api.ring.lock().unwrap_or_else(PoisonError::into_inner)
}
