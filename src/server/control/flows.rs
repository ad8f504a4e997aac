//! Calls on connections: list, look at, close, pause, resume, drain.
//!
//! Comes in: requests. Goes out: connections as JSON, page by page and shard by shard: between two pages a worker does
//! its other work, and a listing is no snapshot. A connection that is open all the while is listed once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State as Of;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use strum::IntoEnumIterator;

use crate::shard::{CloseHow, FlowId, State};

use super::super::ask::{Ask, FlowAnswer};
use super::super::desk::PAGE_FLOWS_MAX;
use super::super::seat::AfterDrain;
use super::super::share;
use super::Api;
use super::body::{self, Pieces};
use super::failure::{Failure, json as answer};
use super::parameters::{self, Parameters};
use super::routes::Segment;

/// A connection as readers see it.
#[derive(Serialize)]
struct FlowLine {
    id: String,
    local: String,
    remote: String,
    state: String,
    name: Option<String>,
    opened_ms_ago: u64,
    idle_ms: u64,
    srtt_us: Option<u32>,
    unacked: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
}

impl FlowLine {
    fn new(flow: &FlowAnswer) -> FlowLine {
        let view = &flow.view;
        FlowLine {
            id: view.id.to_string(),
            local: view.local.to_string(),
            remote: view.remote.to_string(),
            state: view.state.to_string(),
            name: flow.name.as_deref().map(|name| String::from_utf8_lossy(name).into_owned()),
            opened_ms_ago: u64::from(view.opened_s_ago) * 1_000,
            idle_ms: u64::from(view.idle_s) * 1_000,
            srtt_us: view.srtt_us,
            unacked: view.unacked_bytes,
            paused: None,
        }
    }
}

/// What a listing is of.
struct Listing {
    lines_left: usize,
    /// The shard and the slot that it begins with.
    from: (u8, u32),
    state: Option<State>,
    name: Option<Box<[u8]>>,
}

/// `GET /flows?limit=&after=&state=&name=`
pub(super) async fn list(Of(api): Of<Arc<Api>>, uri: Uri) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["limit", "after", "state", "name"])?;
    let limit = parameters.number("limit", 1..=u64::from(u32::MAX))?;
    let after = parameters.text("after").map(parameters::flow_id).transpose()?;
    let states: Vec<(String, State)> =
        State::iter().filter(|state| *state != State::Free).map(|state| (state.to_string(), state)).collect();
    let states: Vec<(&str, State)> = states.iter().map(|(text, state)| (text.as_str(), *state)).collect();
    let listing = Listing {
        lines_left: limit.map_or(usize::MAX, |limit| limit as usize),
        from: after.map_or((0, 0), |id| (id.shard(), id.slot().saturating_add(1))),
        state: parameters.word("state", &states)?,
        name: parameters.text("name").map(parameters::name).transpose()?.map(|name| name.as_bytes().into()),
    };
    let place = Arc::clone(&api.listings).acquire_owned().await.map_err(|_| Failure::stopped())?;
    let (response, pieces) = body::lines(place);
    tokio::spawn(async move {
        // A listing whose server stops or whose reader is gone ends where it is.
        let _ = match listing.name {
            Some(_) => list_named(&api, listing, &pieces).await,
            None => list_pages(&api, listing, &pieces).await,
        };
    });
    Ok(response)
}

