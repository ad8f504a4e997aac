//! The subcommands that drive a running server over its control API.
//!
//! Each prints a line or a table for people, or with `--json` what the server answered, for scripts. A call that the
//! server refuses is one sentence on standard error (and with `--json` the server's answer on standard output), and the
//! exit status 1.
//!
//! Invariant: nothing here knows more of a server than its HTTP; whatever these commands do, curl can.

pub mod broadcast;
pub mod client;
pub mod drain;
pub mod events;
pub mod flows;
pub mod on_flow;
pub mod payload;
pub mod push;
pub mod stats;
pub mod top;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::Outcome;
use client::{Answer, CallError, Client};

/// What all of them are told.
#[derive(Args, Debug)]
pub struct Remote {
    /// The server's control socket: what `holdline serve --control PATH` was given.
    #[arg(long, value_name = "PATH")]
    control: PathBuf,
    /// Print what the server answered, as JSON, for scripts.
    #[arg(long)]
    json: bool,
}

impl Remote {
    fn client(&self) -> io::Result<Client> {
        Client::new(&self.control)
    }

    /// With `--json` prints what the server said, whatever it was.
    fn answered(&self, called: Result<Answer, CallError>) -> Result<Answer, CallError> {
        if self.json
            && let Ok(answer) | Err(CallError::Refused(answer)) = &called
        {
            print(&format!("{}\n", answer.body));
        }
        called
    }

    /// Prints a stream of lines until it ends or nobody reads on: as it is with `--json`, else in words below `head`.
    fn print_lines(&self, target: &str, head: &str, in_words: impl Fn(&Value) -> String) -> Outcome {
        let mut head = if self.json { "" } else { head };
        self.client()?.lines(target, |line| {
            let text = match self.json {
                true => format!("{line}\n"),
                false => in_words(&serde_json::from_str(line).unwrap_or(Value::Null)),
            };
            let is_read = print(&(std::mem::take(&mut head).to_owned() + &text));
            if is_read { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        print(head);
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes to standard output. False: nobody reads it any more.
fn print(text: &str) -> bool {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_ok()
}

/// A time span for people: its two largest units.
fn span_text(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
    }
}

/// A number of bytes for people.
fn bytes_text(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_bytes_are_short() {
        for (ms, text) in [(999, "0s"), (61_000, "1m01s"), (3_660_000, "1h01m"), (90_000_000, "1d01h")] {
            assert_eq!(span_text(ms), text);
        }
        for (bytes, text) in [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (1 << 40, "1.0 TiB")] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
