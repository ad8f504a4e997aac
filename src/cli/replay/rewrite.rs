//! Rewriting: what is changed in a recorded client's segment so that it speaks to our stack.
//!
//! - Ethernet: to the shard's address, even if it went to all; a source of zeros becomes one.
//! - Loopback addresses, which no link carries, become 192.0.2.x, and the client's 198.51.100.x; of IPv6 2001:db8::1
//!   and 2001:db8:1::1.
//! - Acknowledgment numbers and the edges of selective acknowledgments move by the difference of the initial sequence
//!   numbers, the recorded server's and ours; echoed timestamps by that of the first timestamps.
//! - An acknowledgment of bytes that the recorded server had sent and our stack has not yet is cut to what it has: it
//!   paces itself in its own way.
//! - Options that the recorded server did not take up are taken out of the client's SYN: the client did not use them.
//! - Checksums: a right one stays right. A TCP checksum that holds the pseudo header only, as captures made on the
//!   sending host have it, is completed, and so is that of a packet that the capture has cut. Whatever else is
//!   wrong stays wrong, unless it is to be fixed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use holdline::shard::Config;
use holdline::tcp::Control;

use super::editor::{Checksum, Editor};
use super::packet::{Negotiated, Segment, View};
use super::recording::Conversation;
use super::stage::Options;

/// What was changed beyond addresses and the difference of sequence numbers.
#[derive(Clone, Copy, Default, Debug)]
pub struct Changes {
    /// The acknowledgment was cut by so many bytes.
    pub ack_cut_bytes: u32,
    /// Bytes that were missing are zeros now.
    pub has_filled_bytes: bool,
    pub checksum: Option<&'static str>,
    /// Options that were taken out of a SYN.
    pub has_erased_options: bool,
}

/// What is known of our side of a conversation.
#[derive(Clone, Copy, Default, Debug)]
pub struct Side {
    pub isn: Option<u32>,
    /// Behind the last byte that was sent.
    pub nxt: u32,
    /// The value of the first timestamp.
    pub first_timestamp: Option<u32>,
}

impl Side {
    /// Learns from a segment that our stack has sent.
    pub fn learn(&mut self, segment: &Segment) {
        if segment.is_syn_ack() {
            self.isn = Some(segment.seq);
            self.nxt = segment.end();
            self.first_timestamp = segment.options.timestamps.map(|(value, _)| value);
        } else if !segment.control.has(Control::RST) && (segment.end().wrapping_sub(self.nxt) as i32) > 0 {
            self.nxt = segment.end();
        }
    }
}

/// Where an address is on the stage: loopback is on no link.
pub fn stage_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(it) if it.is_loopback() => Ipv4Addr::new(192, 0, 2, it.octets()[3]).into(),
        IpAddr::V6(it) if it.is_loopback() => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// The same of a client's end, in a network of its own: on a loopback both may have one address.
pub fn stage_end(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(client_address(end.ip()), end.port())
}

fn client_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(it) if it.is_loopback() => Ipv4Addr::new(198, 51, 100, it.octets()[3]).into(),
        IpAddr::V6(it) if it.is_loopback() => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Sends a frame to the shard's Ethernet address, an ARP request excepted, which goes to all.
pub fn readdress(frame: &mut [u8], view: &View) {
    if let (View::Tcp(_) | View::Ip { .. }, Some(destination)) = (view, frame.get_mut(..6)) {
        destination.copy_from_slice(&Config::default().mac);
    }
    if let Some(source) = frame.get_mut(6..12).filter(|source| source.iter().all(|byte| *byte == 0)) {
        source.copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    }
}

/// Changes a segment as the head of this file tells.
pub fn rewrite(
    frame: &mut Vec<u8>,
    cut_bytes: u32,
    segment: &Segment,
    conversation: &Conversation,
    ours: &Side,
    options: &Options,
) -> Changes {
    let mut changes = Changes::default();
    let mut editor = Editor::new(frame, *segment);
    let does_fix = options.does_fix_checksums;
    if cut_bytes > 0 || (does_fix && editor.is_short()) {
        editor.complete();
        changes.has_filled_bytes = true;
    }
    changes.checksum = settle_checksums(&mut editor, does_fix);
    let (source, destination) = (segment.source.ip(), segment.destination.ip());
    if source.is_loopback() || destination.is_loopback() {
        editor.set_addresses(client_address(source), stage_address(destination));
    }
    if segment.is_syn() {
        changes.has_erased_options = erase_unused(&mut editor, segment, conversation);
    }
    let (Some(recorded_isn), Some(isn)) = (conversation.server_isn, ours.isn) else { return changes };
    let delta = isn.wrapping_sub(recorded_isn);
    if segment.control.has(Control::ACK) {
        let ack = segment.ack.wrapping_add(delta);
        let ahead = ack.wrapping_sub(ours.nxt);
        let was_sent = segment.ack.wrapping_sub(recorded_isn) <= conversation.server_bytes.len() as u32 + 2;
        changes.ack_cut_bytes = if was_sent && (ahead as i32) > 0 { ahead } else { 0 };
        editor.set_ack(ack.wrapping_sub(changes.ack_cut_bytes));
        editor.shift_sack(delta);
    }
    let recorded_timestamp = conversation.server_options.and_then(|options| options.timestamps);
    if let (Some((recorded, _)), Some(first), Some((_, echo))) =
        (recorded_timestamp, ours.first_timestamp, segment.options.timestamps)
    {
        editor.set_echo(echo.wrapping_add(first.wrapping_sub(recorded)));
    }
    changes
}

/// Completes what was left to a network device, and on demand fixes what is wrong. Returns what there is to say.
fn settle_checksums(editor: &mut Editor<'_>, does_fix: bool) -> Option<&'static str> {
    let is_ip_fixed = (does_fix && !editor.is_ip_checksum_right()) || editor.has_no_length();
    if is_ip_fixed {
        editor.fix_ip_checksum();
    }
    let is_ip_wrong = !editor.is_ip_checksum_right();
    match editor.checksum() {
        Checksum::Partial => editor.fix_tcp_checksum(),
        Checksum::Wrong if does_fix => editor.fix_tcp_checksum(),
        Checksum::Wrong => return Some("checksum wrong"),
        Checksum::Right if is_ip_wrong => return Some("IPv4 checksum wrong"),
        Checksum::Right if is_ip_fixed => {}
        Checksum::Right => return None,
    }
    Some(if is_ip_wrong { "TCP checksum made right, IPv4 checksum wrong" } else { "checksum made right" })
}

fn erase_unused(editor: &mut Editor<'_>, syn: &Segment, conversation: &Conversation) -> bool {
    let Some(taken_up) = conversation.server_options else { return false };
    let unused = [
        (Negotiated::WindowScale, syn.options.window_shift.is_some() && taken_up.window_shift.is_none()),
        (Negotiated::SackPermitted, syn.options.has_sack_permitted && !taken_up.has_sack_permitted),
        (Negotiated::Timestamps, syn.options.timestamps.is_some() && taken_up.timestamps.is_none()),
    ];
    for (option, _) in unused.iter().filter(|(_, is_unused)| *is_unused) {
        editor.erase(*option);
    }
    unused.iter().any(|(_, is_unused)| *is_unused)
}
