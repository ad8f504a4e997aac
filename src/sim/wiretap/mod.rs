//! What the node says on the wire, frame by frame, against what it may say.
//!
//! Frames come in as they are handed to the network, before anything is lost. Checked are form and checksums, and
//! for each connection: one initial sequence number, acknowledgments that never go back and never name what was not
//! sent, segments no larger than the client's MSS and within the window it has opened, the same bytes whenever a
//! sequence number is sent again (also by the process after a killed one), and nothing beyond the FIN.
//!
//! `form` takes frames apart and checks their form: segments of both families, ARP, and what the node says to its
//! neighbours over IPv6.
//!
//! Invariant: it reads frames with smoltcp and keeps its own books; nothing in here comes from the shard.

use smoltcp::wire::{TcpOption, TcpPacket};

mod form;

pub(super) use form::{Segment, from_client, from_node};

/// The books of one connection.
#[derive(Default)]
pub(super) struct Wiretap {
    client: Option<ClientBooks>,
    server: Option<ServerBooks>,
    /// Whether the node may still speak to a connection that had the client's end before, until it answers this one.
    is_successor: bool,
}

struct ClientBooks {
    isn: u32,
    mss: usize,
    shift: Option<u8>,
    syn_window: u32,
    /// Sequence number after the last one that it has used.
    end: u32,
    /// What it has acknowledged, once it has.
    acknowledged: Option<u32>,
    /// Sequence number after the last one that it has allowed the node to send, once it has acknowledged something.
    right_edge: Option<u32>,
}

struct ServerBooks {
    isn: u32,
    is_scaled: bool,
    shift: u8,
    acknowledged: u32,
    /// Sequence number after the last one that it has allowed the client to send.
    right_edge: u32,
    /// What was sent, by offset; `None` where frames died with a process before they were handed out.
    sent: Vec<Option<u8>>,
    fin_at: Option<usize>,
}

/// The largest payload for a peer that names no MSS, over IPv4 and over IPv6 (RFC 9293 §3.7.1).
const DEFAULT_MSS_IPV4: usize = 536;
const DEFAULT_MSS_IPV6: usize = 1_220;

impl Wiretap {
    /// The books of a connection that has not begun.
    pub(super) fn new(is_successor: bool) -> Wiretap {
        Wiretap { is_successor, ..Wiretap::default() }
    }

    /// A client sends this segment.
    pub(super) fn on_client(&mut self, segment: &Segment<'_>) {
        let tcp = &segment.tcp;
        let (seq, window) = (tcp.seq_number().0 as u32, u32::from(tcp.window_len()));
        let end = seq.wrapping_add(tcp.segment_len() as u32);
        if tcp.syn() && self.client.as_ref().is_none_or(|books| books.isn != seq) {
            let mut mss = if segment.client.is_ipv6() { DEFAULT_MSS_IPV6 } else { DEFAULT_MSS_IPV4 };
            let mut shift = None;
            for option in options(tcp) {
                match option {
                    TcpOption::MaxSegmentSize(bytes) => mss = usize::from(bytes),
                    TcpOption::WindowScale(value) => shift = Some(value),
                    _ => {}
                }
            }
            self.client = Some(ClientBooks {
                isn: seq,
                mss,
                shift,
                syn_window: window,
                end,
                acknowledged: None,
                right_edge: None,
            });
            return;
        }
        let Some(books) = &mut self.client else { return };
        if !tcp.rst() && is_after(end, books.end) {
            books.end = end;
        }
        if tcp.ack() && !tcp.rst() {
            let is_scaled = self.server.as_ref().is_some_and(|server| server.is_scaled);
            let shift = if is_scaled { books.shift.unwrap_or(0) } else { 0 };
            let acknowledged = tcp.ack_number().0 as u32;
            if books.acknowledged.is_none_or(|before| is_after(acknowledged, before)) {
                books.acknowledged = Some(acknowledged);
            }
            let edge = acknowledged.wrapping_add(window << shift);
            if books.right_edge.is_none_or(|before| is_after(edge, before)) {
                books.right_edge = Some(edge);
            }
        }
    }

