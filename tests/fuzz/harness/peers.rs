//! Peers: what comes out of the wire into the stack, segments above all.

use super::book::peer_bytes;
use super::ecn::CE;
use super::frame::{self, ACK, CWR, ECE, Ends, SYN, Segment, URG};
use super::operation::{Aim, Block, PEERS, Shot};
use super::profile::{GATEWAY, LOCALS, PORTS};
use super::translate::{self, Family};
use super::wire::{Talk, is_after};
use super::world::World;

/// A port that nobody listens on.
const CLOSED_PORT: u16 = 9;
/// Most bytes of options that a header has.
const OPTIONS_BYTES_MAX: usize = 40;
/// A timestamps option, aligned.
const TIMESTAMPS_BYTES: usize = 12;
/// The first timestamp of every peer.
const TIMESTAMP: u32 = 256;

/// The ends of a peer.
pub fn ends_of_peer(peer: u8) -> Ends {
    let peer = peer % PEERS as u8;
    let remote = match peer {
        6 => [10, 0, 0, 7],
        7 => [198, 51, 100, 7],
        _ => [10, 0, 0, 2 + peer],
    };
    Ends {
        mac: [2, 0, 0, 0, 1, peer],
        remote,
        remote_port: 40_000 + u16::from(peer),
        local: LOCALS[usize::from(peer == 3)],
        local_port: if peer == 4 { PORTS[1] } else { PORTS[0] },
    }
}

/// The options of a SYN, and of others.
fn options(kind: u8) -> &'static [u8] {
    const MSS_1460: &[u8] = &[2, 4, 0x05, 0xb4];
    match kind % 16 {
        0 => MSS_1460,
        1 => &[2, 4, 0x05, 0xb4, 1, 3, 3, 7],
        2 => &[],
        3 => &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 2],
        4 => &[2, 4, 0, 100],
        5 => &[2, 4, 0, 1],
        6 => &[1, 3, 3, 14, 2, 4, 0xff, 0xff],
        7 => &[3, 3, 255, 2, 4, 2, 0x18],
        8 => &[3, 3, 0],
        9 => &[2, 0, 5, 0xb4],
        10 => &[254, 6, 1, 2, 3, 4, 2, 4, 2, 0],
        11 => &[1; 40],
        12 => &[8, 10, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0],
        13 => &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        14 => &[2, 4, 0x05, 0xb4, 3, 3, 1],
        _ => &[0, 2, 4, 0x05, 0xb4],
    }
}

/// The options of a SYN; with SACK-permitted in front, if the peer wants it.
fn syn_options(kind: u8, has_sack: bool) -> Vec<u8> {
    let mut all = if has_sack { vec![4, 2] } else { Vec::new() };
    all.extend_from_slice(options(kind));
    all.truncate(OPTIONS_BYTES_MAX);
    all
}

/// A SACK block of what is in flight, whose segments have so many bytes.
fn aimed_block(talk: &Talk, segment_bytes: u32, block: Block) -> (u32, u32) {
    let (una, next) = (talk.snd_una, talk.snd_nxt);
    let flight = next.wrapping_sub(una);
    let segments = |count: u8| u32::from(count) * segment_bytes;
    let eighths = |count: u8| (flight / 8).wrapping_mul(u32::from(count));
    match block {
        Block::Segments { skip, count } => {
            let start = segments(skip).min(flight);
            (una.wrapping_add(start), una.wrapping_add(flight.min(start.saturating_add(segments(count)))))
        }
        Block::Eighths { skip, count } => (una.wrapping_add(eighths(skip)), una.wrapping_add(eighths(skip + count))),
        Block::Duplicate { back, count } => {
            let start = una.wrapping_sub(segments(back));
            (start, start.wrapping_add(segments(count)))
        }
        Block::Wrong { kind, beside } => {
            let beside = u32::from(beside);
            match kind {
                0 => (next, una),
                1 => (una.wrapping_add(beside), una.wrapping_add(beside)),
                2 => (una, next.wrapping_add(1 + beside)),
                3 => (next.wrapping_add(beside), next.wrapping_add(100)),
                4 => (una.wrapping_sub(1 << 30), una.wrapping_add(beside)),
                5 => (una.wrapping_add(beside), una.wrapping_add(1 << 31)),
                6 => (0, beside),
                _ => (una.wrapping_add(beside), una.wrapping_add(beside + 1)),
            }
        }
    }
}

