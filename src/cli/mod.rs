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
use std::process::ExitCode;

/// How a subcommand ended.
pub type Outcome = Result<ExitCode, Box<dyn Error>>;
