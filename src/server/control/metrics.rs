//! The figures of a server in the text format of Prometheus.
//!
//! Comes in: figures. Goes out: text. Histograms have a bucket for each doubling from a microsecond on.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType::{self, Counter, Gauge};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::shard::Rule;

use super::super::figures::Figures;
use super::super::histogram::Histogram;

pub(super) use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The text.
pub(super) fn text(figures: Figures, events_lost: u64) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("holdline");
    registry.register_collector(Box::new(Scrape { figures, events_lost }));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape {
    figures: Figures,
    events_lost: u64,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Scrape { figures, events_lost } = self;
        let (whole, worker) = (&figures.whole, &figures.worker);
        let (stats, told) = (&whole.stats, &whole.told);
        let states = whole.states.iter().map(|(state, count)| (state.to_string(), u64::from(*count)));
        family(&mut encoder, Gauge, ["connections", "Connections by state", "state"], states)?;
        let opened = [("opened", told.opened)];
        family(&mut encoder, Counter, ["handshakes", "Handshakes that were completed", "outcome"], opened)?;
        family(&mut encoder, Counter, ["closed", "Connections that ended, by reason", "reason"], told.closed())?;
        let pushes = [
            ("queued", figures.rule(Rule::PushQueued)),
            ("refused", figures.rule(Rule::PushRefused)),
            ("delivered", told.delivered),
            ("expired", told.expired),
            ("undelivered", told.undelivered),
        ];
        family(&mut encoder, Counter, ["pushes", "Pushes by what became of them", "outcome"], pushes)?;
        let rules = whole.rules.iter().map(|(rule, count)| (<&str>::from(*rule), *count));
        family(&mut encoder, Counter, ["decisions", "Decisions of the stack by rule", "rule"], rules)?;
        let frames = [("in", stats.frames_in), ("out", stats.frames_out), ("lost", worker.frames_lost)];
        family(&mut encoder, Counter, ["frames", "Frames taken in, made, and lost by the link", "direction"], frames)?;
        let link = worker.link.iter().map(|count| (count.name, count.value));
        family(
            &mut encoder,
            Counter,
            ["link", "What the link counts, frames of AF_XDP by what was made of them", "what"],
            link,
        )?;
        let handed = [("sent", worker.handed_over), ("lost", figures.lost.frames)];
        let help = "Frames that came to another worker than their shard's, and those that found no room there";
        family(&mut encoder, Counter, ["frames_handed_over", help, "outcome"], handed)?;
        let told = [("notices", figures.lost.notices), ("events", *events_lost)];
        family(&mut encoder, Counter, ["told_lost", "What was to be told and found no room", "what"], told)?;
        let batches = [("committed", stats.batches)];
        family(&mut encoder, Counter, ["batches", "Batches over the life of the state", "outcome"], batches)?;
        let arenas = || whole.memory.iter();
        let used = arenas().map(|arena| (arena.name, arena.used.saturating_mul(arena.record_bytes)));
        family(&mut encoder, Gauge, ["memory_used_bytes", "Memory in use by arena", "arena"], used)?;
        let capacity = arenas().map(|arena| (arena.name, arena.capacity.saturating_mul(arena.record_bytes)));
        family(&mut encoder, Gauge, ["memory_capacity_bytes", "Memory that an arena may use", "arena"], capacity)?;
        let draining = [("draining", u64::from(whole.is_draining))];
        family(&mut encoder, Gauge, ["refusing", "Whether new connections are refused", "why"], draining)?;
        let help = "Time from a push to its acknowledgment by the peer";
        histogram(&mut encoder, "push_delivery_seconds", help, &whole.delivery)?;
        let help = "Time of a pass of a worker that had something to do";
        histogram(&mut encoder, "worker_step_seconds", help, &worker.step)?;
        let seats = figures.shards.iter().map(|(shard, worker, _)| (shard.to_string(), *worker as u64));
        family(&mut encoder, Gauge, ["shard_worker", "The worker that drives a shard", "shard"], seats)
    }
}

/// A family of counters or gauges, told apart by one label.
fn family<L: AsRef<str>>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    [name, help, label]: [&str; 3],
    values: impl IntoIterator<Item = (L, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (text, value) in values {
        let labels = [(label, text.as_ref())];
        let encoder = family.encode_family(&labels)?;
        match kind {
            Counter => ConstCounter::new(value).encode(encoder)?,
            _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?,
        }
    }
    Ok(())
}

fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: &Histogram,
) -> Result<(), fmt::Error> {
    let mut buckets = Vec::with_capacity((EXPONENT_LAST - EXPONENT_FIRST) as usize + 2);
    let mut below = 0;
    for exponent in EXPONENT_FIRST..=EXPONENT_LAST {
        let up_to_here = values.shorter_than_power(exponent);
        buckets.push(((1u64 << exponent) as f64 / 1e9, up_to_here - below));
        below = up_to_here;
    }
    buckets.push((f64::INFINITY, values.count() - below));
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    family.encode_histogram::<NoLabelSet>(values.sum().as_secs_f64(), values.count(), &buckets, None)
}

/// The first bucket ends at 2^10 ns, about a microsecond.
const EXPONENT_FIRST: u32 = 10;

/// The last but one ends at 2^35 ns, about half a minute.
const EXPONENT_LAST: u32 = 35;
