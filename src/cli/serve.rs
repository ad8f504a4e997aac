//! `holdline serve`: shards on one link, or on the queues of one, until it is told to stop.
//!
//! Comes in: flags, then signals. Goes out: one line when a state was resumed, `ready` when packets are answered, one
//! sentence when it cannot start or its link is gone, all on standard error. SIGTERM and SIGINT: with `--state` the
//! process ends at once and connections stay for the next start; without, every connection is sent a FIN at
//! `--drain-rate`, and a second signal ends that.
//!
//! For tests of sudden death the environment variable `HOLDLINE_KILL_AT=WithinRecord:1234` names a commit point
//! (`BeforeRecord`, `WithinRecord`, `BeforeApply`, `WithinApply`, `BeforeGate`) and a number: the process sends SIGKILL
//! to itself when it passes that point for that many-th time. It is for nothing else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use crossbeam::channel::{Receiver, bounded, select};
use holdline::link::interface;
use holdline::link::pcap::CaptureFile;
use holdline::server::{ControlOptions, Options, Server, ServerError};
use holdline::service::{Echo, Hold, Names, Service};
use holdline::shard::{CommitPoint, Config, Interrupt, Storage};
use nix::sys::signal::{Signal, raise};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use strum::IntoEnumIterator;

use super::Outcome;
use super::capacity::{Beside, capacity_of_shard, parse_size};
use super::link::{LinkName, Traffic, open_links, parse_address, parse_link, shared_over};

/// The flags of `serve`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where frames come from and go to. tap:NAME is a TAP made beforehand (`ip tuntap add dev NAME mode tap`) or made
    /// now. raw:IFACE is a raw socket on an Ethernet interface, which the kernel goes on using for its own addresses.
    /// af-xdp:IFACE[:QUEUE[-QUEUE]] is AF_XDP on queues of such an interface, from 0 on unless said otherwise;
    /// `,generic`, `,copy` and `,busy-poll` behind it ask for what is not chosen by itself.
    #[arg(long, value_name = "tap:NAME|raw:IFACE|af-xdp:IFACE[:QUEUE[-QUEUE]]", value_parser = parse_link)]
    link: LinkName,
    /// An IPv4 or IPv6 address with the prefix length of its network: one of our own, which the kernel must not have.
    /// With AF_XDP it may also be one that the kernel has on that interface, of which we serve TCP to our ports and the
    /// kernel all the rest.
    #[arg(long = "address", value_name = "ADDR/PREFIX", required = true, value_parser = parse_address)]
    addresses: Vec<(IpAddr, u8)>,
    /// The router for peers outside these networks, once for each family. Where there is none for IPv6, routers are
    /// asked for.
    #[arg(long = "gateway", value_name = "ADDR")]
    gateways: Vec<IpAddr>,
    /// A port to listen on, or a range such as 7000-7010. This flag, --address and --gateway may be given again.
    #[arg(long = "listen", value_name = "PORT", required = true, value_parser = parse_ports)]
    ports: Vec<Ports>,
    /// What is done with connections.
    #[arg(long, value_enum, default_value_t = ServiceName::Hold)]
    service: ServiceName,
    /// A Unix socket for the control API, which the other subcommands and curl speak. Only this user may open it.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Serve metrics for Prometheus on this TCP port, on loopback unless an address is given.
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse_metrics)]
    metrics: Option<SocketAddr>,
    /// A TOML file whose keys are these flags; flags that are given override it.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// A directory that keeps connections while the process is away.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How many threads serve, each on a queue of its own; more than one need as many queues of AF_XDP, or a TAP that
    /// was made with `multi_queue` or is made now.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=128))]
    workers: u32,
    /// How many parts the connections are divided into, each of which one worker serves; fixed when a state is made.
    /// Without it, what the state has, or one for each worker.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=128))]
    shards: Option<u8>,
    /// How long a worker that finds nothing to do looks again before it sleeps; it takes its core for that.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    spin: u32,
    /// Pin each worker to a core, in this order, such as 2,3 or 4-7. Without it the system chooses.
    #[arg(long, value_name = "CORES", value_parser = parse_cores)]
    pin: Option<Cores>,
    /// A file that every frame is written to, in the format pcapng, with the rules that decided it as its comment; a
    /// file of that name is replaced.
    #[arg(long, value_name = "FILE.pcapng")]
    capture: Option<PathBuf>,
    /// How many connections there may be; fixed when a state is made.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// How much memory connections and what waits in them may take together, such as 512M; fixed when a state is made.
    /// Without it, 1 GB of payload beside the connections.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_memory: Option<u64>,
    /// How many bytes may wait in one connection's send queue, such as 256K; also the longest push.
    #[arg(long, value_name = "SIZE", value_parser = parse_push_queue)]
    push_queue: Option<u32>,
    /// Probe a peer that was silent for so long, and again as often; after 3 probes without an answer the connection is
    /// closed. Off if it is not given.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    keepalive: Option<u32>,
    /// Close a connection whose peer was silent for so long. Off if it is not given.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    idle_timeout: Option<u32>,
    /// How long a retransmission is repeated without an answer before the connection is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..))]
    user_timeout: u32,
    /// How many connections a second are closed when the server stops without a state.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    drain_rate: u32,
}

