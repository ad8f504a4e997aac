//! Calls that push to connections by id and by name.
//!
//! Comes in: the bytes, and the terms: an idempotency key, an expiry, whether the delivery is waited for. Goes out: the
//! ticket once the push is committed, or how it ended. `delivered` means that the TCP endpoint at the other end of the
//! connection has acknowledged the last byte; that may be a proxy.
//!
//! Invariant: an idempotency key counts for each connection by itself, so that a push by name that is repeated reaches
//! each connection of that name once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State as Of;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::shard::{FlowId, Ticket};

use super::super::ask::{Ask, Outcome};
use super::Api;
use super::body;
use super::events::ticket_text;
use super::failure::{Failure, json as answer};
use super::line::{PushTerms, Queued};
use super::parameters::{self, Parameters};
use super::routes::Segment;

/// What a call to push says beside its bytes.
struct Terms {
    push: PushTerms,
    until: Instant,
}

impl Terms {
    fn read(uri: &Uri, headers: &HeaderMap) -> Result<Terms, Failure> {
        let parameters = Parameters::read(uri, &["expires", "wait", "timeout"])?;
        let is_awaited = parameters.word("wait", &[("delivered", ())])?.is_some();
        let timeout_s = parameters.number("timeout", 1..=TIMEOUT_S_MAX)?;
        if timeout_s.is_some() && !is_awaited {
            return Err(Failure::bad("`timeout` says how long to wait, and needs `wait=delivered` beside it"));
        }
        let push = PushTerms {
            key: idempotency_key(headers)?,
            expires_in_s: parameters.number_or_zero("expires")?,
            is_awaited,
        };
        Ok(Terms { push, until: Instant::now() + Duration::from_secs(timeout_s.unwrap_or(TIMEOUT_S)) })
    }
}

/// The value of the header `Idempotency-Key`, if there is one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Box<[u8]>>, Failure> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::bad("there is more than one Idempotency-Key"));
    }
    if !(1..=KEY_BYTES_MAX).contains(&value.len()) {
        return Err(Failure::bad(format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} bytes, not {}", value.len())));
    }
    Ok(Some(value.as_bytes().into()))
}

/// `POST /flows/{id}/push`
pub(super) async fn to_flow(
    Of(api): Of<Arc<Api>>,
    uri: Uri,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let flow = parameters::flow_id(&id)?;
    let terms = Terms::read(&uri, &headers)?;
    let bytes = read(&api, &headers, body).await?;
    let (status, body) = settle(push(&api, flow, &bytes, &terms).await, terms.until).await?;
    Ok(answer(status, &Value::Object(body)))
}

/// `POST /names/{name}/push`: 202, or 200 where all are delivered. Where every connection failed the answer is the
/// first one's failure, where some did they say so in the list.
pub(super) async fn to_name(
    Of(api): Of<Arc<Api>>,
    uri: Uri,
    Segment(name): Segment,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let name = parameters::name(&name)?;
    let terms = Terms::read(&uri, &headers)?;
    let bytes = read(&api, &headers, body).await?;
    let named = api.line.ask_all(|_, reply| Ask::Named { name: name.as_bytes().into(), reply }).await?;
    let flows: Vec<FlowId> = named.into_iter().flatten().collect();
    if flows.is_empty() {
        let sentence = format!("no connection has the name `{name}`; with --service names clients say theirs");
        return Err(Failure::new(StatusCode::NOT_FOUND, sentence));
    }
    let mut queued = Vec::with_capacity(flows.len());
    for flow in flows {
        queued.push((flow, push(&api, flow, &bytes, &terms).await));
    }
    let mut answers = Vec::with_capacity(queued.len());
    for (flow, queued) in queued {
        let settled = settle(queued, terms.until).await;
        let (status, body) = settled.unwrap_or_else(|failure| (failure.status(), failure.into_body()));
        answers.push((flow.to_string(), status, body));
    }
    let first_failed = answers.iter().find(|(_, status, _)| !status.is_success());
    let has_done_any = answers.iter().any(|(_, status, _)| status.is_success());
    let (status, mut whole) = match first_failed {
        Some((id, status, body)) if terms.push.is_awaited || !has_done_any => {
            (*status, body.clone().into_iter().chain([("id".to_owned(), id.clone().into())]).collect())
        }
        _ if terms.push.is_awaited => (StatusCode::OK, Map::from_iter([("outcome".to_owned(), "delivered".into())])),
        _ => (StatusCode::ACCEPTED, Map::new()),
    };
    if let Some(ticket) = answers.iter().find_map(|(_, _, body)| body.get("ticket")) {
        whole.insert("ticket".to_owned(), ticket.clone());
    }
    let with_id = |(id, _, body): (String, _, Map<String, Value>)| -> Value {
        [("id".to_owned(), Value::String(id))].into_iter().chain(body).collect()
    };
    whole.insert("pushes".to_owned(), answers.into_iter().map(with_id).collect());
    Ok(answer(status, &Value::Object(whole)))
}

