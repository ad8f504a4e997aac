//! What a load has found: a table for people, JSON for programs, and the verdict.

use std::fmt;

use holdline::shard::CloseReason;
use serde::Serialize;

use super::super::progress::grouped;
use super::Arguments;
use super::drive::Figures;

/// The JSON of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    clients: u32,
    opened: u32,
    failed: Vec<Ended>,
    unanswered: u32,
    open_per_s: f64,
    bytes_per_client: f64,
    ended_early: Vec<Ended>,
    closed: u32,
    not_closed: u32,
    messages: u64,
    echoed: u64,
    missing: u64,
    lost_with_their_connection: u64,
    not_sent_as_the_last_was_not_back: u64,
    wrong_bytes: u64,
    received_bytes: u64,
    wait_us: Option<Quantiles>,
    time_outs: u64,
    frames_lost: u64,
}

/// How many connections ended for a reason.
#[derive(Clone, Debug, Serialize)]
struct Ended {
    reason: String,
    count: u32,
}

/// From when a message was due until it was back, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    p9999: f64,
}

impl Report {
    /// From what was asked for and what was counted.
    pub fn new(arguments: &Arguments, figures: &Figures) -> Report {
        let tally = &figures.tally;
        let us = |share| tally.waits.quantile(share).map(|wait| wait.as_secs_f64() * 1e6);
        let wait_us = us(0.5).zip(us(0.99)).zip(us(0.9999));
        Report {
            clients: arguments.clients,
            opened: tally.opened,
            failed: reasons(&tally.failed),
            unanswered: arguments.clients - tally.opened - tally.failed.iter().map(|(_, count)| count).sum::<u32>(),
            open_per_s: (f64::from(tally.opened) / figures.opening.as_secs_f64()).round(),
            bytes_per_client: (figures.bytes_per_client * 10.0).round() / 10.0,
            ended_early: reasons(&tally.ended),
            closed: tally.closed,
            // One that closed of itself and then reset the connection was never told.
            not_closed: figures.told_to_close.saturating_sub(tally.closed),
            messages: tally.sent,
            echoed: tally.echoed,
            missing: figures.missing,
            lost_with_their_connection: tally.lost,
            not_sent_as_the_last_was_not_back: tally.skipped,
            wrong_bytes: tally.wrong_bytes,
            received_bytes: tally.received_bytes,
            wait_us: wait_us.map(|((p50, p99), p9999)| Quantiles { p50, p99, p9999 }),
            time_outs: figures.time_outs,
            frames_lost: figures.frames_lost,
        }
    }

    /// Whether nothing is missing or wrong.
    pub fn is_well(&self) -> bool {
        self.opened == self.clients
            && self.ended_early.is_empty()
            && self.not_closed == 0
            && self.missing == 0
            && self.lost_with_their_connection == 0
            && self.wrong_bytes == 0
    }
}

fn reasons(counts: &[(CloseReason, u32)]) -> Vec<Ended> {
    counts.iter().map(|&(reason, count)| Ended { reason: reason.to_string(), count }).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = |ended: &[Ended]| {
            let each: Vec<String> =
                ended.iter().map(|ended| format!("{} {}", grouped(ended.count.into()), ended.reason)).collect();
            if each.is_empty() { "0".to_owned() } else { each.join(", ") }
        };
        let rows = [
            ("connections", format!("{} of {}", grouped(self.opened.into()), grouped(self.clients.into()))),
            ("not opened", format!("{}, {} without an answer", reasons(&self.failed), grouped(self.unanswered.into()))),
            ("set-up rate", format!("{} connections/s", grouped(self.open_per_s as u64))),
            ("memory", format!("{:.1} bytes a client, by which this process grew", self.bytes_per_client)),
            ("ended early", reasons(&self.ended_early)),
            (
                "closed",
                format!("{}, {} without an answer", grouped(self.closed.into()), grouped(self.not_closed.into())),
            ),
            (
                "messages",
                format!(
                    "{} sent, {} back, {} missing, {} lost with their connection",
                    grouped(self.messages),
                    grouped(self.echoed),
                    grouped(self.missing),
                    grouped(self.lost_with_their_connection)
                ),
            ),
            ("not sent", format!("{}, as the last was not back", grouped(self.not_sent_as_the_last_was_not_back))),
            ("bytes", format!("{} received, {} wrong", grouped(self.received_bytes), grouped(self.wrong_bytes))),
        ];
        for (name, figure) in rows {
            writeln!(formatter, "{name:<17}{figure}")?;
        }
        if let Some(Quantiles { p50, p99, p9999 }) = self.wait_us {
            writeln!(formatter, "{:<17}p50 {p50:.0} us, p99 {p99:.0} us, p99.99 {p9999:.0} us", "due to back")?;
        }
        writeln!(
            formatter,
            "{:<17}{} time-outs, {} frames by the link",
            "lost on the way",
            grouped(self.time_outs),
            grouped(self.frames_lost)
        )
    }
}
