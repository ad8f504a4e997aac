//! `holdline demo`: thousands of real clients in a private network, pushed to and checked byte by byte.
//!
//! Needs no set-up. The process moves into a network namespace of its own, lays a cable there, runs the server in one
//! thread, and starts client processes with ordinary kernel sockets. Comes in: how many clients, rounds and bytes. Goes
//! out: progress on standard error, a table on standard output, JSON where asked for, and an exit status that is 0 only
//! if nothing was missing or wrong.
//!
//! ```text
//!   client processes ── sockets ── kernel, 10.77.0.1 ══ TAP or veth ══ holdline, 10.77.0.2 ── worker
//!          │                               fd77::1                            fd77::2           │
//!          └───────────────── lines over pipes ────────────────────────── demo ──────────────┘ pushes, notices
//! ```
//!
//! Every second process is over IPv6, where the kernel has it.

pub mod client;
mod crew;
mod drive;
mod lines;
mod namespace;
mod payload;
mod report;
mod seats;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdline::server::{MemoryAhead, Options, Server};
use holdline::service::Hold;
use holdline::shard::{Capacity, Config, Storage};

use super::{Outcome, write_json};
use crew::{Crew, Plan};
use drive::Drive;
use namespace::{Cable, Laid};
use report::Report;

/// The flags of `demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many clients connect.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    clients: u32,
    /// How often each is pushed to.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
    /// How many bytes a push has.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    payload: u32,
    /// What connects the clients with the server; by default a TAP, or a raw socket where /dev/net/tun is closed.
    #[arg(long, value_enum)]
    link: Option<Cable>,
    /// How long connections rest after the pushes before memory is read once more.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=3_600))]
    rest: u32,
    /// Write the figures into this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the demo.
pub fn run(arguments: &Arguments) -> Outcome {
    namespace::enter()?;
    let Laid { link, addresses, link_local } = namespace::lay_cable(arguments.link)?;
    let descriptors_max = client::raise_descriptor_limit()?;
    let plan = Plan::new(arguments.clients, arguments.rounds, arguments.payload as usize, descriptors_max);

    let ours = addresses.iter().copied().chain(link_local).collect();
    let config = Config { addresses: ours, ports: plan.ports(), ..Config::default() };
    let capacity = Capacity::for_connections(plan.clients);
    let storage = Storage::in_memory(capacity)?;
    // What connections take is weighed, not what is kept ready for more of them.
    let options = Options { memory_ahead: MemoryAhead::Untouched, ..Options::default() };
    let server = Server::start(config, storage, link, Box::new(Hold), options)?;
    namespace::wait_for_answers(&addresses)?;

    let mut crew = Crew::start(plan, &addresses)?;
    let (figures, mut troubles) = Drive::new(plan, capacity.flows, &server, &mut crew).run(arguments.rest)?;
    crew.end();
    server.stop()?;

    let report = Report::new(plan, arguments.rest, &figures);
    writeln!(io::stdout(), "{report}")?;
    if let Some(path) = &arguments.json {
        write_json(path, &report)?;
    }
    troubles.extend(report.verdict());
    let told = troubles.len().min(TROUBLES_TOLD_MAX);
    for trouble in &troubles[..told] {
        eprintln!("{trouble}");
    }
    if troubles.len() > told {
        eprintln!("and {} more of the kind", troubles.len() - told);
    }
    Ok(if troubles.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sentences on what went wrong that are worth reading.
const TROUBLES_TOLD_MAX: usize = 8;