async fn list_pages(api: &Api, mut listing: Listing, pieces: &Pieces) -> Result<(), Failure> {
    let (mut shard, mut from_slot) = listing.from;
    while listing.lines_left > 0 && shard < api.line.shards() {
        let mut lines = Vec::new();
        while listing.lines_left > 0 && shard < api.line.shards() && lines.len() < PIECE_BYTES {
            let (state, flows_max) = (listing.state, listing.lines_left.min(PAGE_FLOWS_MAX));
            let page = api.line.ask(shard, |reply| Ask::Page { from_slot, state, flows_max, reply }).await?;
            page.flows.iter().for_each(|flow| body::write_line(&mut lines, &FlowLine::new(flow)));
            listing.lines_left -= page.flows.len();
            debug_assert!(page.next_slot.is_none_or(|next| next > from_slot), "a page goes on");
            (shard, from_slot) = page.next_slot.map_or((shard + 1, 0), |next_slot| (shard, next_slot));
        }
        if !lines.is_empty() && pieces.send(Bytes::from(lines)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn list_named(api: &Api, listing: Listing, pieces: &Pieces) -> Result<(), Failure> {
    let name = listing.name.unwrap_or_default();
    let named = api.line.ask_all(|_, reply| Ask::Named { name: name.clone(), reply }).await?;
    let mut flows: Vec<FlowId> = named.into_iter().flatten().collect();
    let place = |flow: &FlowId| (flow.shard(), flow.slot());
    flows.sort_by_key(place);
    let mut lines = Vec::new();
    let mut lines_left = listing.lines_left;
    for flow in flows.into_iter().filter(|flow| place(flow) >= listing.from) {
        // One that has ended in between is not listed.
        let Ok(found) = api.line.ask(flow.shard(), |reply| Ask::Flow { flow, reply }).await? else { continue };
        if listing.state.is_none_or(|state| state == found.view.state) && lines_left > 0 {
            body::write_line(&mut lines, &FlowLine::new(&found));
            lines_left -= 1;
        }
    }
    // A reader that is gone wants nothing.
    let _ = pieces.send(Bytes::from(lines)).await;
    Ok(())
}

/// `GET /flows/{id}`
pub(super) async fn one(Of(api): Of<Arc<Api>>, uri: Uri, Segment(id): Segment) -> Result<Response, Failure> {
    Parameters::read(&uri, &[])?;
    let flow = parameters::flow_id(&id)?;
    let found = api.line.ask(flow.shard(), |reply| Ask::Flow { flow, reply }).await?;
    let found = found.map_err(|error| Failure::of_flow(error, flow))?;
    let line = FlowLine { paused: Some(found.view.is_paused), ..FlowLine::new(&found) };
    Ok(answer(StatusCode::OK, &json!(line)))
}

/// `DELETE /flows/{id}?how=close|abort`
pub(super) async fn close(Of(api): Of<Arc<Api>>, uri: Uri, Segment(id): Segment) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["how"])?;
    let flow = parameters::flow_id(&id)?;
    let words = [("close", CloseHow::Fin), ("abort", CloseHow::Reset)];
    let how = parameters.word("how", &words)?.unwrap_or(CloseHow::Fin);
    let closed = api.line.ask(flow.shard(), |reply| Ask::Close { flow, how, reply }).await?;
    closed.map_err(|error| Failure::of_flow(error, flow))?;
    let word = words.iter().find(|(_, known)| *known == how).map_or("", |(word, _)| *word);
    Ok(answer(StatusCode::OK, &json!({ "id": flow.to_string(), "how": word })))
}

/// `POST /flows/{id}/pause`
pub(super) async fn pause(Of(api): Of<Arc<Api>>, uri: Uri, Segment(id): Segment) -> Result<Response, Failure> {
    set_paused(&api, &uri, &id, true).await
}

/// `POST /flows/{id}/resume`
pub(super) async fn resume(Of(api): Of<Arc<Api>>, uri: Uri, Segment(id): Segment) -> Result<Response, Failure> {
    set_paused(&api, &uri, &id, false).await
}

async fn set_paused(api: &Api, uri: &Uri, id: &str, is_paused: bool) -> Result<Response, Failure> {
    Parameters::read(uri, &[])?;
    let flow: FlowId = parameters::flow_id(id)?;
    let done = api.line.ask(flow.shard(), |reply| Ask::Pause { flow, is_paused, reply }).await?;
    done.map_err(|error| Failure::of_flow(error, flow))?;
    Ok(answer(StatusCode::OK, &json!({ "id": flow.to_string(), "paused": is_paused })))
}

/// `POST /drain?rate=`
pub(super) async fn drain(Of(api): Of<Arc<Api>>, uri: Uri) -> Result<Response, Failure> {
    let parameters = Parameters::read(&uri, &["rate"])?;
    let rate_per_s = match parameters.number_or_zero("rate")? {
        0 => api.drain_rate_per_s,
        rate => rate,
    };
    let drain = |shard, reply| {
        let rate_per_s = share(rate_per_s, shard, api.line.shards());
        Ask::Drain { rate_per_s, bound: Duration::MAX, after: AfterDrain::Stay, reply }
    };
    let connections: u32 = api.line.ask_all(drain).await?.into_iter().sum();
    Ok(answer(StatusCode::ACCEPTED, &json!({ "connections": connections, "rate": rate_per_s })))
}

/// Where a piece of a listing ends, in bytes.
const PIECE_BYTES: usize = 16 << 10;
