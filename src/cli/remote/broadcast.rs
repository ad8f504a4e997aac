//! `holdline broadcast`: bytes to all connections, or to those whose names begin alike.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::client::target;
use super::payload::Payload;
use super::{Remote, print};
use crate::cli::Outcome;
use crate::cli::progress::{Progress, grouped};

/// The flags of `broadcast`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    payload: Payload,
    /// At most so many pushes a second; as fast as there is room if it is not given.
    #[arg(long, value_name = "N")]
    pace: Option<u32>,
    /// Only connections whose name begins so, with `serve --service names`.
    #[arg(long, value_name = "TEXT")]
    name_prefix: Option<String>,
    /// Drop pushes whose first byte was not sent after so long.
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u32>,
    /// Show how it goes on until every connection was pushed to.
    #[arg(long)]
    wait: bool,
    /// Start none, but show how this one stands (until it is over, with --wait).
    #[arg(long, value_name = "JOB", conflicts_with_all = ["text", "file", "pace", "name_prefix", "expires"])]
    job: Option<u64>,
    /// Cancel the one given by --job; what is queued already stays queued.
    #[arg(long, requires = "job", conflicts_with = "wait")]
    cancel: bool,
}

const EXAMPLES: &str = "\
A broadcast goes on by itself, also after a restart, and reaches each connection once.

Examples:
  To everybody, at most 10,000 a second, and watch:
    holdline broadcast --control /run/holdline.sock --pace 10000 --wait 'maintenance at noon'
  To everybody whose name begins with beta-:
    holdline broadcast --control /run/holdline.sock --name-prefix beta- --file news.txt
  How it stands, and its end:
    holdline broadcast --control /run/holdline.sock --job 3
    holdline broadcast --control /run/holdline.sock --job 3 --cancel";

/// Starts one, or shows how one stands.
pub fn run(arguments: &Arguments) -> Outcome {
    let remote = &arguments.remote;
    let client = remote.client()?;
    let job = match arguments.job {
        Some(job) => job,
        None => {
            let parameters = [
                ("pace", arguments.pace.map(|pace| pace.to_string())),
                ("name-prefix", arguments.name_prefix.clone()),
                ("expires", arguments.expires.map(|seconds| seconds.to_string())),
            ];
            let bytes = arguments.payload.read()?;
            let answer = remote.answered(client.call(Method::POST, &target("/broadcast", &parameters), bytes))?;
            let job = answer.body["job"].as_u64().unwrap_or_default();
            if !remote.json {
                print(&format!("broadcast {job} is on its way\n"));
            }
            if !arguments.wait {
                return Ok(ExitCode::SUCCESS);
            }
            job
        }
    };
    let method = if arguments.cancel { Method::DELETE } else { Method::GET };
    let path = format!("/jobs/{job}");
    let mut progress = Progress::new();
    loop {
        let view = client.call(method.clone(), &path, Vec::new())?.body;
        if !arguments.wait || view["state"] != "running" {
            if arguments.wait && !remote.json {
                progress.finish(said(&view));
            } else {
                print(&if remote.json { format!("{view}\n") } else { format!("{}\n", said(&view)) });
            }
            return Ok(ExitCode::SUCCESS);
        }
        if !remote.json {
            progress.show(|| said(&view));
        }
        sleep(PAUSE);
    }
}

fn said(view: &Value) -> String {
    let number = |key: &str| grouped(view[key].as_u64().unwrap_or_default());
    let (cursor, total) = (view["cursor"].as_f64().unwrap_or(0.0), view["total_slots"].as_f64().unwrap_or(0.0));
    let percent = if view["state"] == "done" || total == 0.0 { 100.0 } else { cursor / total * 100.0 };
    format!(
        "broadcast {} {}, {percent:.0} %: {} pushed, {} delivered, {} refused, {} expired or lost",
        view["job"],
        view["state"].as_str().unwrap_or("?"),
        number("pushed"),
        number("delivered"),
        number("refused"),
        number("lost"),
    )
}

/// How often a job is looked at.
const PAUSE: Duration = Duration::from_millis(200);
