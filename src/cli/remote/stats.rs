//! `holdline stats`: the figures of a server.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{Remote, bytes_text, print, span_text};
use crate::cli::Outcome;
use crate::cli::progress::grouped;

/// The flags of `stats`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Show also how often each rule of the stack has decided.
    #[arg(long)]
    rules: bool,
}

const EXAMPLES: &str = "\
Examples:
    holdline stats --control /run/holdline.sock
    holdline stats --control /run/holdline.sock --rules
    holdline stats --control /run/holdline.sock --json | jq .connections.ESTABLISHED";

/// Shows them.
pub fn run(arguments: &Arguments) -> Outcome {
    let remote = &arguments.remote;
    let stats = remote.answered(remote.client()?.call(Method::GET, "/stats", Vec::new()))?.body;
    if !remote.json {
        let mut text = summary(&stats).join("\n") + "\n";
        if arguments.rules {
            text.push_str(&rules(&stats));
        }
        print(&text);
    }
    Ok(ExitCode::SUCCESS)
}

/// The figures in a few lines.
pub fn summary(stats: &Value) -> Vec<String> {
    let number = |value: &Value| grouped(value.as_u64().unwrap_or_default());
    let rate = |name: &str| grouped(stats["rates"][name].as_f64().unwrap_or_default().round() as u64);
    let us = |value: &Value| value.as_f64().map_or("-".to_owned(), |us| format!("{us:.0} us"));
    let (connections, pushes, rates) = (&stats["connections"], &stats["pushes"], "a second");
    let draining = if stats["draining"] == true { ", draining: new connections are refused" } else { "" };
    let mut lines = vec![
        format!("up          {}{draining}", span_text(stats["uptime_ms"].as_u64().unwrap_or_default())),
        format!(
            "connections {} ({}), {} opened and {} closed {rates}",
            number(&connections["total"]),
            by_state(connections),
            rate("opened_per_s"),
            rate("closed_per_s"),
        ),
        format!(
            "pushes      {} queued, {} delivered, {} refused, {} expired, {} undelivered",
            number(&pushes["queued"]),
            number(&pushes["delivered"]),
            number(&pushes["refused"]),
            number(&pushes["expired"]),
            number(&pushes["undelivered"]),
        ),
        format!("            {} pushed and {} delivered {rates}", rate("pushes_per_s"), rate("delivered_per_s")),
        format!(
            "delivery    median {}, 99th percentile {}",
            us(&stats["delivery_us"]["p50"]),
            us(&stats["delivery_us"]["p99"])
        ),
        format!(
            "worker      a step takes {}, 99th percentile {}",
            us(&stats["worker"]["step_us"]["p50"]),
            us(&stats["worker"]["step_us"]["p99"])
        ),
        format!(
            "frames      {} in and {} out {rates}, {} lost by the link",
            rate("frames_in_per_s"),
            rate("frames_out_per_s"),
            number(&stats["frames"]["lost"])
        ),
    ];
    for (name, arena) in stats["memory"].as_object().into_iter().flatten() {
        lines.push(format!(
            "memory      {name:<11} {:>11} of {:>11} records, {}",
            number(&arena["used"]),
            number(&arena["capacity"]),
            bytes_text(arena["used_bytes"].as_u64().unwrap_or_default()),
        ));
    }
    lines
}

fn by_state(connections: &Value) -> String {
    let states = connections.as_object().into_iter().flatten();
    let present = states.filter(|(name, count)| *name != "total" && count.as_u64() != Some(0));
    let texts: Vec<String> = present.map(|(name, count)| format!("{count} {name}")).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

/// Rules that have decided, the most frequent first.
fn rules(stats: &Value) -> String {
    let all = stats["rules"].as_object().into_iter().flatten();
    let mut present: Vec<(&String, u64)> =
        all.filter_map(|(name, count)| Some((name, count.as_u64()?))).filter(|(_, count)| *count > 0).collect();
    present.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(right.0)));
    present.iter().fold(String::new(), |mut text, (name, count)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "rule        {name:<28} {:>15}", grouped(*count));
        text
    })
}
