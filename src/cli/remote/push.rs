//! `holdline push`: bytes to one connection, or to everybody of a name.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::client::{encoded, target};
use super::payload::Payload;
use super::{Remote, print};
use crate::cli::Outcome;

/// The flags of `push`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[group(id = "receiver", required = true, multiple = false, args = ["to", "flow"])]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// Everybody of this name, with `serve --service names`.
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// The connection with this id; `holdline flows` lists them.
    #[arg(long, value_name = "ID")]
    flow: Option<String>,
    #[command(flatten)]
    payload: Payload,
    /// Wait until the peer's TCP has acknowledged the last byte. That may be the TCP of a proxy.
    #[arg(long)]
    wait: bool,
    /// How long to wait; the push stays queued afterwards.
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
    /// Drop the push if its first byte was not sent after so long.
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u32>,
    /// A repeat with the same key to the same connection is delivered once, also when the server was killed in between.
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  To a name, and wait for the receipt:
    holdline push --control /run/holdline.sock --to alice --wait 'hello'
  To a connection, from a file:
    holdline push --control /run/holdline.sock --flow 0000000100000002 --file message.bin
  From standard input; safe to repeat; dropped if it cannot be sent within a minute:
    date | holdline push --control /run/holdline.sock --to alice --key order-17 --expires 60";

/// Pushes.
pub fn run(arguments: &Arguments) -> Outcome {
    let path = match (&arguments.to, &arguments.flow) {
        (Some(name), _) => format!("/names/{}/push", encoded(name)),
        (None, flow) => format!("/flows/{}/push", encoded(flow.as_deref().unwrap_or_default())),
    };
    let parameters = [
        ("expires", arguments.expires.map(|seconds| seconds.to_string())),
        ("wait", arguments.wait.then(|| "delivered".to_owned())),
        ("timeout", arguments.timeout.map(|seconds| seconds.to_string())),
    ];
    let bytes = arguments.payload.read()?;
    let called = arguments.remote.client()?.call_with_key(
        Method::POST,
        &target(&path, &parameters),
        arguments.key.as_deref(),
        bytes,
    );
    let answer = arguments.remote.answered(called)?;
    if !arguments.remote.json {
        print(&said(&answer.body));
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each connection that was pushed to.
fn said(body: &Value) -> String {
    let one = std::slice::from_ref(body);
    let pushes = body["pushes"].as_array().map_or(one, Vec::as_slice);
    let line = |push: &Value| {
        let flow = push["id"].as_str().map(|id| format!(" to {id}")).unwrap_or_default();
        match (push["ticket"].as_str(), push["outcome"].as_str(), push["error"].as_str()) {
            (_, _, Some(error)) => format!("refused{flow}: {error}\n"),
            (ticket, outcome, None) => {
                format!("{}{flow}, ticket {}\n", outcome.unwrap_or("queued"), ticket.unwrap_or("-"))
            }
        }
    };
    pushes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_its_line() {
        let one = serde_json::json!({ "ticket": "8001000000000001" });
        assert_eq!(said(&one), "queued, ticket 8001000000000001\n");
        let many = serde_json::json!({ "pushes": [
            { "id": "1", "ticket": "8", "outcome": "delivered" }, { "id": "2", "error": "full" },
        ] });
        assert_eq!(said(&many), "delivered to 1, ticket 8\nrefused to 2: full\n");
    }
}
