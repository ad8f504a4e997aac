//! The command line: one subcommand, one file in `cli/`.
//!
//! Comes in: arguments. Goes out: what the subcommand prints, and an exit status: 0 when all went well, 1 when it did
//! not (with a sentence on standard error where nothing is printed), 2 when the arguments make no sense.

#![forbid(unsafe_code)]

mod cli;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Server-side TCP that holds millions of mostly idle connections, pushes to any of them, and keeps them when the
/// process dies.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 120)]
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
    /// List the connections of a running server.
    Flows(cli::remote::flows::Arguments),
    /// Push bytes to a connection, or to everybody of a name.
    Push(cli::remote::push::Arguments),
    /// Push the same bytes to all connections.
    Broadcast(cli::remote::broadcast::Arguments),
    /// Close connections, or abort them.
    Close(cli::remote::on_flow::CloseArguments),
    /// Stop reading from connections.
    Pause(cli::remote::on_flow::PauseArguments),
    /// Go on reading from connections.
    Resume(cli::remote::on_flow::PauseArguments),
    /// Follow what happens on a server.
    Events(cli::remote::events::Arguments),
    /// Show the figures of a server.
    Stats(cli::remote::stats::Arguments),
    /// Close all connections of a server at a rate, and refuse new ones.
    Drain(cli::remote::drain::Arguments),
    /// Watch the figures of a server.
    Top(cli::remote::top::Arguments),
    /// Open many connections to a server, have them echo, and account for what was lost.
    Load(cli::load::Arguments),
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
    let outcome = command_line().and_then(|line| run(line.command));
    outcome.unwrap_or_else(|error| {
        eprintln!("holdline: {error}");
        ExitCode::FAILURE
    })
}

/// The arguments, with those of the configuration file where they name one.
fn command_line() -> Result<CommandLine, Box<dyn std::error::Error>> {
    Ok(CommandLine::parse_from(cli::config::expanded(std::env::args_os().collect(), &CommandLine::command())?))
}

fn run(command: Command) -> cli::Outcome {
    match command {
        Command::Demo(arguments) => cli::demo::run(&arguments),
        Command::Serve(arguments) => cli::serve::run(&arguments),
        Command::Flows(arguments) => cli::remote::flows::run(&arguments),
        Command::Push(arguments) => cli::remote::push::run(&arguments),
        Command::Broadcast(arguments) => cli::remote::broadcast::run(&arguments),
        Command::Close(arguments) => cli::remote::on_flow::close(&arguments),
        Command::Pause(arguments) => cli::remote::on_flow::pause(&arguments),
        Command::Resume(arguments) => cli::remote::on_flow::resume(&arguments),
        Command::Events(arguments) => cli::remote::events::run(&arguments),
        Command::Stats(arguments) => cli::remote::stats::run(&arguments),
        Command::Drain(arguments) => cli::remote::drain::run(&arguments),
        Command::Top(arguments) => cli::remote::top::run(&arguments),
        Command::Load(arguments) => cli::load::run(&arguments),
        Command::Replay(arguments) => cli::replay::run(&arguments),
        Command::Sim(arguments) => cli::sim::run(&arguments),
        Command::DemoClient(arguments) => cli::demo::client::run(&arguments),
    }
}
