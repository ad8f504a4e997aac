//! The command line, for trying out the simulation.
mod cli;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Command {
    Sim(cli::sim::Args),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Sim(args) => cli::sim::run(args),
    }
}
