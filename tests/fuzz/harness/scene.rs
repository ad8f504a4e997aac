//! Scene: connections in every state, on which the bytes of a wire fall.
//!
//! ```text
//! input = profile flows:16 end frame*         a bit of `flows` for each connection that is there
//! frame = repair peer tick length byte*       what is repaired, whose it becomes, how long after the one before
//! ```

use std::net::IpAddr;

use holdline::shard::CloseHow;

use super::frame::{self, ACK, Ends, FIN};
use super::input::Input;
use super::operation::{Operation, PEERS, Target};
use super::peers::ends_of_peer;
use super::translate::{self, Family};
use super::world::World;

const ETHERTYPE_AT: usize = 12;
const IPV4_AT: usize = 14;

/// Bits of a frame's first byte; the checksums are repaired unless it is 0.
const KEEPS_ETHERNET: u8 = 0x01;
const KEEPS_ADDRESSES: u8 = 0x02;
const KEEPS_LENGTHS: u8 = 0x04;
const KEEPS_PORTS: u8 = 0x08;
const KEEPS_SEQ: u8 = 0x10;
const KEEPS_ACK: u8 = 0x20;
const IS_HELD: u8 = 0x40;
const KEEPS_CHECKSUMS: u8 = 0x80;

const WAITS_MS: [u32; 8] = [0, 0, 0, 1, 200, 1_000, 5_000, 61_000];

impl World {
    /// Puts the connections of a scene in place, each in a state of its own.
    pub fn set_scene(&mut self, flows: u16) {
        for peer in 0..PEERS as u8 {
            if flows >> peer & 1 == 1 {
                self.set_flow(peer, flows >> 8);
            }
        }
    }

    fn set_flow(&mut self, peer: u8, variant: u16) {
        let target = Target { peer, kind: 0 };
        let options = ((variant >> 1) as u8 & 1) | (variant as u8 & 16);
        let window = if variant & 1 == 0 { 65_535 } else { 600 };
        if peer == 0 {
            let zero = super::operation::Aim { near: 0, beside: 0 };
            return self.apply(&Operation::Shoot(super::operation::Shot {
                peer,
                is_held: false,
                has_other_mac: false,
                control: frame::SYN,
                is_marked: false,
                options,
                seq: zero,
                ack: zero,
                bytes: 0,
                window,
            }));
        }
        self.apply(&Operation::Connect { peer, options, window });
        if variant & 4 != 0 {
            self.push_plainly(target, 900);
        }
        match peer {
            2 => self.apply(&Operation::Close(target)),
            3 => {
                self.apply(&Operation::Close(target));
                self.apply(&Operation::Acknowledge { peer, window });
            }
            4 => {
                self.apply(&Operation::Behave(super::application::Behaviour::Keep));
                self.apply(&Operation::Finish { peer });
                self.apply(&Operation::Behave(super::application::Behaviour::Hold));
            }
            5 => {
                // Both FINs cross: the peer's acknowledges nothing of ours.
                let ends = ends_of_peer(peer);
                let wire = self.wire_of(&ends);
                let ack = self.wires[wire].talk.map_or(0, |talk| talk.snd_una);
                self.apply(&Operation::Close(target));
                self.cross_fin(&ends, wire, ack);
            }
            6 => self.apply(&Operation::Finish { peer }),
            7 => {
                self.apply(&Operation::Close(target));
                self.apply(&Operation::Finish { peer });
            }
            _ if variant & 8 != 0 => {
                self.apply(&Operation::Pause(target));
                self.apply(&Operation::Say { peer, bytes: 100, window });
            }
            _ => {}
        }
    }

    fn push_plainly(&mut self, target: Target, bytes: u16) {
        self.apply(&Operation::Push { target, bytes, expires_in_s: 0, key: 0, is_urgent: false });
    }

    fn cross_fin(&mut self, ends: &Ends, wire: usize, ack: u32) {
        let Some(talk) = self.wires[wire].talk else { return };
        let (seq, control) = (talk.rcv_nxt, ACK | FIN);
        let segment =
            frame::Segment { seq, ack, control, window: 65_535, urgent: 0, ecn: 0, options: &[], payload: &[] };
        self.write(|out| frame::write_segment(out, ends, &segment));
        self.deliver();
    }

    /// Lets one frame of the input fall on the wire.
    pub fn fall(&mut self, input: &mut Input<'_>) {
        let keeps = input.byte();
        let byte = input.byte();
        let (peer, wait) = (byte & 7, WAITS_MS[usize::from(byte >> 3 & 7)]);
        if wait > 0 {
            self.apply(&Operation::Jump { ms: wait });
        }
        if byte >> 6 == 3 {
            let target = Target { peer, kind: 0 };
            return match input.byte() & 3 {
                0 => self.push_plainly(target, 300),
                1 => self.close(target, CloseHow::Fin),
                2 => self.apply(&Operation::Pause(target)),
                _ => self.apply(&Operation::Resume(target)),
            };
        }
        let length = usize::from(input.byte()) * 2;
        let bytes = input.bytes(length);
        if byte >> 6 == 2 && self.family == Family::Ipv6 {
            let ends = ends_of_peer(peer);
            self.write(|out| write_ipv6(out, bytes, keeps, &ends));
            self.deliver();
            return;
        }
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let talk = self.wires[wire].talk;
        self.write(|out| {
            let start = out.len();
            out.extend_from_slice(bytes);
            let frame = &mut out[start..];
            repair(frame, keeps, &ends);
            if let Some(talk) = talk.filter(|_| frame.len() >= frame::TCP_AT + 20) {
                aim(frame, keeps, talk.rcv_nxt, talk.snd_nxt);
                if keeps & KEEPS_ACK == 0 {
                    aim_sack(frame, talk.snd_una);
                }
            }
            if keeps & KEEPS_CHECKSUMS == 0 {
                frame::repair_checksums(frame);
            }
        });
        if keeps & IS_HELD == 0 || self.going_count() >= 16 {
            self.deliver();
        }
    }
}

