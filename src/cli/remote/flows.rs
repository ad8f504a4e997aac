//! `holdline flows`: the connections of a server.

use clap::Args;
use serde_json::Value;

use super::client::target;
use super::{Remote, span_text};
use crate::cli::Outcome;

/// The flags of `flows`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// List at most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on behind the connection with this id.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Only connections in this state, such as ESTABLISHED.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only connections of this name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  All connections, as a table:
    holdline flows --control /run/holdline.sock
  The ids of everybody called alice:
    holdline flows --control /run/holdline.sock --name alice --json | jq -r .id
  A page of a hundred, and the next one:
    holdline flows --control /run/holdline.sock --limit 100
    holdline flows --control /run/holdline.sock --limit 100 --after 0000000100000063";

/// Lists them.
pub fn run(arguments: &Arguments) -> Outcome {
    let parameters = [
        ("limit", arguments.limit.map(|limit| limit.to_string())),
        ("after", arguments.after.clone()),
        ("state", arguments.state.clone()),
        ("name", arguments.name.clone()),
    ];
    let head = row(["ID", "STATE", "REMOTE", "LOCAL", "OPEN", "IDLE", "RTT", "UNACKED", "NAME"]);
    arguments.remote.print_lines(&target("/flows", &parameters), &head, flow_row)
}

fn flow_row(flow: &Value) -> String {
    let text = |key: &str| flow[key].as_str().unwrap_or("-");
    let span = |key: &str| flow[key].as_u64().map_or("-".to_owned(), span_text);
    let rtt = flow["srtt_us"].as_u64().map_or("-".to_owned(), |us| format!("{:.1}ms", us as f64 / 1_000.0));
    let (open, idle, unacked) = (span("opened_ms_ago"), span("idle_ms"), flow["unacked"].to_string());
    row([text("id"), text("state"), text("remote"), text("local"), &open, &idle, &rtt, &unacked, text("name")])
}

fn row([id, state, remote, local, open, idle, rtt, unacked, name]: [&str; 9]) -> String {
    format!("{id:<16}  {state:<12} {remote:<21} {local:<21} {open:>7} {idle:>7} {rtt:>8} {unacked:>8}  {name}\n")
}
