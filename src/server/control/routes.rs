//! The table of calls, and what is answered where no call fits.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};

use super::failure::Failure;
use super::{Api, broadcast, figures, flows, push, shards, stream};

/// Every call of the control API.
pub(super) fn control(api: Arc<Api>) -> Router {
    Router::new()
        .route("/stats", get(figures::stats))
        .route("/metrics", get(figures::metrics))
        .route("/flows", get(flows::list))
        .route("/flows/{id}", get(flows::one).delete(flows::close))
        .route("/flows/{id}/push", post(push::to_flow))
        .route("/flows/{id}/pause", post(flows::pause))
        .route("/flows/{id}/resume", post(flows::resume))
        .route("/names/{name}/push", post(push::to_name))
        .route("/broadcast", post(broadcast::start))
        .route("/jobs/{job}", get(broadcast::job).delete(broadcast::cancel))
        .route("/drain", post(flows::drain))
        .route("/shards/{shard}/move", post(shards::move_to))
        .route("/events", get(stream::events))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

/// The one call of the metrics port.
pub(super) fn metrics_only(api: Arc<Api>) -> Router {
    Router::new()
        .route("/metrics", get(figures::metrics))
        .fallback(only_metrics)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

async fn no_such_path(uri: Uri) -> Failure {
    let sentence = format!(
        "there is no {}; there are /stats, /metrics, /flows, /flows/ID, /flows/ID/push, /flows/ID/pause, \
         /flows/ID/resume, /names/NAME/push, /broadcast, /jobs/JOB, /drain, /shards/SHARD/move and /events",
        uri.path()
    );
    Failure::new(StatusCode::NOT_FOUND, sentence)
}

async fn only_metrics(uri: Uri) -> Failure {
    let sentence = format!("there is no {} here; this port has /metrics only", uri.path());
    Failure::new(StatusCode::NOT_FOUND, sentence)
}

async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let sentence = format!("{} does not take {method}; the header Allow says what it takes", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}

/// The one variable part of a path, decoded.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segment, Failure> {
        let found = Path::<String>::from_request_parts(parts, state).await;
        found.map(|Path(segment)| Segment(segment)).map_err(|error| {
            Failure::bad(format!("the path {} cannot be read: {}", parts.uri.path(), error.body_text()))
        })
    }
}
