//! The command line: one subcommand, one file in `cli/`.
//!
//! Comes in: arguments. Goes out: what the subcommand prints, and an exit status: 0 when all went well, 1 when
//! something was missing, wrong or could not start (with one sentence on standard error), 2 when the arguments make no
//! sense.

#![forbid(unsafe_code)]

mod cli;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Server-side TCP that holds millions of mostly idle connections, pushes to any of them, and keeps them when the
/// process dies.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hold ten thousand real connections in a private network, push to all of them and check every byte.
    Demo(cli::demo::Arguments),
    /// Serve connections on a link.
    Serve(cli::serve::Arguments),
    /// Play the clients of recorded conversations against our stack, beside what the recorded server answered.
    Replay(cli::replay::Arguments),
    /// Run simulated worlds: clients, faults and kills drawn from a seed, every byte checked.
    Sim(cli::sim::Arguments),
    #[command(hide = true)]
    DemoClient(cli::demo::client::Arguments),
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match CommandLine::parse().command {
        Command::Demo(arguments) => cli::demo::run(&arguments),
        Command::Serve(arguments) => cli::serve::run(&arguments),
        Command::Replay(arguments) => cli::replay::run(&arguments),
        Command::Sim(arguments) => cli::sim::run(&arguments),
        Command::DemoClient(arguments) => cli::demo::client::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("holdline: {error}");
        ExitCode::FAILURE
    })
}