const EXAMPLES: &str = "\
`ready` on standard error says that packets are answered. SIGTERM ends it: with --state connections stay for the next
start, without they are closed first.

Examples:
  An echo on a TAP, which root has made with `ip tuntap add dev hold0 mode tap`, and which outlives the process:
    holdline serve --link tap:hold0 --address 10.99.0.2/24 --listen 7000 --service echo --state /var/tmp/holdline
  Names to push to, beside the kernel on a network card, with a control API and metrics:
    holdline serve --link raw:eth0 --address 192.0.2.7/24 --gateway 192.0.2.1 --listen 7000 --service names \\
      --control /run/holdline.sock --metrics 9100 --keepalive 240";

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ServiceName {
    /// Return what is received.
    Echo,
    /// Keep connections open and drop what is received.
    Hold,
    /// Take the first line that a client sends as its name; the rest is dropped.
    Names,
}

/// Ports `first..=last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ports {
    first: u16,
    last: u16,
}

/// Numbers of cores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Cores(Vec<usize>);

/// Serves until a signal or until the link is gone.
pub fn run(arguments: &Arguments) -> Outcome {
    let interrupt = std::env::var(KILL_AT).ok().map(|value| kill_at(&value)).transpose()?;
    let signals = signals()?;
    let mut config = config(arguments);
    config.shared = shared_over(&arguments.link, &config.addresses)?;
    // Before a link is opened, or a state.
    config.check()?;
    let known = arguments.state.as_deref().and_then(Storage::shards_in);
    let shards = arguments.shards.or(known).unwrap_or(arguments.workers as u8);
    let capacity = capacity_of_shard(arguments.max_connections, arguments.max_memory, beside(arguments), shards)?;
    if let (Some(directory), Some(_), LinkName::AfXdp { .. }) = (&arguments.state, known, &arguments.link) {
        keep_ends(&config, &Storage::all_in_directory(directory, shards, capacity)?)?;
    }
    let traffic = Traffic {
        wants_routers: config.wants_routers(),
        shared: &config.shared,
        ports: &config.ports,
        addresses: &mut config.addresses,
        is_kept: arguments.state.is_some(),
    };
    let links = open_links(&arguments.link, arguments.workers as usize, traffic)?;
    let storages = match &arguments.state {
        Some(directory) => Storage::all_in_directory(directory, shards, capacity)?,
        None => (0..shards).map(|_| Storage::in_memory(capacity)).collect::<Result<_, _>>()?,
    };
    let service = || -> Box<dyn Service + Send> {
        match arguments.service {
            ServiceName::Echo => Box::new(Echo),
            ServiceName::Hold => Box::new(Hold),
            ServiceName::Names => Box::new(Names::default()),
        }
    };
    let control = ControlOptions {
        socket: arguments.control.clone(),
        metrics: arguments.metrics,
        drain_rate_per_s: arguments.drain_rate,
    };
    let capture = arguments.capture.as_ref().map(|path| CaptureFile::create(path, arguments.link.interface()));
    let capture = capture.transpose()?;
    let (spin, cores) = (Duration::from_micros(arguments.spin.into()), arguments.pin.clone().unwrap_or_default().0);
    let options = Options { notices_max: 0, interrupt, capture, control, spin, cores, ..Options::default() };
    let server = Server::start_all(config, storages, links, service, options)?;
    let resumption = server.resumption();
    if !resumption.is_fresh {
        eprintln!(
            "resumed {} connections; records discarded: {}, applied again: {}",
            resumption.connections, resumption.records_discarded, resumption.records_applied_again
        );
    }
    eprintln!("ready");
    until_told(arguments, server, &signals)?;
    Ok(ExitCode::SUCCESS)
}

fn beside(arguments: &Arguments) -> Beside {
    Beside {
        has_attachment: arguments.service == ServiceName::Names,
        has_ipv6: arguments.addresses.iter().any(|(address, _)| address.is_ipv6()),
    }
}

/// Refuses to begin where connections of the state would be left to the kernel, which ends what it does not know:
/// before the link steers.
fn keep_ends(config: &Config, storages: &[Storage]) -> Result<(), Box<dyn std::error::Error>> {
    for (address, port) in storages.iter().flat_map(Storage::ends_in_use) {
        let is_given = config.addresses.iter().any(|(given, _)| *given == address);
        let again = match (is_given, config.shared.contains(&address)) {
            (false, _) if !interface::owners_of(address)?.is_empty() => format!("--address {address}"),
            (true, true) if !config.ports.contains(&port) => format!("--listen {port}"),
            _ => continue,
        };
        let sentence = "which the kernel keeps and would end them";
        return Err(
            format!("the state has connections on port {port} of {address}, {sentence}: give {again} again").into()
        );
    }
    Ok(())
}