impl World {
    fn aimed_seq(&self, wire: usize, aim: Aim) -> u32 {
        let talk = self.wires[wire].talk;
        let near = match (talk, aim.near) {
            (None, 0) => 1_000,
            (None, 1) => 0xffff_fff0,
            (None, 2) => 0x7fff_ffff,
            (None, _) => 0,
            (Some(talk), 0) => talk.peer_nxt,
            (Some(talk), 1) => talk.rcv_nxt,
            (Some(talk), 2) => talk.edge,
            (Some(talk), 3) => talk.irs,
            (Some(talk), 4) => talk.irs.wrapping_add(1),
            (Some(talk), 5) => talk.rcv_nxt.wrapping_add(talk.edge.wrapping_sub(talk.rcv_nxt) / 2),
            (Some(_), _) => 0,
        };
        near.wrapping_add(aim.beside as u32)
    }

    fn aimed_ack(&self, wire: usize, aim: Aim) -> u32 {
        let Some(talk) = self.wires[wire].talk else { return aim.beside as u32 };
        let near = match aim.near {
            0 => talk.snd_nxt,
            1 => talk.snd_una,
            2 => talk.iss,
            3 => talk.iss.wrapping_add(1),
            4 => talk.snd_una.wrapping_add(talk.snd_nxt.wrapping_sub(talk.snd_una) / 2),
            5 => talk.snd_una.wrapping_add(536),
            _ => 0,
        };
        near.wrapping_add(aim.beside as u32)
    }

    /// Writes a segment with the bytes that a peer sends under its number.
    fn write_segment(&mut self, ends: &Ends, segment: Segment<'_>, bytes: u16) {
        let first = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        let payload = peer_bytes(first, usize::from(bytes));
        self.write(|out| frame::write_segment(out, ends, &Segment { payload, ..segment }));
    }

    /// The same, with a timestamp in front of the options where both ends have agreed on them.
    fn write_agreed(&mut self, wire: usize, ends: &Ends, segment: Segment<'_>, bytes: u16) {
        let Some((echo, heard)) = self.wires[wire].talk.and_then(|talk| talk.timestamps) else {
            return self.write_segment(ends, segment, bytes);
        };
        // No peer's clock goes back behind what somebody has said in its name.
        let value = TIMESTAMP.wrapping_add((self.now.ms() - self.start.ms()) as u32);
        let value = if is_after(heard, value) { heard } else { value };
        let mut options = [0; OPTIONS_BYTES_MAX];
        options[..4].copy_from_slice(&[1, 1, 8, 10]);
        options[4..8].copy_from_slice(&value.to_be_bytes());
        options[8..TIMESTAMPS_BYTES].copy_from_slice(&echo.to_be_bytes());
        let end = TIMESTAMPS_BYTES + segment.options.len();
        options[TIMESTAMPS_BYTES..end].copy_from_slice(segment.options);
        self.write_segment(ends, Segment { options: &options[..end], ..segment }, bytes);
    }

    pub(super) fn shoot(&mut self, shot: &Shot) {
        let mut ends = ends_of_peer(shot.peer);
        let wire = self.wire_of(&ends);
        ends.mac[4] += u8::from(shot.has_other_mac);
        let segment = Segment {
            seq: self.aimed_seq(wire, shot.seq),
            ack: self.aimed_ack(wire, shot.ack),
            control: if shot.is_marked { shot.control | ECE | CWR } else { shot.control },
            window: shot.window,
            urgent: if shot.control & URG == 0 { 0 } else { shot.bytes },
            ecn: if shot.is_marked { CE } else { 0 },
            options: options(shot.options),
            payload: &[],
        };
        match shot.options == 0 && !segment.has(SYN) {
            true => self.write_agreed(wire, &ends, Segment { options: &[], ..segment }, shot.bytes),
            false => self.write_segment(&ends, segment, shot.bytes),
        }
        if !shot.is_held || self.going_count() >= 16 {
            self.deliver();
        }
    }