/// What is answered to a push, once its end is known where that is awaited.
async fn settle(queued: Result<Queued, Failure>, until: Instant) -> Result<(StatusCode, Map<String, Value>), Failure> {
    let Queued { ticket, ended } = queued?;
    let mut body = Map::from_iter([("ticket".to_owned(), Value::String(ticket_text(ticket)))]);
    let Some(ended) = ended else { return Ok((StatusCode::ACCEPTED, body)) };
    wait(ticket, ended, until).await?;
    body.insert("outcome".to_owned(), "delivered".into());
    Ok((StatusCode::OK, body))
}

/// The bytes of a push. Few bodies are read at the same time, so what they take together is bounded.
async fn read(api: &Api, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Failure> {
    let _place = api.bodies.acquire().await.map_err(|_| Failure::stopped())?;
    let bytes = body::read(headers, body, api.push_bytes_max).await?;
    if bytes.is_empty() {
        return Err(Failure::bad("a push has at least one byte; the body of the request is empty"));
    }
    Ok(bytes)
}

async fn push(api: &Api, flow: FlowId, bytes: &[u8], terms: &Terms) -> Result<Queued, Failure> {
    let pushed = api.line.push(flow, bytes, terms.push.clone()).await;
    pushed.map_err(|error| error.map_or_else(Failure::stopped, |error| Failure::of_flow(error, flow)))
}

/// Waits for the end of a push, which may be a failure.
async fn wait(ticket: Ticket, ended: oneshot::Receiver<Outcome>, until: Instant) -> Result<(), Failure> {
    let failure = |status, outcome: &str, sentence: &str| {
        Failure::new(status, sentence).with("ticket", ticket_text(ticket)).with("outcome", outcome)
    };
    match timeout_at(until, ended).await {
        Ok(Ok(Outcome::Delivered)) => Ok(()),
        Ok(Ok(Outcome::Expired)) => {
            Err(failure(StatusCode::GONE, "expired", "the push expired before its first byte was sent, and is dropped")
                .with("acked_bytes", 0))
        }
        Ok(Ok(Outcome::Undelivered { acked_bytes })) => Err(failure(
            StatusCode::GONE,
            "undelivered",
            "the connection ended before all of the push was acknowledged",
        )
        .with("acked_bytes", acked_bytes)),
        Ok(Ok(Outcome::Forgotten)) => Err(failure(
            StatusCode::GONE,
            "unknown",
            "the connection is gone, and how this push of an earlier start ended is not remembered",
        )),
        Ok(Err(_)) => Err(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "queued",
            "the push is queued, but the server stops or too many wait for receipts; its event will tell",
        )),
        Err(_) => Err(failure(
            StatusCode::GATEWAY_TIMEOUT,
            "queued",
            "the push is not delivered yet; it stays queued, and its event will tell",
        )),
    }
}

/// How long a delivery is waited for unless told otherwise, in seconds.
const TIMEOUT_S: u64 = 30;

/// The longest that it is waited for, in seconds.
const TIMEOUT_S_MAX: u64 = 3_600;

/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;
