//! Calls on shards: have one driven by another worker.

use std::sync::Arc;

use axum::extract::State as Of;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::json;

use super::super::ask::Ask;
use super::Api;
use super::failure::{Failure, json as answer};
use super::parameters::Parameters;
use super::routes::Segment;

/// `POST /shards/{shard}/move?worker=`; answered when the shard is there. No peer notices.
pub(super) async fn move_to(Of(api): Of<Arc<Api>>, uri: Uri, Segment(text): Segment) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["worker"])?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let shard: u8 = text.parse().ok().filter(|shard| is_plain && *shard < api.line.shards()).ok_or_else(|| {
        let sentence = format!("`{text}` is no shard; there are 0 to {}", api.line.shards() - 1);
        Failure::new(StatusCode::NOT_FOUND, sentence)
    })?;
    let last = api.line.workers() as u64 - 1;
    let worker = parameters.number("worker", 0..=last)?;
    let worker = worker.ok_or_else(|| Failure::bad(format!("`worker` says where to: 0 to {last}")))? as usize;
    api.line.ask(shard, |reply| Ask::Move { worker, reply }).await?;
    Ok(answer(StatusCode::OK, &json!({ "shard": shard, "worker": worker })))
}
