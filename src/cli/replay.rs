//! `holdline replay`: the clients of recorded conversations against our stack.
//!
//! Comes in: captures, and which end in them is the server's. Goes out, on standard output: for each conversation
//! what the client sent, what our stack answered and what the recorded server had answered, in the order of time;
//! how both ended; how often each rule decided. The exit status is 1 where a capture cannot be read or has no such
//! server.
//!
//! `packet` looks at recorded frames and changes them, `recording` (with `ranges`) sorts them into conversations,
//! `rewrite` says what is changed in a client's frame, `stage` plays them into a shard in memory, `report` prints.

mod editor;
mod packet;
mod ranges;
mod recording;
mod report;
mod rewrite;
mod stage;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use holdline::link::pcap::read_capture;
use holdline::service::{Echo, Hold, Service};

use super::{Outcome, write_json};
use recording::Recording;
use report::Report;
use stage::{Application, Options, Recorded, Stage};

/// The flags of `replay`.
#[derive(Args, Debug)]
#[command(after_help = EXPLANATION)]
pub struct Arguments {
    /// Captures: pcap or pcapng, of Ethernet, raw IP, Linux cooked or loopback links. Each is played on its own.
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<PathBuf>,
    /// The address of the server in the captures.
    #[arg(long, value_name = "ADDR")]
    address: IpAddr,
    /// A port of the server in the captures.
    #[arg(long = "listen", value_name = "PORT", required = true, value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// What is done with connections.
    #[arg(long, value_enum, default_value_t = ServiceName::Recorded)]
    service: ServiceName,
    /// Make wrong checksums right, and fill packets up that are shorter than they say, instead of leaving that to be
    /// found.
    #[arg(long)]
    fix_checksums: bool,
    /// Write the same into this file as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ServiceName {
    /// Send what the recorded server sent, and close when it closed.
    Recorded,
    /// Return what is received.
    Echo,
    /// Keep connections open and drop what is received.
    Hold,
}

const EXPLANATION: &str = "\
Lines begin with the seconds since the first frame and a mark:
  >>  the recorded client, into our stack, with the rules that decided it
  <<  our stack, with the rules that caused it
  ==  the recorded server, for comparison
Sequence and acknowledgment numbers count from the initial ones of each side.

The client's acknowledgments, selective ones included, and the timestamps that it echoes are moved by the difference
between the recorded server's first numbers and ours; an acknowledgment of bytes that our stack has not sent yet, but
the recorded one had, is cut. Window scaling, selective acknowledgment and timestamps are taken out of a SYN where the
recorded server had not taken them up. Loopback addresses become 192.0.2.x and 198.51.100.x.

A wrong checksum stays wrong, and is said. A TCP checksum that holds only the pseudo header, as captures on the sending
host usually have it, is completed; so is one of a packet that the capture has cut, whose missing bytes become zeros.";

/// Plays every capture.
pub fn run(arguments: &Arguments) -> Outcome {
    let options = Options {
        address: arguments.address,
        ports: arguments.ports.clone(),
        does_fix_checksums: arguments.fix_checksums,
    };
    let mut reports = Vec::new();
    for path in &arguments.captures {
        let recording = read(path, &options)?;
        let (application, service): (_, Box<dyn Service>) = match arguments.service {
            ServiceName::Recorded => (Application::AsRecorded, Box::new(Recorded)),
            ServiceName::Echo => (Application::ByService, Box::new(Echo)),
            ServiceName::Hold => (Application::ByService, Box::new(Hold)),
        };
        let outcome = Stage::new(&recording, &options, application, service)?.play();
        let report = Report::new(path, &recording, &outcome);
        write!(io::stdout(), "{report}")?;
        reports.push(report);
    }
    if let Some(path) = &arguments.json {
        write_json(path, &reports)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a capture, which must have something for the server.
fn read(path: &Path, options: &Options) -> Result<Recording, Box<dyn std::error::Error>> {
    let recording = Recording::new(read_capture(path)?, options.address, &options.ports);
    if recording.conversations.is_empty() {
        let servers: Vec<String> = recording.servers.iter().take(5).map(ToString::to_string).collect();
        let ports: Vec<String> = options.ports.iter().map(ToString::to_string).collect();
        let found = match servers.as_slice() {
            [] => "nobody in it is asked for a connection".to_owned(),
            servers => format!("asked for a connection are {}", servers.join(", ")),
        };
        let (address, ports) = (options.address, ports.join(", "));
        return Err(format!("{} has no conversation with {address} port {ports}: {found}", path.display()).into());
    }
    Ok(recording)
}
