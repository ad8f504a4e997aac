//! The trace of a run: a hash of everything that happened, and the same in words for who wants to read it.
//!
//! Invariant: two runs of one seed have the same hash. What is hashed is what crossed a boundary: frames with their
//! times, notices, deaths and what the applications saw.

use std::hash::Hasher;
use std::io::{self, Write};
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
};

/// The trace of a run.
pub(super) struct Trace {
    hasher: SipHasher13,
    is_spoken: bool,
}

impl Trace {
    /// An empty trace; `is_spoken` prints each event to standard output.
    pub(super) fn new(is_spoken: bool) -> Trace {
        Trace { hasher: SipHasher13::new_with_keys(0, 0), is_spoken }
    }

    /// The hash of all events so far.
    pub(super) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// A frame was handed to the network or taken from it.
    pub(super) fn frame(&mut self, now_us: u64, what: &str, frame: &[u8]) {
        self.hasher.write_u64(now_us);
        self.hasher.write(what.as_bytes());
        self.hasher.write(frame);
        if self.is_spoken {
            speak(now_us, what, &described(frame));
        }
    }

    /// Something else happened.
    pub(super) fn event(&mut self, now_us: u64, what: &str, details: &dyn std::fmt::Debug) {
        let details = format!("{details:?}");
        self.hasher.write_u64(now_us);
        self.hasher.write(what.as_bytes());
        self.hasher.write(details.as_bytes());
        if self.is_spoken {
            speak(now_us, what, shortened(&details));
        }
    }
}

fn speak(now_us: u64, what: &str, details: &str) {
    // A reader that has gone holds no world up.
    let _ = writeln!(io::stdout(), "{:>12.6} {what:<9} {details}", now_us as f64 / 1e6);
}

fn shortened(details: &str) -> &str {
    details.get(..160).unwrap_or(details)
}

/// A frame in one line.
fn described(frame: &[u8]) -> String {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return format!("{} bytes", frame.len()) };
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => match Ipv4Packet::new_checked(ethernet.payload()) {
            Ok(ip) => described_packet(ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.payload()),
            Err(_) => "broken IPv4".to_owned(),
        },
        EthernetProtocol::Ipv6 => match Ipv6Packet::new_checked(ethernet.payload()) {
            Ok(ip) => described_packet(ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), ip.payload()),
            Err(_) => "broken IPv6".to_owned(),
        },
        other => format!("{other} {}", smoltcp_arp(ethernet.payload())),
    }
}

fn described_packet(source: IpAddress, destination: IpAddress, protocol: IpProtocol, payload: &[u8]) -> String {
    if let (IpAddress::Ipv6(source), IpAddress::Ipv6(destination), IpProtocol::Icmpv6) = (source, destination, protocol)
    {
        let message = Icmpv6Packet::new_checked(payload).and_then(|packet| {
            Icmpv6Repr::parse(&source, &destination, &packet, &ChecksumCapabilities::default())
                .map(|message| format!("{message:?}"))
        });
        return format!("{source} > {destination} {}", message.unwrap_or_else(|_| "broken ICMPv6".to_owned()));
    }
    if protocol != IpProtocol::Tcp {
        return format!("{source} > {destination} {protocol}");
    }
    let Ok(tcp) = TcpPacket::new_checked(payload) else { return "broken TCP".to_owned() };
    let flags: String = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), '.')]
        .into_iter()
        .filter_map(|(is_set, letter)| is_set.then_some(letter))
        .collect();
    format!(
        "{} > {} {flags} seq {} len {} ack {} window {}",
        SocketAddr::new(source.into(), tcp.src_port()),
        SocketAddr::new(destination.into(), tcp.dst_port()),
        tcp.seq_number().0 as u32,
        tcp.payload().len(),
        tcp.ack_number().0 as u32,
        tcp.window_len()
    )
}

fn smoltcp_arp(packet: &[u8]) -> String {
    smoltcp::wire::ArpPacket::new_checked(packet)
        .and_then(|packet| smoltcp::wire::ArpRepr::parse(&packet))
        .map_or_else(|error| format!("{error:?}"), |arp| format!("{arp:?}"))
}
