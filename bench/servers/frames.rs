//! Frames back to back, and the clients that make and read them.

use std::net::Ipv4Addr;

use holdline::tcp::{Control, Outgoing, SeqNum};
use holdline::wire::{Addressing, Packet, emit_tcp, parse};

use super::PAYLOAD;

/// The server's Ethernet address.
pub const MAC: [u8; 6] = [2, 0x68, 0x6f, 0x6c, 0x64, 1];
/// The server.
pub const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Its port.
pub const PORT: u16 = 7_000;
/// All clients are on one machine.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const FIRST_PORT: u16 = 1_024;
const FIRST_SEQ: u32 = 1_000;

/// Frames, one behind the other.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// One more, as `write` appends it.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// A client asks for the server's Ethernet address, and so tells its own.
    pub fn add_arp(&mut self) {
        self.add(|out| {
            out.extend_from_slice(&[0xff; 6]);
            out.extend_from_slice(&CLIENT_MAC);
            out.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            out.extend_from_slice(&CLIENT_MAC);
            out.extend_from_slice(&CLIENT.octets());
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&OURS.octets());
        });
    }

    /// Client number so-and-so wants to connect.
    pub fn add_syn(&mut self, client: u32) {
        let syn = Outgoing::bare(SeqNum(FIRST_SEQ), SeqNum(0), Control::SYN, u16::MAX);
        self.add_segment(FIRST_PORT + client as u16, &Outgoing { mss: Some(1_460), ..syn });
    }

    /// What clients say to these frames. Returns how many of them had a payload.
    pub fn add_answers(&mut self, sent: &Frames) -> usize {
        let mut pushes = 0;
        for frame in sent.iter() {
            let Ok(Packet::Tcp(packet)) = parse(frame, &CLIENT_MAC) else { continue };
            let segment = &packet.segment;
            assert!(!segment.control.has(Control::RST), "no connection is refused");
            let is_push = segment.payload_bytes > 0;
            if !is_push && !segment.control.has(Control::SYN) {
                continue;
            }
            assert!(!is_push || packet.payload == PAYLOAD, "what was pushed arrives");
            pushes += usize::from(is_push);
            let ack = segment.seq.plus(segment.length());
            let answer = Outgoing::bare(SeqNum(FIRST_SEQ + 1), ack, Control::ACK, u16::MAX);
            self.add_segment(packet.local_port, &answer);
        }
        pushes
    }

    fn add_segment(&mut self, local_port: u16, segment: &Outgoing) {
        let ends = Addressing {
            source_mac: CLIENT_MAC,
            destination_mac: MAC,
            local: CLIENT.into(),
            remote: OURS.into(),
            local_port,
            remote_port: PORT,
            ttl: 64,
            dscp: 0,
        };
        self.add(|out| {
            emit_tcp(out, &ends, segment, |_| ());
        });
    }
}
