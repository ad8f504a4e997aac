//! `holdline drain`: the end of all connections, at a rate.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use hyper::Method;

use super::client::target;
use super::{Remote, print};
use crate::cli::Outcome;
use crate::cli::progress::{Progress, grouped};

/// The flags of `drain`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    remote: Remote,
    /// So many connections a second; what `serve --drain-rate` says if it is not given.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Show how it goes on until no connection is left but in TIME-WAIT.
    #[arg(long)]
    wait: bool,
}

const EXAMPLES: &str = "\
New connections are refused from then on, by RST, until the server is started again; it goes on running.

Example:
    holdline drain --control /run/holdline.sock --rate 1000 --wait";

/// Drains.
pub fn run(arguments: &Arguments) -> Outcome {
    let client = arguments.remote.client()?;
    let parameters = [("rate", arguments.rate.map(|rate| rate.to_string()))];
    let called = client.call(Method::POST, &target("/drain", &parameters), Vec::new());
    let answer = arguments.remote.answered(called)?.body;
    let is_json = arguments.remote.json;
    if !is_json {
        let connections = grouped(answer["connections"].as_u64().unwrap_or_default());
        print(&format!(
            "connections that are closed: {connections}, {} a second; new ones are refused\n",
            answer["rate"]
        ));
    }
    if !arguments.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut progress = Progress::new();
    loop {
        let connections = client.call(Method::GET, "/stats", Vec::new())?.body["connections"].take();
        let count = |state: &str| connections[state].as_u64().unwrap_or_default();
        let left = count("total").saturating_sub(count("TIME-WAIT"));
        if !is_json {
            progress.show(|| format!("{} connections are left", grouped(left)));
        }
        if left == 0 {
            if !is_json {
                progress.finish("no connection is left".to_owned());
            }
            return Ok(ExitCode::SUCCESS);
        }
        sleep(PAUSE);
    }
}

/// How often the connections are counted.
const PAUSE: Duration = Duration::from_millis(200);