    pub(super) fn connect(&mut self, peer: u8, kind: u8, window: u16) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let irs = match self.wires[wire].talk {
            Some(talk) => talk.peer_nxt.wrapping_add(100_000),
            None => [1_000, 0xffff_ff00, 0x7fff_fff0, 0][usize::from(peer & 3)],
        };
        let options = syn_options(kind, kind & 16 != 0);
        let syn =
            Segment { seq: irs, ack: 0, control: SYN, window, urgent: 0, ecn: 0, options: &options, payload: &[] };
        self.write_segment(&ends, syn, 0);
        self.deliver();
        if self.wires[wire].talk.is_some_and(|talk| talk.irs == irs) {
            self.say(peer, 0, ACK, window);
        }
    }

    /// What comes next in the peer's stream, with an acknowledgment of everything.
    pub(super) fn say(&mut self, peer: u8, bytes: u16, control: u8, window: u16) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let Some(talk) = self.wires[wire].talk else { return };
        let (seq, ack) = (talk.rcv_nxt, talk.snd_nxt);
        let segment = Segment { seq, ack, control, window, urgent: 0, ecn: 0, options: &[], payload: &[] };
        self.write_agreed(wire, &ends, segment, bytes);
        self.deliver();
    }

    /// An acknowledgment with SACK blocks, as many as there is room for.
    pub(super) fn select(&mut self, peer: u8, ack: Aim, blocks: &[Block], window: u16) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let Some(talk) = self.wires[wire].talk else { return };
        let (taken, count_max) = if talk.timestamps.is_some() { (TIMESTAMPS_BYTES, 3) } else { (0, 4) };
        let segment_bytes = u32::from(talk.mss.min(self.config.mtu - 40)).saturating_sub(taken as u32);
        let blocks = blocks.iter().take(count_max).map(|&block| aimed_block(&talk, segment_bytes, block));
        self.say_blocks(peer, self.aimed_ack(wire, ack), &blocks.collect::<Vec<_>>(), (0, window));
    }

    /// What comes next in the peer's stream, with an acknowledgment and these SACK blocks.
    pub(super) fn say_blocks(&mut self, peer: u8, ack: u32, blocks: &[(u32, u32)], (bytes, window): (u16, u16)) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let Some(seq) = self.wires[wire].talk.map(|talk| talk.rcv_nxt) else { return };
        let mut options = if blocks.is_empty() { Vec::new() } else { vec![1, 1, 5, 2 + 8 * blocks.len() as u8] };
        for (start, end) in blocks {
            options.extend(start.to_be_bytes());
            options.extend(end.to_be_bytes());
        }
        let segment = Segment { seq, ack, control: ACK, window, urgent: 0, ecn: 0, options: &options, payload: &[] };
        self.write_agreed(wire, &ends, segment, bytes);
        self.deliver();
    }

    /// Payload beyond a gap, to go in with the next frames.
    pub(super) fn skip(&mut self, peer: u8, control: u8, has_ack: bool, gap_bytes: u16, (bytes, window): (u16, u16)) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let Some(talk) = self.wires[wire].talk else { return };
        let seq = talk.rcv_nxt.wrapping_add(u32::from(gap_bytes));
        let ack = if has_ack { talk.snd_nxt } else { talk.snd_una };
        let segment = Segment { seq, ack, control, window, urgent: 0, ecn: 0, options: &[], payload: &[] };
        self.write_agreed(wire, &ends, segment, bytes);
    }

    /// A peer says where it is, or where the gateway to it is.
    pub(super) fn appear(&mut self, peer: u8) {
        let ends = ends_of_peer(peer);
        let local = ends.local;
        self.write(|out| frame::write_arp(out, &ends, false, local));
        self.write(|out| frame::write_arp(out, &Ends { remote: GATEWAY, ..ends }, false, LOCALS[0]));
        self.deliver();
    }

    /// Something that is no good segment.
    pub(super) fn throw(&mut self, peer: u8, kind: u8, byte: u8) {
        let ends = ends_of_peer(peer);
        match kind % 8 {
            0 => self.write(|out| frame::write_arp(out, &ends, byte & 1 == 0, LOCALS[usize::from(byte >> 1 & 1)])),
            1 => self.write(|out| frame::write_arp(out, &ends, true, [10, 0, 0, byte])),
            2 => {
                let gateway = Ends { remote: GATEWAY, ..ends };
                self.write(|out| frame::write_arp(out, &gateway, false, LOCALS[0]));
            }
            3 => {
                let local = if byte & 0x80 == 0 { ends.local } else { [10, 0, 0, 77] };
                let remote = if byte & 0x40 == 0 { ends.remote } else { LOCALS[0] };
                self.ping(&Ends { local, remote, ..ends }, if byte & 0x20 == 0 { 8 } else { byte & 0x0f });
            }
            4 => {
                let ends = Ends { local_port: CLOSED_PORT, ..ends };
                let wire = self.wire_of(&ends);
                let aim = Aim { near: 6, beside: 5 };
                let seq = self.aimed_seq(wire, aim);
                let control = byte & 0x3f;
                let segment =
                    Segment { seq, ack: 77, control, window: 9, urgent: 0, ecn: 0, options: &[], payload: b"x" };
                self.write(|out| frame::write_segment(out, &ends, &segment));
            }
            5 if kind & 0x80 != 0 => self.throw_routed(&ends, byte),
            6 if kind & 0x80 != 0 && self.family == Family::Ipv6 => {
                // As many as a batch takes, so that a bound on answers is near.
                let count = if kind & 0x40 == 0 { 1 } else { 60 };
                for _ in 0..count {
                    self.write(|out| {
                        translate::strange(out, [frame::SERVER_MAC, ends.mac], (ends.remote, ends.local), byte)
                    });
                }
            }
            7 if kind & 0x80 != 0 => self.throw_parts(&ends, kind >> 3 & 15, byte),
            _ => self.throw_broken(&ends, kind, byte),
        }
        self.deliver();
    }

    /// A segment with options of IPv4: a loose or strict source route, or something harmless.
    fn throw_routed(&mut self, ends: &Ends, byte: u8) {
        let segment =
            Segment { seq: 5, ack: 5, control: byte & 0x3f, window: 9, urgent: 0, ecn: 0, options: &[], payload: &[] };
        let kind = [131, 137, 7, 1][usize::from(byte >> 6)];
        self.write(|out| {
            let start = out.len();
            frame::write_segment(out, ends, &segment);
            let options = [kind, 7, 4, 10, 0, 0, 9, 0];
            out.splice(start + frame::TCP_AT..start + frame::TCP_AT, options);
            out[start + 14] = 0x47;
            out[start + 17] += options.len() as u8;
            frame::repair_checksums(&mut out[start..]);
        });
    }

    /// The peer that the stack has called last answers, or calls at the same time.
    pub(super) fn answer(&mut self, is_simultaneous: bool, kind: u8) {
        let Some((wire, mac)) = self.called else { return };
        let Some(talk) = self.wires[wire].talk else { return };
        let ends = Ends { mac, ..self.wires[wire].ends };
        let control = if is_simultaneous { SYN } else { SYN | ACK };
        let seq = if kind & 16 == 0 { 70_000 } else { 0xffff_fffe };
        let syn = Segment {
            seq,
            ack: talk.iss.wrapping_add(1),
            control,
            window: 9_000,
            urgent: 0,
            ecn: 0,
            options: &syn_options(kind, kind & 32 != 0),
            payload: &[],
        };
        self.write_segment(&ends, syn, 0);
        self.deliver();
    }

    /// An ICMP error that quotes a segment of the stack's.
    pub(super) fn trouble(&mut self, peer: u8, (kind, code, mtu): (u8, u8, u16), ack: Aim) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let seq = self.aimed_ack(wire, ack);
        self.write(|out| {
            let start = out.len();
            frame::write_headers(out, &ends, 1, 8 + 28);
            let [mtu_high, mtu_low] = mtu.to_be_bytes();
            let [length_high, length_low] = if mtu == 0 { 40_u16 } else { 1_500 }.to_be_bytes();
            out.extend_from_slice(&[kind, code, 0, 0, 0, 0, mtu_high, mtu_low]);
            out.extend_from_slice(&[0x45, 0, length_high, length_low, 0, 0, 0x40, 0, 60, 6, 0, 0]);
            out.extend_from_slice(&ends.local);
            out.extend_from_slice(&ends.remote);
            out.extend_from_slice(&ends.local_port.to_be_bytes());
            out.extend_from_slice(&ends.remote_port.to_be_bytes());
            out.extend_from_slice(&seq.to_be_bytes());
            frame::repair_checksums(&mut out[start..]);
        });
        self.deliver();
    }

    fn ping(&mut self, ends: &Ends, kind: u8) {
        self.write(|out| {
            let start = out.len();
            frame::write_headers(out, ends, 1, 12);
            out.extend_from_slice(&[kind, 0, 0, 0, 0, 1, 0, 1, 9, 9, 9, 9]);
            frame::repair_checksums(&mut out[start..]);
        });
    }

    /// A segment that would be taken, but for one bit of its headers or its length. It carries nothing: under another
    /// number it would be something else than the peer's bytes.
    fn throw_broken(&mut self, ends: &Ends, kind: u8, byte: u8) {
        let wire = self.wire_of(ends);
        let talk = self.wires[wire].talk;
        let (seq, ack) = talk.map_or((1, 1), |talk| (talk.rcv_nxt, talk.snd_nxt));
        let segment = Segment { seq, ack, control: ACK, window: 500, urgent: 0, ecn: 0, options: &[], payload: &[] };
        self.write(|out| {
            let start = out.len();
            frame::write_segment(out, ends, &segment);
            let bytes = out.len() - start;
            let at = start + usize::from(byte) % bytes;
            match kind % 8 {
                5 => out.truncate(at),
                6 => out[at] ^= 1 << (kind >> 5),
                _ => {
                    out[at] ^= 1 << (kind >> 5);
                    frame::repair_checksums(&mut out[start..]);
                }
            }
        });
    }
}
