//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol};

use super::field::ethernet;
use crate::tcp::Rule;

const FRAME_BYTES: usize = ethernet::BYTES + 28;

/// An ARP message: who has which address, and who asks or is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpMessage {
    /// A request; otherwise a reply.
    pub is_request: bool,
    /// Ethernet address of the sender.
    pub sender_mac: [u8; 6],
    /// IPv4 address of the sender.
    pub sender: Ipv4Addr,
    /// Ethernet address of the target; zero in a request.
    pub target_mac: [u8; 6],
    /// IPv4 address of the target.
    pub target: Ipv4Addr,
}

/// Reads the payload of an Ethernet frame.
pub(super) fn parse_arp(payload: &[u8]) -> Result<ArpMessage, Rule> {
    let packet = ArpPacket::new_checked(payload).map_err(|_| Rule::FrameMalformed)?;
    let repr = ArpRepr::parse(&packet).map_err(|_| Rule::FrameMalformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_hardware_addr,
        target_protocol_addr,
    } = repr
    else {
        return Err(Rule::ArpIgnored);
    };
    let is_request = match operation {
        ArpOperation::Request => true,
        ArpOperation::Reply => false,
        ArpOperation::Unknown(_) => return Err(Rule::ArpIgnored),
    };
    Ok(ArpMessage {
        is_request,
        sender_mac: source_hardware_addr.0,
        sender: source_protocol_addr,
        target_mac: target_hardware_addr.0,
        target: target_protocol_addr,
    })
}

/// Appends a frame with this message: a request to everybody, a reply to its target.
pub fn emit_arp(out: &mut Vec<u8>, message: &ArpMessage) {
    let start = out.len();
    out.resize(start + FRAME_BYTES, 0);
    let mut frame = EthernetFrame::new_unchecked(&mut out[start..]);
    let destination = if message.is_request { [0xff; 6] } else { message.target_mac };
    frame.set_dst_addr(EthernetAddress(destination));
    frame.set_src_addr(EthernetAddress(message.sender_mac));
    frame.set_ethertype(EthernetProtocol::Arp);
    let repr = ArpRepr::EthernetIpv4 {
        operation: if message.is_request { ArpOperation::Request } else { ArpOperation::Reply },
        source_hardware_addr: EthernetAddress(message.sender_mac),
        source_protocol_addr: message.sender,
        target_hardware_addr: EthernetAddress(message.target_mac),
        target_protocol_addr: message.target,
    };
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
}
