//! `holdline events`: what happens on a server, as it happens.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::Value;

use super::Remote;
use super::client::target;
use crate::cli::Outcome;

/// The flags of `events`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Begin behind this cursor; 0 is the oldest event that is kept. From now on, if it is not given.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Only these kinds, separated by commas: opened, received, delivered, undelivered, expired, peer-closed, urgent,
    /// soft-error, closed.
    #[arg(long, value_name = "KINDS")]
    kinds: Option<String>,
    /// End after so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

const EXAMPLES: &str = "\
A line `gap` says that events were lost: this reader was too slow, or the server lost count.

Examples:
  Everything from now on:
    holdline events --control /run/holdline.sock
  Who leaves, and why, as JSON, going on where one stopped:
    holdline events --control /run/holdline.sock --kinds closed --after 000010000000002a --json";

/// Follows them.
pub fn run(arguments: &Arguments) -> Outcome {
    let parameters = [
        ("after", arguments.after.clone()),
        ("kinds", arguments.kinds.clone()),
        ("limit", arguments.limit.map(|limit| limit.to_string())),
    ];
    arguments.remote.print_lines(&target("/events", &parameters), "", said)
}

fn said(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-");
    let mut line = format!("{}  {:<11}", text("cursor"), text("kind"));
    if let Some(ms) = event["time_ms"].as_u64() {
        let s = ms / 1_000 % 86_400;
        line.insert_str(0, &format!("{:02}:{:02}:{:02}.{:03}Z  ", s / 3_600, s / 60 % 60, s % 60, ms % 1_000));
    }
    if event["id"].is_string() {
        line.push_str(&format!(" {}", text("id")));
    }
    let rest = match text("kind") {
        "opened" => format!("from {} to {}", text("remote"), text("local")),
        "received" => format!("at {}: {}", event["offset"], shown(text("base64"))),
        "delivered" | "expired" => format!("ticket {}", text("ticket")),
        "undelivered" => format!("ticket {}, {} bytes were acknowledged", text("ticket"), event["acked_bytes"]),
        "closed" => text("reason").to_owned(),
        "gap" => {
            event["lost"].as_u64().map_or("events were lost".to_owned(), |lost| format!("{lost} events were lost"))
        }
        _ => String::new(),
    };
    // Writing to a string does not fail.
    let _ = writeln!(line, " {rest}");
    line
}

/// Received bytes as text, what is no text escaped, cut where it is long.
fn shown(base64: &str) -> String {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more =
        if cut.len() < bytes.len() { format!(" (and {} bytes)", bytes.len() - cut.len()) } else { String::new() };
    format!("\"{}\"{more}", cut.escape_ascii())
}

/// How much of received bytes is shown.
const SHOWN_BYTES: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = serde_json::json!({
            "cursor": "0000100000000001", "time_ms": 3_723_004, "kind": "received",
            "id": "0000000100000002", "offset": 5, "base64": "aGkK",
        });
        let line = said(&event);
        assert_eq!(line, "01:02:03.004Z  0000100000000001  received    0000000100000002 at 5: \"hi\\n\"\n");
        let gap = serde_json::json!({ "cursor": "0000100000000009", "kind": "gap", "lost": 8 });
        assert!(said(&gap).ends_with("8 events were lost\n"));
        assert_eq!(shown(&STANDARD.encode([b'a'; 70])), format!("\"{}\" (and 10 bytes)", "a".repeat(60)));
    }
}