fn until_told(arguments: &Arguments, server: Server, signals: &Receiver<()>) -> Result<(), ServerError> {
    select! {
        recv(server.finished()) -> _ => return server.stop().map(drop),
        recv(signals) -> _ => {}
    }
    if arguments.state.is_none() {
        let whole_s = u64::from(arguments.max_connections / arguments.drain_rate);
        server.drain(arguments.drain_rate, Duration::from_secs(whole_s) + LAST_FIN);
        select! {
            recv(server.finished()) -> _ => {}
            recv(signals) -> _ => {}
        }
    }
    server.stop().map(drop)
}

fn config(arguments: &Arguments) -> Config {
    let mut ports: Vec<u16> = arguments.ports.iter().flat_map(|ports| ports.first..=ports.last).collect();
    ports.sort_unstable();
    ports.dedup();
    let defaults = Config::default();
    Config {
        addresses: arguments.addresses.clone(),
        gateways: arguments.gateways.clone(),
        ports,
        user_timeout_s: arguments.user_timeout,
        keepalive_s: arguments.keepalive.unwrap_or(0),
        idle_timeout_s: arguments.idle_timeout.unwrap_or(0),
        send_queue_bytes: arguments.push_queue.unwrap_or(defaults.send_queue_bytes),
        report_received_bytes: if arguments.control.is_some() { REPORTED_BYTES } else { 0 },
        ..defaults
    }
}

/// A channel that gets something for each SIGTERM and SIGINT.
fn signals() -> Result<Receiver<()>, Box<dyn std::error::Error>> {
    let (sender, receiver) = bounded(2);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            // A third signal says nothing that two have not said.
            let _ = sender.try_send(());
        }
    })?;
    Ok(receiver)
}

/// See the head of this file.
fn kill_at(value: &str) -> Result<Interrupt, String> {
    let wrong = || {
        let points: Vec<&str> = CommitPoint::iter().map(Into::into).collect();
        format!("{KILL_AT}={value:?} is not POINT:NUMBER with a number of at least 1 and one of {}", points.join(", "))
    };
    let (name, number) = value.split_once(':').ok_or_else(wrong)?;
    let wanted = CommitPoint::iter().find(|point| <&str>::from(*point) == name).ok_or_else(wrong)?;
    let mut passes_left: u64 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    Ok(Box::new(move |point| {
        if point == wanted {
            passes_left = passes_left.saturating_sub(1);
            if passes_left == 0 {
                // It does not return.
                let _ = raise(Signal::SIGKILL);
            }
        }
    }))
}

fn parse_ports(text: &str) -> Result<Ports, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Ports { first, last }),
        _ => Err("a port is 1 to 65535, and a range two of them, such as 7000-7010".to_owned()),
    }
}

fn parse_cores(text: &str) -> Result<Cores, String> {
    let wrong = "cores are numbers and ranges, such as 2,3 or 4-7";
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => cores.extend((first..=last).map(usize::from)),
            _ => return Err(wrong.to_owned()),
        }
    }
    Ok(Cores(cores))
}

fn parse_metrics(text: &str) -> Result<SocketAddr, String> {
    let wrong = "metrics are served on a port, such as 9100, or an address with a port, such as 10.0.0.5:9100";
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().map_err(|_| wrong.to_owned()),
    }
}

fn parse_push_queue(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    let wrong = || format!("a send queue has at most {} bytes", PUSH_QUEUE_BYTES_MAX);
    u32::try_from(bytes).ok().filter(|bytes| *bytes <= PUSH_QUEUE_BYTES_MAX).ok_or_else(wrong)
}

/// The largest send queue, in bytes: what may wait for the worker altogether.
const PUSH_QUEUE_BYTES_MAX: u32 = 64 << 20;

/// How much of each received piece an event shows, in bytes.
const REPORTED_BYTES: u32 = 1_024;

/// The fault switch.
const KILL_AT: &str = "HOLDLINE_KILL_AT";

/// How long a drain waits for answers beyond what its rate needs.
const LAST_FIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read() {
        assert_eq!(parse_ports("7000"), Ok(Ports { first: 7000, last: 7000 }));
        assert_eq!(parse_ports("7000-7010"), Ok(Ports { first: 7000, last: 7010 }));
        for wrong in ["", "0", "65536", "7010-7000", "7000-", "-7000", "a", "1-2-3"] {
            assert!(parse_ports(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn cores_and_ranges_are_read() {
        assert_eq!(parse_cores("3"), Ok(Cores(vec![3])));
        assert_eq!(parse_cores("0,4-6,2"), Ok(Cores(vec![0, 4, 5, 6, 2])));
        for wrong in ["", ",", "1,", "a", "3-1", "-1", "1-2-3", "65536"] {
            assert!(parse_cores(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_fault_switch_names_what_it_takes() {
        assert!(kill_at("WithinRecord:12").is_ok());
        for wrong in ["WithinRecord", "WithinRecord:0", "Nowhere:1", ":1", ""] {
            let error = kill_at(wrong).err().expect("it is wrong");
            assert!(error.contains("BeforeGate"), "{error}");
        }
    }
}
