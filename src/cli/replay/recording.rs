//! Recordings: the conversations of a capture with one server, as far as a replay needs them.
//!
//! In: the frames of a capture, the server's address and its ports. Out: what is played, in the capture's order,
//! and for each conversation what both sides began with and the bytes that the recorded server sent.
//!
//! Invariant: a conversation is one pair of initial sequence numbers. A SYN that the recorded server answered as the
//! begin of another one begins another one here; a SYN that it did not is part of the conversation that there is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use holdline::link::pcap::CapturedFrame;
use holdline::tcp::Control;
use holdline::wire::field::protocol::{ICMPV4, ICMPV6, TCP};

use super::packet::{self, Options, Segment, View};
use super::ranges::Ranges;

/// How many bytes of the recorded server's no segment in the capture may carry, so that it is believed to have sent
/// them.
const HOLE_BYTES_MAX: u32 = 1 << 20;
/// How many bytes of recorded servers are kept in all.
const SERVER_BYTES_MAX: usize = 1 << 30;

/// Who sent a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    Client,
    Server,
}

/// A frame that takes part.
pub struct Event {
    pub at_ns: u64,
    pub sender: Sender,
    pub frame: Vec<u8>,
    pub cut_bytes: u32,
    pub view: View,
    /// For a segment: which of the conversations.
    pub conversation: Option<usize>,
}

/// A connection between one client and the recorded server.
#[derive(Debug)]
pub struct Conversation {
    pub client: SocketAddr,
    pub server_port: u16,
    /// The initial sequence number of the client, or where a capture without a SYN begins.
    pub client_isn: u32,
    /// That of the recorded server, if the capture says it.
    pub server_isn: Option<u32>,
    pub has_syn: bool,
    /// The options of the recorded SYN-ACK.
    pub server_options: Option<Options>,
    /// What the recorded server sent, from the byte behind its SYN on.
    pub server_bytes: Vec<u8>,
    /// Which of these a segment in the capture says to carry, and which the capture has.
    claimed: Ranges,
    captured: Ranges,
}

/// How many frames take no part, by reason.
#[derive(Clone, Copy, Default, Debug)]
pub struct Skipped {
    pub other_hosts: u64,
    pub other_ports: u64,
    pub not_ip: u64,
}

/// See the module.
#[derive(Default)]
pub struct Recording {
    pub events: Vec<Event>,
    pub conversations: Vec<Conversation>,
    pub skipped: Skipped,
    /// Ends that were seen to be asked for a connection, for who has named the wrong one.
    pub servers: Vec<SocketAddr>,
}

/// The two ends of a segment, as the key of its conversation.
type Ends = (SocketAddr, u16);

impl Recording {
    /// Sorts the frames of a capture.
    pub fn new(frames: Vec<CapturedFrame>, address: IpAddr, ports: &[u16]) -> Recording {
        let mut recording = Recording::default();
        for frame in frames {
            recording.take(frame, address, ports);
        }
        recording.sort_into_conversations();
        recording.assemble();
        recording
    }

    fn take(&mut self, captured: CapturedFrame, address: IpAddr, ports: &[u16]) {
        let CapturedFrame { at_ns, bytes, cut_bytes, .. } = captured;
        let Some(view) = packet::view(&bytes, cut_bytes) else {
            self.skipped.not_ip += 1;
            return;
        };
        let sender = match view {
            View::Tcp(segment) => {
                if segment.is_syn() && !self.servers.contains(&segment.destination) {
                    self.servers.push(segment.destination);
                }
                let is_listed = |end: SocketAddr| end.ip() == address && ports.contains(&end.port());
                match (is_listed(segment.destination), is_listed(segment.source)) {
                    (true, _) => Some(Sender::Client),
                    (false, true) => Some(Sender::Server),
                    (false, false) => {
                        let ips = [segment.source.ip(), segment.destination.ip()];
                        let skipped = &mut self.skipped;
                        *(if ips.contains(&address) { &mut skipped.other_ports } else { &mut skipped.other_hosts }) +=
                            1;
                        return;
                    }
                }
            }
            View::Question(target) => (target == address).then_some(Sender::Client),
            View::Ip { destination, protocol, is_fragment, .. } => {
                let is_for_us = destination == address && ([ICMPV4, ICMPV6, TCP].contains(&protocol) || is_fragment);
                is_for_us.then_some(Sender::Client)
            }
        };
        match sender {
            Some(sender) => {
                self.events.push(Event { at_ns, sender, frame: bytes, cut_bytes, view, conversation: None });
            }
            None => self.skipped.other_hosts += 1,
        }
    }

    fn segments(&self) -> impl Iterator<Item = (usize, Sender, Ends, Segment)> {
        self.events.iter().enumerate().filter_map(|(index, event)| match event.view {
            View::Tcp(segment) => Some((index, event.sender, ends_of(event.sender, &segment), segment)),
            View::Question(_) | View::Ip { .. } => None,
        })
    }

