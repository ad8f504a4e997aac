//! Fragments: frames that are cut on their way in, and packets that come in parts in every wrong way.
//!
//! What was cut in one batch is the same to the stack as what was not, so the oracle need not know.

use super::frame::{self, Ends, folded, sum, word_at};
use super::translate::{self, Family};
use super::world::World;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// As many as one batch has.
const PIECES_MAX: usize = 64;

/// How the next frame that goes in alone is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// A multiple of eight, and no less than a TCP header may have.
    pub piece_bytes: usize,
    pub is_reversed: bool,
}

/// One fragment: which part of the body, of which packet, and whether none follows.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    end: usize,
    number: u16,
    is_last: bool,
}

impl Cut {
    /// Puts the pieces of the first frame, which lie in `out`, in its place. Returns how many frames there are now.
    pub fn replace<'a>(self, frames: &mut [&'a [u8]; PIECES_MAX], out: &'a mut Vec<u8>) -> usize {
        let Some(ends) = self.pieces(frames[0], out) else { return 1 };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        for ((place, start), &end) in frames.iter_mut().zip(starts).zip(&ends) {
            *place = &out[start..end];
        }
        ends.len()
    }

    /// Appends the pieces of a frame and returns where each ends. `None` where it cannot be cut.
    fn pieces(self, whole: &[u8], out: &mut Vec<u8>) -> Option<Vec<usize>> {
        let (headers_bytes, end) = extent(whole)?;
        let body_bytes = end - headers_bytes;
        let count = body_bytes.div_ceil(self.piece_bytes);
        if !(2..=PIECES_MAX).contains(&count) {
            return None;
        }
        let piece = |index: usize| {
            let start = index * self.piece_bytes;
            let end = (start + self.piece_bytes).min(body_bytes);
            Piece { start, end, number: 0, is_last: index + 1 == count }
        };
        let number = word_at(whole, headers_bytes);
        let ends = (0..count).map(|at| {
            let index = if self.is_reversed { count - 1 - at } else { at };
            write(out, &whole[..end], headers_bytes, Piece { number, ..piece(index) });
            out.len()
        });
        Some(ends.collect())
    }
}

/// Where the body of a sound frame begins and ends, if it is TCP or ICMP without anything between.
fn extent(whole: &[u8]) -> Option<(usize, usize)> {
    let packet = whole.get(ETHERNET_BYTES..)?;
    let (headers_bytes, packet_bytes, protocol) = match whole[12..14] {
        [8, 0] if packet.len() >= IPV4_BYTES && packet[0] == 0x45 && folded(sum(&packet[..IPV4_BYTES])) == 0 => {
            (IPV4_BYTES, usize::from(word_at(packet, 2)), packet[9])
        }
        [0x86, 0xdd] if packet.len() >= IPV6_BYTES && packet[0] >> 4 == 6 && packet[7] != 255 => {
            (IPV6_BYTES, IPV6_BYTES + usize::from(word_at(packet, 4)), packet[6])
        }
        _ => return None,
    };
    let is_whole = (headers_bytes..=packet.len()).contains(&packet_bytes) && matches!(protocol, 1 | 6 | 58);
    is_whole.then_some((ETHERNET_BYTES + headers_bytes, ETHERNET_BYTES + packet_bytes))
}

fn write(out: &mut Vec<u8>, whole: &[u8], headers_bytes: usize, piece: Piece) {
    let Piece { start, end, number, is_last } = piece;
    let from = out.len();
    let bytes = end - start;
    out.extend_from_slice(&whole[..headers_bytes]);
    let ip = &mut out[from + ETHERNET_BYTES..];
    if headers_bytes == ETHERNET_BYTES + IPV4_BYTES {
        ip[2..4].copy_from_slice(&((IPV4_BYTES + bytes) as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&number.to_be_bytes());
        ip[6..8].copy_from_slice(&((start / 8) as u16 | if is_last { 0 } else { 0x2000 }).to_be_bytes());
        ip[10..12].fill(0);
        let checksum = folded(sum(ip));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        ip[4..6].copy_from_slice(&((8 + bytes) as u16).to_be_bytes());
        let next_header = std::mem::replace(&mut ip[6], 44);
        out.extend_from_slice(&[next_header, 0]);
        out.extend_from_slice(&(start as u16 & 0xfff8 | u16::from(!is_last)).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&whole[headers_bytes + start..headers_bytes + end]);
}

impl World {
    /// Parts of an echo request, or of a segment that no connection takes, that go in as they should not, in one batch.
    pub(super) fn throw_parts(&mut self, ends: &Ends, kind: u8, byte: u8) {
        if kind >= 8 {
            let piece_bytes = 64 + 8 * usize::from(byte & 0x1f);
            self.cut = Some(Cut { piece_bytes, is_reversed: kind & 1 == 1 });
            return;
        }
        let unit = 8 * (1 + usize::from(byte & 3));
        let body_bytes = if kind == 6 { 30_000 } else { 65 * 8 };
        let whole = self.echo_request(ends, body_bytes);
        let number = u16::from(byte);
        let piece = |start: usize, end: usize| Piece { start, end, number, is_last: end == body_bytes };
        let parts: Vec<Piece> = match kind {
            // In two halves, or one of them.
            0 => vec![piece(0, 256), piece(256, body_bytes)],
            1 => vec![piece(if byte & 4 == 0 { 0 } else { 256 }, body_bytes - 8)],
            2 => vec![piece(0, 256), piece(0, 256), piece(256, body_bytes)],
            3 => vec![piece(0, 256), piece(256 - unit, body_bytes), piece(256, body_bytes)],
            4 => vec![piece(256, body_bytes), Piece { is_last: true, ..piece(0, unit) }],
            5 => (0..64).map(|at| piece(8 * at, 8 * at + 8)).chain([piece(512, body_bytes)]).collect(),
            6 => (0..40).map(|at| Piece { number: at, ..piece(0, 29_984) }).collect(),
            _ => vec![piece(0, unit), Piece { is_last: false, ..piece(unit, unit + 3) }],
        };
        for part in parts {
            if self.going_count() == PIECES_MAX {
                self.deliver();
            }
            let (headers_bytes, _) = extent(&whole).expect("an echo request is sound");
            self.write_raw(|out| write(out, &whole, headers_bytes, part));
        }
    }

    /// How many frames wait for `deliver`.
    pub fn going_count(&self) -> usize {
        self.going_ends.len()
    }

    /// Writes a frame that is on the wire as it is, and no segment.
    fn write_raw(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.going);
        self.going_ends.push(self.going.len());
        self.is_all_resets = false;
    }

    /// An echo request with so many bytes behind its IP header, as it is on the wire.
    fn echo_request(&self, ends: &Ends, body_bytes: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        frame::write_headers(&mut frame, ends, 1, body_bytes);
        frame.push(8);
        frame.resize(ETHERNET_BYTES + IPV4_BYTES + body_bytes, 0);
        frame::repair_checksums(&mut frame);
        if self.family == Family::Ipv4 {
            return frame;
        }
        let mut translated = Vec::new();
        translate::going(&frame, &mut translated);
        translated
    }
}