    /// How far the numbers of a client's segment lie from those that both ends have used; `u32::MAX` if one of them has
    /// sent no SYN.
    pub(super) fn distance(&self, segment: &Segment<'_>) -> u32 {
        let (Some(client), Some(server)) = (&self.client, &self.server) else { return u32::MAX };
        let server_end = server.isn.wrapping_add(1 + server.sent.len() as u32 + u32::from(server.fin_at.is_some()));
        let seq = distance_from(segment.tcp.seq_number().0 as u32, client.isn, client.end);
        match segment.tcp.ack() {
            true => seq.saturating_add(distance_from(segment.tcp.ack_number().0 as u32, server.isn, server_end)),
            false => seq,
        }
    }

    /// How many bytes of the node's stream the client's TCP has acknowledged.
    pub(super) fn delivered_bytes(&self) -> u64 {
        let acknowledged = self.client.as_ref().and_then(|client| client.acknowledged);
        let (Some(server), Some(acknowledged)) = (&self.server, acknowledged) else { return 0 };
        let bytes = acknowledged.wrapping_sub(server.isn.wrapping_add(1)) as usize;
        // A FIN has a number, and is no byte.
        bytes.min(server.sent.len()) as u64
    }

    /// How many bytes of the client's stream the node has acknowledged; its FIN counts as one.
    pub(super) fn taken_bytes(&self) -> u64 {
        let (Some(server), Some(client)) = (&self.server, &self.client) else { return 0 };
        u64::from(server.acknowledged.wrapping_sub(client.isn.wrapping_add(1)))
    }

    /// Whether the node's sequence numbers have wrapped, and the client's.
    pub(super) fn wrapped(&self) -> (bool, bool) {
        let is_ours = self.server.as_ref().is_some_and(|it| it.isn.checked_add(it.sent.len() as u32).is_none());
        (is_ours, self.client.as_ref().is_some_and(|it| it.end < it.isn))
    }

    /// The node sends this segment to the client. `is_held`: the shard is known to hold the connection.
    pub(super) fn on_server(&mut self, segment: &Segment<'_>, is_held: bool) -> Result<(), &'static str> {
        let tcp = &segment.tcp;
        let is_of_predecessor = self.is_successor
            && self.server.is_none()
            && self.client.as_ref().is_none_or(|client| !(tcp.syn() && client.is_answered_by(tcp)));
        if tcp.rst() || is_of_predecessor {
            return Ok(());
        }
        let Some(client) = &self.client else { return Err("a segment to a client that had sent no SYN") };
        if !tcp.ack() {
            return Err("a segment without ACK");
        }
        if tcp.syn() {
            return self.on_server_syn(tcp, is_held);
        }
        let Some(server) = &mut self.server else { return Err("a segment before its SYN") };
        let acknowledged = tcp.ack_number().0 as u32;
        if is_after(acknowledged, client.end) {
            return Err("an acknowledgment of something that was never sent");
        }
        if is_after(server.acknowledged, acknowledged) {
            return Err("an acknowledgment that goes back");
        }
        server.acknowledged = acknowledged;
        let shift = if server.is_scaled { server.shift } else { 0 };
        let right_edge = acknowledged.wrapping_add(u32::from(tcp.window_len()) << shift);
        // The field is rounded down to its unit, the edge behind it is not (RFC 7323 §2.4).
        if is_after(server.right_edge, right_edge.wrapping_add((1 << shift) - 1)) {
            return Err("a window whose right edge has moved to the left");
        }
        if is_after(right_edge, server.right_edge) {
            server.right_edge = right_edge;
        }
        server.on_payload(tcp, client)
    }

    fn on_server_syn(&mut self, tcp: &TcpPacket<&[u8]>, is_held: bool) -> Result<(), &'static str> {
        let Some(client) = &mut self.client else { return Ok(()) };
        let (isn, acknowledged) = (tcp.seq_number().0 as u32, tcp.ack_number().0 as u32);
        if !client.is_answered_by(tcp) {
            return Err("a SYN that acknowledges something else than the client's");
        }
        if let Some(server) = &self.server {
            if server.isn == isn {
                return Ok(());
            }
            if is_held {
                return Err("a second initial sequence number for a connection it holds");
            }
        }
        let shift = options(tcp).find_map(|it| if let TcpOption::WindowScale(shift) = it { Some(shift) } else { None });
        let is_scaled = client.shift.is_some() && shift.is_some();
        let right_edge = acknowledged.wrapping_add(u32::from(tcp.window_len()));
        client.right_edge = Some(isn.wrapping_add(1).wrapping_add(client.syn_window));
        self.server = Some(ServerBooks {
            isn,
            is_scaled,
            shift: shift.unwrap_or(0),
            acknowledged,
            right_edge,
            sent: Vec::new(),
            fin_at: None,
        });
        Ok(())
    }
}

