//! `holdline load`: as many clients as fit in little memory, for a server under test.
//!
//! Comes in: whom to, how many, how fast. Goes out: connections over a link, messages on them, and at the end an
//! account of both. The clients are connections of a shard of our own, with twelve bytes more each, on addresses that
//! the kernel does not have; each address has room for 64,000 of them. The exit status is not 0 if anything is missing
//! or wrong.

mod clients;
mod drive;
mod report;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use holdline::link::{Link, memory_pair};
use holdline::server::{MemoryAhead, Options, Server};
use holdline::service::{Echo, Hold, Service};
use holdline::shard::{Capacity, Config, Storage};

use super::link::{LinkName, Traffic, open_link, parse_address, parse_link};
use super::{Outcome, write_json};
use drive::{Drive, PORTS};
use report::Report;

/// The flags of `load`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where the server is reached: tap:NAME, raw:IFACE or af-xdp:IFACE[:QUEUE] as for `serve`, or `memory` for a
    /// server in this process, which echoes if --echo is given.
    #[arg(long, value_name = "tap:NAME|raw:IFACE|af-xdp:IFACE[:QUEUE]|memory", value_parser = parse_where)]
    link: Where,
    /// An address for clients, which the kernel must not have, with the prefix length of its network.
    #[arg(long = "address", value_name = "ADDR/PREFIX", required = true, value_parser = parse_address)]
    addresses: Vec<(IpAddr, u8)>,
    /// So many addresses, one after the other, from each that is given.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    addresses_each: u32,
    /// The router to a server outside these networks.
    #[arg(long = "gateway", value_name = "ADDR")]
    gateways: Vec<IpAddr>,
    /// The server.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// How many clients.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How many connections a second are asked for.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Each client sends so many bytes and expects the same back. Without it clients are silent, and what a server
    /// pushes to them is counted.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    echo: Option<u32>,
    /// How often a client sends; all of them take turns.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// How long connections stay, from when the last was asked for.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u32,
    /// Write the account into this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const EXAMPLES: &str = "\
The exit status is 0 only if no connection, message or byte is missing or wrong.

Examples:
  A hundred thousand clients of a server in the same process:
    holdline load --link memory --address 10.99.0.2/16 --addresses-each 2 --to 10.99.0.1:7000 \\
      --clients 100000 --rate 50000 --echo 64
  Silent clients of a server behind an interface, which count what is pushed to them for a minute:
    holdline load --link raw:eth0 --address 192.0.2.8/24 --to 192.0.2.7:7000 --seconds 60";

/// Where frames go.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Where {
    Outside(LinkName),
    Memory,
}

/// Plays the clients and gives account.
pub fn run(arguments: &Arguments) -> Outcome {
    let addresses = addresses(arguments)?;
    let room = addresses.len() as u64 * PORTS.len() as u64;
    if room < u64::from(arguments.clients) {
        return Err(format!(
            "these addresses have ports for {room} clients; give more with --address or --addresses-each"
        )
        .into());
    }
    let clients = addresses.iter().map(|&(address, _)| address).collect();
    // Nobody connects to us: what listens there is told to refuse.
    let mut config = Config { addresses, gateways: arguments.gateways.clone(), ports: vec![1], ..Config::default() };
    config.check()?;
    // It lives as long as the clients do.
    let (link, _server): (Box<dyn Link>, _) = match &arguments.link {
        Where::Outside(name) => {
            let wants_routers = config.wants_routers();
            let addresses = &mut config.addresses;
            let traffic = Traffic { addresses, shared: &[], ports: &[], wants_routers, is_kept: false };
            (open_link(name, traffic)?, None)
        }
        Where::Memory => {
            let (ours, theirs) = memory_pair(MEMORY_MTU, MEMORY_FRAMES)?;
            (Box::new(ours), Some(serve(arguments, Box::new(theirs))?))
        }
    };
    (config.mac, config.mtu) = (link.mac(), link.mtu());
    let storage = Storage::in_memory(Capacity::for_connections(arguments.clients))?;
    let mut drive = Drive::new(arguments, clients, config, storage, link)?;
    let figures = drive.run()?;
    let report = Report::new(arguments, &figures);
    write!(io::stdout(), "{report}")?;
    if let Some(path) = &arguments.json {
        write_json(path, &report)?;
    }
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The server of a load in memory.
fn serve(arguments: &Arguments, link: Box<dyn Link>) -> Result<Server, Box<dyn std::error::Error>> {
    let (_, prefix) = arguments.addresses[0];
    let config = Config::new(arguments.to.ip(), prefix, &[arguments.to.port()]);
    let service: Box<dyn Service + Send> = if arguments.echo.is_some() { Box::new(Echo) } else { Box::new(Hold) };
    let storage = Storage::in_memory(Capacity::for_connections(arguments.clients))?;
    let options = Options { notices_max: 0, memory_ahead: MemoryAhead::Untouched, ..Options::default() };
    Ok(Server::start(config, storage, link, service, options)?)
}

/// All addresses of clients. The error says which would not be one.
fn addresses(arguments: &Arguments) -> Result<Vec<(IpAddr, u8)>, String> {
    let each = arguments.addresses_each;
    let mut addresses = Vec::new();
    for &(first, prefix) in &arguments.addresses {
        for step in 0..each {
            let next = match first {
                IpAddr::V4(first) => first.to_bits().checked_add(step).map(|bits| IpAddr::V4(bits.into())),
                IpAddr::V6(first) => first.to_bits().checked_add(step.into()).map(|bits| IpAddr::V6(bits.into())),
            };
            let next = next.ok_or_else(|| format!("there are no {each} addresses from {first} on"))?;
            addresses.push(parse_address(&format!("{next}/{prefix}"))?);
        }
    }
    if addresses.iter().any(|(address, _)| address.is_ipv4() != arguments.to.is_ipv4()) {
        return Err(format!("clients of {} have addresses of its family", arguments.to));
    }
    Ok(addresses)
}

fn parse_where(text: &str) -> Result<Where, String> {
    if text == "memory" { Ok(Where::Memory) } else { parse_link(text).map(Where::Outside) }
}

const MEMORY_MTU: u16 = 1_500;
const MEMORY_FRAMES: usize = 65_536;
