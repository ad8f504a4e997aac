//! Calls for figures: `/stats` as JSON, `/metrics` for Prometheus.
//!
//! Rates are over the time since an earlier call for figures, at least a second ago; the first call's are over the time
//! since the start. Nothing is sampled while nobody asks, so that an idle worker stays asleep.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State as Of;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::shard::Rule;

use super::super::figures::Figures;
use super::super::histogram::Histogram;
use super::Api;
use super::failure::{Failure, json as answer};
use super::metrics;
use super::parameters::Parameters;
use super::stream::ring;

/// What rates are made of, and when it was so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    at: Instant,
    counts: [u64; RATES.len()],
}

/// What there are rates of.
const RATES: [&str; 6] = ["opened", "closed", "pushes", "delivered", "frames_in", "frames_out"];

impl Sample {
    fn of(figures: &Figures) -> Sample {
        let (told, stats) = (&figures.whole.told, &figures.whole.stats);
        let closed = told.closed.iter().sum();
        let counts =
            [told.opened, closed, figures.rule(Rule::PushQueued), told.delivered, stats.frames_in, stats.frames_out];
        Sample { at: Instant::now(), counts }
    }
}

/// The samples of the last calls.
#[derive(Debug)]
pub(super) struct Rates(VecDeque<Sample>);

impl Rates {
    pub(super) fn new() -> Rates {
        Rates(VecDeque::from([Sample { at: Instant::now(), counts: [0; RATES.len()] }]))
    }

    fn per_s(&mut self, now: Sample) -> Map<String, Value> {
        while self.0.len() > 1 && self.0.get(1).is_some_and(|sample| now.at - sample.at >= RATE_INTERVAL) {
            self.0.pop_front();
        }
        let earlier = self.0.front().copied().unwrap_or(now);
        let seconds = (now.at - earlier.at).as_secs_f64().max(0.001);
        if self.0.back().is_none_or(|latest| now.at - latest.at >= RATE_INTERVAL / 2) {
            self.0.push_back(now);
        }
        let pairs = RATES.iter().zip(now.counts.iter().zip(earlier.counts));
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds * 10.0).round() / 10.0;
        pairs.map(|(name, (now, then))| (format!("{name}_per_s"), rate(*now, then).into())).collect()
    }
}

/// `GET /stats`
pub(super) async fn stats(Of(api): Of<Arc<Api>>, uri: Uri) -> Result<Response, Failure> {
    Parameters::read(&uri, &[])?;
    let figures = api.line.figures().await?;
    let rates = api.rates.lock().unwrap_or_else(PoisonError::into_inner).per_s(Sample::of(&figures));
    let (last, kept, lost) = {
        let ring = ring(&api);
        (ring.last().to_string(), ring.kept(), ring.lost())
    };
    let (whole, told, worker) = (&figures.whole, &figures.whole.told, &figures.worker);
    let stats = json!({
        "uptime_ms": u64::try_from(api.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "draining": whole.is_draining,
        "connections": connections(&figures),
        "closed": told.closed()
            .map(|(reason, count)| (reason.to_owned(), count.into())).collect::<Map<String, Value>>(),
        "pushes": {
            "queued": figures.rule(Rule::PushQueued), "refused": figures.rule(Rule::PushRefused),
            "delivered": told.delivered,
            "expired": told.expired, "undelivered": told.undelivered,
        },
        "rates": rates,
        "memory": whole.memory.iter().map(|arena| (arena.name.to_owned(), json!({
            "used": arena.used, "capacity": arena.capacity, "record_bytes": arena.record_bytes,
            "used_bytes": arena.used.saturating_mul(arena.record_bytes),
        }))).collect::<Map<String, Value>>(),
        "rules": whole.rules.iter()
            .map(|(rule, count)| (<&str>::from(*rule).to_owned(), (*count).into())).collect::<Map<String, Value>>(),
        "frames": {
            "in": whole.stats.frames_in, "out": whole.stats.frames_out, "lost": worker.frames_lost,
            "handed_over": worker.handed_over, "handed_over_lost": figures.lost.frames,
        },
        "link": worker.link.iter()
            .map(|count| (count.name.to_owned(), count.value.into())).collect::<Map<String, Value>>(),
        "batches": whole.stats.batches,
        "delivery_us": quantiles(&whole.delivery),
        "worker": { "passes": worker.passes, "step_us": quantiles(&worker.step) },
        "workers": figures.workers.iter().map(|worker| json!({
            "worker": worker.worker, "passes": worker.passes, "frames_lost": worker.frames_lost,
            "handed_over": worker.handed_over, "step_us": quantiles(&worker.step),
        })).collect::<Vec<Value>>(),
        "shards": figures.shards.iter().map(|(shard, worker, connections)| json!({
            "shard": shard, "worker": worker, "connections": connections,
        })).collect::<Vec<Value>>(),
        "events": { "cursor": last, "kept": kept, "lost": lost, "notices_lost": figures.lost.notices },
    });
    Ok(answer(StatusCode::OK, &stats))
}

fn connections(figures: &Figures) -> Value {
    let mut by_state: Map<String, Value> =
        figures.whole.states.iter().map(|(state, count)| (state.to_string(), (*count).into())).collect();
    by_state.insert("total".to_owned(), figures.whole.stats.flows.into());
    Value::Object(by_state)
}

fn quantiles(histogram: &Histogram) -> Value {
    let us = |share| histogram.quantile(share).map(|duration| duration.as_nanos() as f64 / 1_000.0);
    json!({ "count": histogram.count(), "p50": us(0.5), "p99": us(0.99), "max": us(1.0) })
}

/// `GET /metrics`
pub(super) async fn metrics(Of(api): Of<Arc<Api>>, uri: Uri) -> Result<Response, Failure> {
    Parameters::read(&uri, &[])?;
    let figures = api.line.figures().await?;
    let text = metrics::text(figures, ring(&api).lost()).map_err(|error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}"))
    })?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(response)
}

/// What rates are over, at least.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
