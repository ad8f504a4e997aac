//! Fragments: those that go in, as parts of a packet, and those that come out, put together again.

use super::frame::{checksum, u16_at, u32_at};
use super::packet::Fault;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const FRAGMENT_HEADER_BYTES: usize = 8;
const FRAGMENT: u8 = 44;

/// The part of a packet that a fragment is of.
pub struct Piece {
    pub start: usize,
    pub end: usize,
    pub of: u32,
    pub is_last: bool,
}

impl Piece {
    /// The one that the faults speak of, of a packet with so many bytes behind its IP header.
    pub fn of(faults: &[Fault], bytes: usize) -> Option<Piece> {
        let mut piece = None;
        let (mut of, mut is_last) = (1, None);
        for fault in faults {
            match fault {
                Fault::Piece(start, end) => piece = Some((*start, *end)),
                Fault::PieceOf(number) => of = *number,
                Fault::Last(said) => is_last = Some(*said),
                _ => {}
            }
        }
        let (start, end) = piece?;
        assert!(start <= end && end <= bytes, "a piece is of what there is: {bytes} bytes");
        Some(Piece { start, end, of, is_last: is_last.unwrap_or(end == bytes) })
    }
}

/// What has come of a packet, in order.
#[derive(Default)]
pub struct Together {
    number: Option<u32>,
    headers: Vec<u8>,
    bytes: Vec<u8>,
}

impl Together {
    /// Takes a frame. Returns it, or the whole that it completes; `None` while something is missing. The error says
    /// what is wrong with a fragment.
    pub fn take(&mut self, frame: Vec<u8>, mtu: usize) -> Result<Option<Vec<u8>>, String> {
        let Some((headers_bytes, number, offset, is_last)) = fields(&frame) else { return Ok(Some(frame)) };
        if frame.len() > mtu + ETHERNET_BYTES {
            return Err("a fragment that is larger than the MTU".into());
        }
        if self.number.is_some_and(|known| known != number) || offset != self.bytes.len() {
            return Err("a fragment that does not follow the one before".into());
        }
        let headers = &frame[..headers_bytes];
        if headers[12..14] == [8, 0] && checksum(&[&headers[ETHERNET_BYTES..]]) != 0 {
            return Err("a wrong checksum of a fragment".into());
        }
        if self.headers.is_empty() {
            self.headers = headers.to_vec();
        }
        self.number = Some(number);
        self.bytes.extend(&frame[headers_bytes..]);
        if !is_last && !self.bytes.len().is_multiple_of(8) {
            return Err("a fragment of an odd length".into());
        }
        Ok(is_last.then(|| std::mem::take(self).whole()))
    }

    fn whole(self) -> Vec<u8> {
        let mut frame = self.headers;
        let ip = &mut frame[ETHERNET_BYTES..];
        if ip[0] >> 4 == 4 {
            ip[2..4].copy_from_slice(&((IPV4_BYTES + self.bytes.len()) as u16).to_be_bytes());
            ip[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
            ip[10..12].fill(0);
            let sum = checksum(&[ip]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&(self.bytes.len() as u16).to_be_bytes());
            ip[6] = ip[IPV6_BYTES];
            frame.truncate(ETHERNET_BYTES + IPV6_BYTES);
        }
        frame.extend(self.bytes);
        frame
    }
}

/// Of a fragment: the length of its headers, its packet's number, where it begins, and whether none follows.
fn fields(frame: &[u8]) -> Option<(usize, u32, usize, bool)> {
    let ip = frame.get(ETHERNET_BYTES..)?;
    match frame[12..14] {
        [8, 0] if ip.len() >= IPV4_BYTES && u16_at(ip, 6) & 0x3fff != 0 => {
            let (field, number) = (u16_at(ip, 6), u16_at(ip, 4));
            let offset = usize::from(field & 0x1fff) * 8;
            Some((ETHERNET_BYTES + IPV4_BYTES, number.into(), offset, field & 0x2000 == 0))
        }
        [0x86, 0xdd] if ip.len() >= IPV6_BYTES + FRAGMENT_HEADER_BYTES && ip[6] == FRAGMENT => {
            let header = &ip[IPV6_BYTES..];
            let field = u16_at(header, 2);
            let headers_bytes = ETHERNET_BYTES + IPV6_BYTES + FRAGMENT_HEADER_BYTES;
            Some((headers_bytes, u32_at(header, 4), usize::from(field & 0xfff8), field & 1 == 0))
        }
        _ => None,
    }
}
