//! Bytes to values and back: Ethernet, IP of both versions, what finds neighbours, ICMP, TCP with its options.
//!
//! In: a received frame. Out: a [`Packet`] or the [`Rule`](crate::tcp::Rule) by which it was dropped; and the other way
//! round, frames appended to a buffer. Ethernet, IP and TCP are read and written by hand, for
//! every segment passes here; ARP, NDP and ICMP through smoltcp's packet views. Called by `shard`.
//!
//! Invariant: every byte of a peer is checked before it is used; nothing here panics on any input.

mod arp;
mod checksum;
mod emit;
pub mod field;
mod fragment;
mod icmp;
mod ipv6;
mod ndp;
mod parse;
mod steer;

pub use arp::{ArpMessage, emit_arp};
pub use checksum::Sum;
pub use emit::{Addressing, emit_tcp};
pub use fragment::{Fragment, FragmentId, emit_fragment, emit_whole};
pub use icmp::{Echo, IcmpError, Refused, Trouble, emit_echo_reply, emit_parameter_problem};
pub use ndp::{
    Advertisement, NeighborMessage, OnLink, RouterAdvertisement, emit_advertisement, emit_router_solicitation,
    emit_solicitation,
};
pub use parse::{Addresses, Packet, TcpPacket, parse};
pub use steer::{Concern, STEERING_KEY, concern, tuple_hash};