impl ClientBooks {
    fn is_answered_by(&self, tcp: &TcpPacket<&[u8]>) -> bool {
        tcp.ack_number().0 as u32 == self.isn.wrapping_add(1)
    }
}

impl ServerBooks {
    fn on_payload(&mut self, tcp: &TcpPacket<&[u8]>, client: &ClientBooks) -> Result<(), &'static str> {
        let payload = tcp.payload();
        let option_bytes = usize::from(tcp.header_len()) - 20;
        if payload.len() + option_bytes > client.mss {
            return Err("a segment larger than the client's MSS");
        }
        let seq = tcp.seq_number().0 as u32;
        let start = seq.wrapping_sub(self.isn.wrapping_add(1)) as usize;
        let end = start + payload.len();
        if payload.is_empty() && !tcp.fin() {
            return Ok(());
        }
        if start > 1 << 30 {
            return Err("payload from before its initial sequence number");
        }
        let right_edge = client.right_edge.unwrap_or(seq);
        let is_probe = payload.len() == 1 && !is_after(seq, right_edge);
        if !payload.is_empty() && !is_probe && is_after(seq.wrapping_add(payload.len() as u32), right_edge) {
            return Err("payload beyond the window that the client has opened");
        }
        if self.fin_at.is_some_and(|at| end > at || (tcp.fin() && end != at)) {
            return Err("something beyond its FIN, or a FIN in another place");
        }
        if tcp.fin() {
            if self.sent.len() > end {
                return Err("a FIN before bytes that it has sent");
            }
            self.fin_at = Some(end);
        }
        if self.sent.len() < end {
            self.sent.resize(end, None);
        }
        for (slot, &byte) in self.sent[start..end].iter_mut().zip(payload) {
            if slot.replace(byte).is_some_and(|before| before != byte) {
                return Err("other bytes under a sequence number that it had used before");
            }
        }
        Ok(())
    }
}

fn options<'a>(tcp: &'a TcpPacket<&'a [u8]>) -> impl Iterator<Item = TcpOption<'a>> {
    let mut rest = tcp.options();
    std::iter::from_fn(move || {
        let (next, option) = TcpOption::parse(rest).ok()?;
        rest = next;
        (option != TcpOption::EndOfList).then_some(option)
    })
}

/// How far a number lies outside of a range on the circle of sequence numbers.
fn distance_from(number: u32, start: u32, end: u32) -> u32 {
    match (is_after(start, number), is_after(number, end)) {
        (false, false) => 0,
        _ => start.wrapping_sub(number).min(number.wrapping_sub(end)),
    }
}

/// Whether `a` lies to the right of `b` on the circle of sequence numbers.
fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}
