//! A call that failed: its status, one sentence that names what is wrong, and what a script may want to know beside it.
//!
//! Comes in: what went wrong. Goes out: a response whose body is `{"error": sentence, ...}`.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::shard::{FlowId, PushError};

/// See the module.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: Map<String, Value>,
}

impl Failure {
    /// With this sentence.
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Failure {
        Failure { status, body: Map::from_iter([("error".to_owned(), Value::String(sentence.into()))]) }
    }

    /// 400.
    pub(super) fn bad(sentence: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// The worker has ended, or never answers again.
    pub(super) fn stopped() -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping and takes no more calls")
    }

    /// What the stack says to an operation on a connection.
    pub(super) fn of_flow(error: PushError, flow: FlowId) -> Failure {
        match error {
            PushError::Unknown => Failure::new(StatusCode::NOT_FOUND, format!("no connection ever had the id {flow}")),
            PushError::Gone => {
                let sentence =
                    format!("the connection {flow} is closed or closing; its id never comes to mean another");
                Failure::new(StatusCode::GONE, sentence).with("acked_bytes", 0)
            }
            other => Failure::of_push(other),
        }
    }

    /// What the stack says to bytes.
    pub(super) fn of_push(error: PushError) -> Failure {
        let (status, advice) = match error {
            PushError::Unknown => (StatusCode::NOT_FOUND, ""),
            PushError::Gone => (StatusCode::GONE, ""),
            PushError::Empty => (StatusCode::BAD_REQUEST, "; the body of the request is empty"),
            PushError::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "; see --push-queue"),
            PushError::FlowFull => (StatusCode::TOO_MANY_REQUESTS, "; try again when something was delivered"),
            PushError::ShardFull => (StatusCode::SERVICE_UNAVAILABLE, "; try again later"),
        };
        Failure::new(status, format!("{error}{advice}"))
    }

    /// Says one thing more.
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Failure {
        self.body.insert(key.to_owned(), value.into());
        self
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body, for a list in which others did not fail.
    pub(super) fn into_body(self) -> Map<String, Value> {
        self.body
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &Value::Object(self.body));
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A response of one line of JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
