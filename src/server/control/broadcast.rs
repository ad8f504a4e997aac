//! Calls on broadcasts: start one, see how it stands, cancel it.
//!
//! A broadcast is a job of the stack: it goes on after a restart, and reaches each connection once.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Of;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use crate::shard::{JobId, JobState, JobView};

use super::super::ask::{Ask, BroadcastAsk};
use super::Api;
use super::body;
use super::failure::{Failure, json as answer};
use super::parameters::{self, Parameters};
use super::push::idempotency_key;
use super::routes::Segment;

/// `POST /broadcast?pace=&name-prefix=&expires=`
pub(super) async fn start(
    Of(api): Of<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["pace", "name-prefix", "expires"])?;
    if idempotency_key(&headers)?.is_some() {
        return Err(Failure::bad("a broadcast takes no Idempotency-Key; ask GET /jobs/{job} how one stands"));
    }
    let pace_per_s = parameters.number_or_zero("pace")?;
    let expires_in_s = parameters.number_or_zero("expires")?;
    let prefix = parameters.text("name-prefix").filter(|prefix| !prefix.is_empty());
    let prefix = prefix.map(parameters::name).transpose()?.unwrap_or("").as_bytes().to_vec();
    let bytes = {
        let _place = api.bodies.acquire().await.map_err(|_| Failure::stopped())?;
        body::read(&headers, body, api.push_bytes_max).await?
    };
    let broadcast = BroadcastAsk { bytes, pace_per_s, prefix, expires_in_s };
    let ticket = api.line.next_ticket();
    let started = api.line.ask(|reply| Ask::Broadcast { broadcast, ticket, reply }).await?;
    let job = started.map_err(Failure::of_push)?;
    Ok(answer(StatusCode::ACCEPTED, &json!({ "job": job.0 })))
}

/// `GET /jobs/{job}`
pub(super) async fn job(Of(api): Of<Arc<Api>>, uri: Uri, Segment(job): Segment) -> Result<Response, Failure> {
    Parameters::read(&uri, &[])?;
    let job = job_id(&job)?;
    let view = api.line.ask(|reply| Ask::Job { job, reply }).await?;
    Ok(answer(StatusCode::OK, &job_value(&view.ok_or_else(|| unknown(job))?)))
}

/// `DELETE /jobs/{job}`
pub(super) async fn cancel(Of(api): Of<Arc<Api>>, uri: Uri, Segment(job): Segment) -> Result<Response, Failure> {
    Parameters::read(&uri, &[])?;
    let job = job_id(&job)?;
    let view = api.line.ask(|reply| Ask::CancelJob { job, reply }).await?;
    Ok(answer(StatusCode::OK, &job_value(&view.ok_or_else(|| unknown(job))?)))
}

fn job_id(text: &str) -> Result<JobId, Failure> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.map(JobId).ok_or_else(|| Failure::bad(format!("`{text}` is no job: a job is a decimal number")))
}

fn unknown(job: JobId) -> Failure {
    let sentence = format!("there is no job {}; only the latest 16 are remembered", job.0);
    Failure::new(StatusCode::NOT_FOUND, sentence)
}

fn job_value(view: &JobView) -> Value {
    let state = match view.state {
        JobState::Free => "free",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Cancelled => "cancelled",
    };
    json!({
        "job": view.id.0,
        "state": state,
        "pushed": view.pushed,
        "refused": view.refused,
        "delivered": view.delivered,
        "lost": view.lost,
        "cursor": view.cursor,
        "total_slots": view.total_slots,
    })
}