    fn sort_into_conversations(&mut self) {
        let mut syn_acks: HashMap<Ends, Vec<(usize, Segment)>> = HashMap::new();
        for (index, sender, ends, segment) in self.segments() {
            if sender == Sender::Server && segment.is_syn_ack() {
                syn_acks.entry(ends).or_default().push((index, segment));
            }
        }
        let mut current: HashMap<Ends, usize> = HashMap::new();
        let mut conversations: Vec<Conversation> = Vec::new();
        let mut members = Vec::new();
        for (index, sender, ends, segment) in self.segments() {
            let answer = (sender == Sender::Client && segment.is_syn())
                .then(|| answer_to(&segment, index, syn_acks.get(&ends).map_or(&[], Vec::as_slice)));
            let known = current.get(&ends).copied();
            let is_of_known = known.is_some_and(|known| {
                let known = &conversations[known];
                match answer {
                    // An answer that was given before is an answer to the same SYN, sent again.
                    Some(Some(answer)) => known.server_isn == Some(answer.seq) && known.client_isn == segment.seq,
                    Some(None) | None => true,
                }
            });
            let conversation = match known {
                Some(known) if is_of_known => known,
                _ => {
                    conversations.push(begin(sender, &segment, answer.flatten()));
                    current.insert(ends, conversations.len() - 1);
                    conversations.len() - 1
                }
            };
            conversations[conversation].learn(sender, &segment);
            members.push((index, conversation));
        }
        for (index, conversation) in members {
            self.events[index].conversation = Some(conversation);
        }
        self.conversations = conversations;
    }

    /// Puts together what the recorded server sent.
    fn assemble(&mut self) {
        let mut room = SERVER_BYTES_MAX;
        for event in &self.events {
            if let (Sender::Server, View::Tcp(segment), Some(index)) = (event.sender, event.view, event.conversation) {
                self.conversations[index].take_server_bytes(&segment, segment.payload(&event.frame), &mut room);
            }
        }
    }
}

fn ends_of(sender: Sender, segment: &Segment) -> Ends {
    match sender {
        Sender::Client => (segment.source, segment.destination.port()),
        Sender::Server => (segment.destination, segment.source.port()),
    }
}

/// The SYN-ACK by which a SYN was answered: the next that acknowledges it, with its payload or without.
fn answer_to(syn: &Segment, index: usize, syn_acks: &[(usize, Segment)]) -> Option<Segment> {
    let is_answer = |answer: &Segment| {
        let acknowledged = answer.ack.wrapping_sub(syn.seq);
        (1..=1 + syn.payload_bytes).contains(&acknowledged)
    };
    syn_acks.iter().find(|(at, answer)| *at > index && is_answer(answer)).map(|(_, answer)| *answer)
}

fn begin(sender: Sender, segment: &Segment, answer: Option<Segment>) -> Conversation {
    let (client, server_port) = ends_of(sender, segment);
    let answer = answer.or((sender == Sender::Server && segment.is_syn_ack()).then_some(*segment));
    Conversation {
        client,
        server_port,
        client_isn: if sender == Sender::Client { segment.seq } else { segment.ack.wrapping_sub(1) },
        server_isn: answer.map(|answer| answer.seq),
        has_syn: false,
        server_options: answer.map(|answer| answer.options),
        server_bytes: Vec::new(),
        claimed: Ranges::default(),
        captured: Ranges::default(),
    }
}

impl Conversation {
    /// Learns what the begin did not tell. A capture that lacks the SYN-ACK still tells the server's number by the
    /// first acknowledgment of the client's, which is that of the handshake.
    fn learn(&mut self, sender: Sender, segment: &Segment) {
        self.has_syn |= sender == Sender::Client && segment.is_syn() && segment.seq == self.client_isn;
        if sender == Sender::Client && segment.control.has(Control::ACK) && self.server_isn.is_none() {
            self.server_isn = Some(segment.ack.wrapping_sub(1));
        }
    }

    /// A sequence number of the recorded server as an offset from its initial one.
    pub fn server_offset(&self, seq: u32) -> Option<u32> {
        self.server_isn.map(|isn| seq.wrapping_sub(isn))
    }

    /// Where the bytes of one of the recorded server's segments end, as a count from its first byte on; `None` where
    /// they lie too far ahead to be believed.
    pub fn server_end(&self, segment: &Segment) -> Option<u32> {
        let start = self.server_offset(segment.seq)?.wrapping_add(u32::from(segment.control.has(Control::SYN)));
        let end = start.wrapping_sub(1).checked_add(segment.payload_bytes)?;
        (end as usize <= self.server_bytes.len()).then_some(end)
    }

    /// Enters what a segment of the recorded server's carries, and takes it off the room that there is for all. What
    /// the capture lacks is entered as zeros: it was sent all the same.
    fn take_server_bytes(&mut self, segment: &Segment, payload: &[u8], room: &mut usize) {
        // Only what takes room in the sequence says where its sender is: an ACK stands behind a FIN, too.
        if segment.control.has(Control::RST) || (segment.payload_bytes == 0 && !segment.control.has(Control::FIN)) {
            return;
        }
        let Some(offset) = self.server_offset(segment.seq) else { return };
        let start = offset.wrapping_add(u32::from(segment.control.has(Control::SYN))).wrapping_sub(1);
        let known = self.server_bytes.len() as u32;
        let believed = known.max(self.claimed.bytes().saturating_add(HOLE_BYTES_MAX));
        let Some(end) = start.checked_add(segment.payload_bytes).filter(|end| *end <= believed) else { return };
        let more = end.saturating_sub(known) as usize;
        if more > *room {
            return;
        }
        *room -= more;
        self.server_bytes.resize(known.max(end) as usize, 0);
        let place = start as usize..start as usize + payload.len();
        self.server_bytes[place].copy_from_slice(payload);
        self.claimed.add(start, end);
        self.captured.add(start, start + payload.len() as u32);
    }

    /// How many of the recorded server's bytes the capture does not have.
    pub fn lacking_bytes(&self) -> u32 {
        self.server_bytes.len() as u32 - self.captured.bytes()
    }
}
