//! The subcommands, one file each.
//!
//! Each has `Arguments`, which clap fills, and `run`, which answers an exit status or an error that is one sentence:
//! what failed, why, and what to do.

pub mod capacity;
pub mod config;
pub mod demo;
pub mod link;
pub mod load;
pub mod memory;
pub mod progress;
pub mod remote;
pub mod replay;
pub mod serve;
pub mod sim;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

/// How a subcommand ended.
pub type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Writes what `--json FILE` asks for.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Box<dyn Error>> {
    let text = serde_json::to_string(value)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}
