//! Calls on broadcasts: start one, see how it stands, cancel it.
//!
//! A broadcast is a job of the stack: it goes on after a restart, and reaches each connection once. Over several shards
//! it is one job of the same number in each. They take their parts first and begin then, so that where one has no room
//! nobody was pushed to, and where the process dies in between the next start takes the parts back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Of;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use crate::shard::{JobId, JobState, JobView};

use super::super::ask::{Ask, BroadcastAsk};
use super::super::share;
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
    let ticket = api.line.next_ticket();
    let broadcast = BroadcastAsk { ticket, bytes: bytes.into(), pace_per_s, prefix, expires_in_s };
    let job = match api.line.shards() {
        1 => api.line.ask(0, |reply| Ask::Broadcast { broadcast, reply }).await?.map_err(Failure::of_push)?,
        // Whoever asked may go away in the middle of it.
        _ => tokio::spawn(start_in_all(api, broadcast)).await.map_err(|_| Failure::stopped())??,
    };
    Ok(answer(StatusCode::ACCEPTED, &json!({ "job": job.0 })))
}

async fn start_in_all(api: Arc<Api>, broadcast: BroadcastAsk) -> Result<JobId, Failure> {
    let shards = api.line.shards();
    // One at a time: the first shard's number is free in the others, too.
    let _alone = api.broadcasts.lock().await;
    let mut id = None;
    for shard in 0..shards {
        let pace_per_s = share(broadcast.pace_per_s, shard, shards);
        let broadcast = BroadcastAsk { pace_per_s, ..broadcast.clone() };
        match api.line.ask(shard, |reply| Ask::HoldJob { broadcast, id, reply }).await? {
            Ok(job) => id = Some(job),
            Err(error) => {
                let taken = id.into_iter().flat_map(|job| (0..shard).map(move |shard| (shard, job)));
                for (shard, job) in taken {
                    api.line.ask(shard, |reply| Ask::CancelJob { job, reply }).await?;
                }
                return Err(Failure::of_push(error));
            }
        }
    }
    let job = id.ok_or_else(Failure::stopped)?;
    api.line.ask_all(|_, reply| Ask::ReleaseJob { job, reply }).await?;
    Ok(job)
}

/// `GET /jobs/{job}`
pub(super) async fn job(Of(api): Of<Arc<Api>>, uri: Uri, Segment(job): Segment) -> Result<Response, Failure> {
    Parameters::read(&uri, &[])?;
    let job = job_id(&job)?;
    let parts = api.line.ask_all(|_, reply| Ask::Job { job, reply }).await?;
    Ok(answer(StatusCode::OK, &job_value(&whole(parts).ok_or_else(|| unknown(job))?)))
}

/// `DELETE /jobs/{job}`
pub(super) async fn cancel(Of(api): Of<Arc<Api>>, uri: Uri, Segment(job): Segment) -> Result<Response, Failure> {
    Parameters::read(&uri, &[])?;
    let job = job_id(&job)?;
    let parts = api.line.ask_all(|_, reply| Ask::CancelJob { job, reply }).await?;
    Ok(answer(StatusCode::OK, &job_value(&whole(parts).ok_or_else(|| unknown(job))?)))
}

/// A job of which each shard has a part, as far as they remember it.
fn whole(parts: Vec<Option<JobView>>) -> Option<JobView> {
    parts.into_iter().flatten().reduce(|whole, part| {
        let JobView { id, state, pushed, refused, delivered, lost, cursor, total_slots } = part;
        let state = match (whole.state, state) {
            (JobState::Running, _) | (_, JobState::Running) => JobState::Running,
            (JobState::Cancelled, _) | (_, JobState::Cancelled) => JobState::Cancelled,
            (state, _) => state,
        };
        JobView {
            id,
            state,
            pushed: whole.pushed + pushed,
            refused: whole.refused + refused,
            delivered: whole.delivered + delivered,
            lost: whole.lost + lost,
            cursor: whole.cursor + cursor,
            total_slots: whole.total_slots + total_slots,
        }
    })
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
    json!({
        "job": view.id.0,
        "state": <&str>::from(view.state),
        "pushed": view.pushed,
        "refused": view.refused,
        "delivered": view.delivered,
        "lost": view.lost,
        "cursor": view.cursor,
        "total_slots": view.total_slots,
    })
}
