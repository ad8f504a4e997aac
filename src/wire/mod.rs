//! Bytes to values and back: Ethernet, ARP, IPv4, ICMP echo, TCP with its options.
//!
//! In: a received frame. Out: a [`Packet`] or the [`Rule`](crate::tcp::Rule) by which it was dropped; and the other way
//! round, frames appended to a buffer. Headers are read and written through smoltcp's packet views, the walk over TCP
//! options and the checksums are our own. Called by `shard`.
//!
//! Invariant: every byte of a peer is checked before it is used; nothing here panics on any input.

mod arp;
mod checksum;
mod emit;
mod parse;

pub use arp::{ArpMessage, emit_arp};
pub use checksum::Sum;
pub use emit::{Addressing, emit_echo_reply, emit_tcp};
pub use parse::{Echo, IcmpError, Packet, TcpPacket, parse};