/// A frame of IPv6 whose header, but for what is repaired, and all that follows are these bytes.
fn write_ipv6(out: &mut Vec<u8>, bytes: &[u8], keeps: u8, ends: &Ends) {
    let start = out.len();
    out.extend_from_slice(&frame::SERVER_MAC);
    out.extend_from_slice(&ends.mac);
    out.extend_from_slice(&[0x86, 0xdd]);
    out.extend_from_slice(bytes);
    let frame = &mut out[start..];
    if frame.len() < IPV4_AT + 40 {
        return;
    }
    if keeps & KEEPS_ETHERNET != 0 {
        frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    }
    if keeps & KEEPS_LENGTHS == 0 {
        let payload = (frame.len() - IPV4_AT - 40) as u16;
        frame[IPV4_AT] = 0x60;
        frame[IPV4_AT + 4..IPV4_AT + 6].copy_from_slice(&payload.to_be_bytes());
    }
    if keeps & KEEPS_SEQ == 0 {
        frame[IPV4_AT + 7] = 255;
    }
    for (at, address, is_kept) in [(8, ends.remote, keeps & KEEPS_ADDRESSES), (24, ends.local, keeps & KEEPS_PORTS)] {
        if let (IpAddr::V6(address), 0) = (Family::Ipv6.on_wire(address), is_kept) {
            frame[IPV4_AT + at..IPV4_AT + at + 16].copy_from_slice(&address.octets());
        }
    }
    if keeps & KEEPS_CHECKSUMS == 0 {
        translate::set_checksum(frame, 0);
    }
}

/// Makes the frame one of the peer's, as far as it is long enough.
fn repair(frame: &mut [u8], keeps: u8, ends: &Ends) {
    if frame.len() < IPV4_AT + 20 {
        return;
    }
    if keeps & KEEPS_ETHERNET == 0 {
        frame[..6].copy_from_slice(&frame::SERVER_MAC);
        frame[6..12].copy_from_slice(&ends.mac);
        frame[ETHERTYPE_AT..IPV4_AT].copy_from_slice(&[8, 0]);
    }
    if keeps & KEEPS_LENGTHS == 0 {
        let total = (frame.len() - IPV4_AT) as u16;
        frame[IPV4_AT] = 0x45;
        frame[IPV4_AT + 2..IPV4_AT + 4].copy_from_slice(&total.to_be_bytes());
        frame[IPV4_AT + 6..IPV4_AT + 8].fill(0);
        frame[IPV4_AT + 9] = 6;
    }
    if keeps & KEEPS_ADDRESSES == 0 {
        frame[IPV4_AT + 12..IPV4_AT + 16].copy_from_slice(&ends.remote);
        frame[IPV4_AT + 16..IPV4_AT + 20].copy_from_slice(&ends.local);
    }
    if keeps & KEEPS_PORTS == 0 && frame.len() >= frame::TCP_AT + 4 {
        frame[frame::TCP_AT..frame::TCP_AT + 2].copy_from_slice(&ends.remote_port.to_be_bytes());
        frame[frame::TCP_AT + 2..frame::TCP_AT + 4].copy_from_slice(&ends.local_port.to_be_bytes());
    }
    if keeps & KEEPS_LENGTHS == 0 && frame.len() > frame::TCP_AT + 12 {
        // A header of some length that fits.
        let words_max = ((frame.len() - frame::TCP_AT) / 4).min(15) as u8;
        let words = frame[frame::TCP_AT + 12] >> 4;
        frame[frame::TCP_AT + 12] = words.min(words_max).max(5) << 4;
    }
}

/// The numbers of a SACK option become distances from the first byte in flight.
fn aim_sack(frame: &mut [u8], base: u32) {
    let header_end = (frame::TCP_AT + usize::from(frame[frame::TCP_AT + 12] >> 4) * 4).min(frame.len());
    let mut rest = frame.get_mut(frame::TCP_AT + 20..header_end).unwrap_or_default();
    while let [kind, behind @ ..] = rest {
        let bytes = if *kind <= 1 { 0 } else { behind.first().map_or(0, |&length| usize::from(length).max(2) - 1) };
        let (option, after) = behind.split_at_mut(bytes.min(behind.len()));
        if *kind == 5 {
            for number in option.get_mut(1..).unwrap_or_default().chunks_exact_mut(4) {
                let distance = i32::from(i16::from_be_bytes([number[2], number[3]]));
                number.copy_from_slice(&base.wrapping_add_signed(distance).to_be_bytes());
            }
        }
        rest = after;
    }
}

/// Sequence and acknowledgment numbers become distances from the connection's.
fn aim(frame: &mut [u8], keeps: u8, seq: u32, ack: u32) {
    for (at, base, is_kept) in [(4, seq, keeps & KEEPS_SEQ), (8, ack, keeps & KEEPS_ACK)] {
        let field = &mut frame[frame::TCP_AT + at..frame::TCP_AT + at + 4];
        if is_kept == 0 {
            // The low half is a signed distance, so that small ones are common.
            let distance = i32::from(i16::from_be_bytes([field[2], field[3]]));
            field.copy_from_slice(&base.wrapping_add_signed(distance).to_be_bytes());
        }
    }
}
