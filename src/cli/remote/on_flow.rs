//! `holdline close`, `pause` and `resume`: what is done to connections given by their ids.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;

use super::client::{CallError, encoded};
use super::{Remote, print};
use crate::cli::Outcome;

/// The flags of `close`.
#[derive(Args, Debug)]
#[command(after_help = CLOSE_EXAMPLES)]
pub struct CloseArguments {
    #[command(flatten)]
    remote: Remote,
    /// The connections, by their ids; `holdline flows` lists them.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// By RST now, instead of by FIN after everything that is queued.
    #[arg(long)]
    abort: bool,
}

const CLOSE_EXAMPLES: &str = "\
Examples:
  After what is queued:
    holdline close --control /run/holdline.sock 0000000100000002
  Everybody called alice, at once:
    holdline flows --control /run/holdline.sock --name alice --json | jq -r .id |
      xargs holdline close --control /run/holdline.sock --abort";

/// The flags of `pause` and `resume`.
#[derive(Args, Debug)]
#[command(after_help = PAUSE_EXAMPLES)]
pub struct PauseArguments {
    #[command(flatten)]
    remote: Remote,
    /// The connections, by their ids; `holdline flows` lists them.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

const PAUSE_EXAMPLES: &str = "\
A paused connection is not read from: its window closes, and the client's writes wait. Pushes go on.

Examples:
    holdline pause --control /run/holdline.sock 0000000100000002
    holdline resume --control /run/holdline.sock 0000000100000002";

/// Closes connections.
pub fn close(arguments: &CloseArguments) -> Outcome {
    let (how, done) = if arguments.abort { ("abort", "aborted") } else { ("close", "closing") };
    on_each(&arguments.remote, &arguments.ids, Method::DELETE, &format!("?how={how}"), done)
}

/// Pauses connections.
pub fn pause(arguments: &PauseArguments) -> Outcome {
    on_each(&arguments.remote, &arguments.ids, Method::POST, "/pause", "paused")
}

/// Resumes connections.
pub fn resume(arguments: &PauseArguments) -> Outcome {
    on_each(&arguments.remote, &arguments.ids, Method::POST, "/resume", "resumed")
}

/// Goes on where the server refuses one of them; the exit status tells.
fn on_each(remote: &Remote, ids: &[String], method: Method, behind_id: &str, done: &str) -> Outcome {
    let client = remote.client()?;
    let mut status = ExitCode::SUCCESS;
    for id in ids {
        let target = format!("/flows/{}{behind_id}", encoded(id));
        match remote.answered(client.call(method.clone(), &target, Vec::new())) {
            Ok(_) if remote.json => {}
            Ok(_) => {
                print(&format!("{id} {done}\n"));
            }
            Err(error @ CallError::Refused(_)) => {
                eprintln!("holdline: {error}");
                status = ExitCode::FAILURE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(status)
}
