//! Captures as they are read: whole files, every packet with its time and its place.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use pcap_parser::nom::Err as NomError;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{
    EPB_MAGIC, IDB_MAGIC, LegacyPcapBlock, OptionCode, PcapError, SHB_MAGIC, SPB_MAGIC, parse_enhancedpacketblock_be,
    parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be, parse_interfacedescriptionblock_le,
    parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header, parse_sectionheaderblock,
    parse_simplepacketblock_be, parse_simplepacketblock_le,
};

use super::CaptureError;
use super::encapsulation::Encapsulation;

/// The longest file that is read, in bytes.
pub const CAPTURE_BYTES_MAX: usize = 1 << 30;

/// The longest packet that a capture may hold, in bytes: what other tools take, too.
pub const PACKET_BYTES_MAX: usize = 262_144;

/// The oldest kind of packet block in pcapng, which no tool writes any more.
const OBSOLETE_PACKET_MAGIC: u32 = 2;

/// Bytes of a block of pcapng around its content: type, length, length again.
const BLOCK_BYTES_MIN: usize = 12;

/// A packet of a capture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapturedFrame {
    /// When it was captured, in nanoseconds since 1970; in a simple packet block, which has no time, that of the packet
    /// before it.
    pub at_ns: u64,
    /// The packet as an Ethernet frame; addresses are 0 where the link had none, VLAN tags are taken off.
    pub bytes: Vec<u8>,
    /// How many bytes the capture has cut off its end.
    pub cut_bytes: u32,
    /// Where it begins in the file.
    pub offset: usize,
}

/// Reads a capture: all packets in the order of the file. Errors are of the file as a whole; there is no half of it.
pub fn read_capture(path: &Path) -> Result<Vec<CapturedFrame>, CaptureError> {
    let unreadable = |source| CaptureError::Unreadable { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > CAPTURE_BYTES_MAX as u64 {
        return Err(CaptureError::TooLarge { path: path.to_path_buf() });
    }
    file.take(CAPTURE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > CAPTURE_BYTES_MAX {
        return Err(CaptureError::TooLarge { path: path.to_path_buf() });
    }
    parse_capture(&bytes).map_err(|fault| fault.within(path))
}

/// The packets of a capture that lies in memory.
fn parse_capture(bytes: &[u8]) -> Result<Vec<CapturedFrame>, Fault> {
    match bytes.first_chunk::<4>().map(|magic| u32::from_le_bytes(*magic)) {
        Some(SHB_MAGIC) => parse_pcapng(bytes),
        Some(_) => parse_classic(bytes),
        None => Err(Fault::NotACapture),
    }
}

/// What is wrong with a file, before its name is known.
#[derive(Debug, PartialEq)]
enum Fault {
    NotACapture,
    Truncated(usize),
    Damaged(usize, String),
}

impl Fault {
    fn within(self, path: &Path) -> CaptureError {
        let path = path.to_path_buf();
        match self {
            Fault::NotACapture => CaptureError::NotACapture { path },
            Fault::Truncated(offset) => CaptureError::Truncated { path, offset },
            Fault::Damaged(offset, what) => CaptureError::Damaged { path, offset, what },
        }
    }
}

fn check_length(offset: usize, packet_bytes: u32) -> Result<(), Fault> {
    if packet_bytes as usize <= PACKET_BYTES_MAX {
        return Ok(());
    }
    Err(Fault::Damaged(offset, format!("a packet of {packet_bytes} bytes, where {PACKET_BYTES_MAX} is the most")))
}

fn encapsulation_of(offset: usize, link_type: u32) -> Result<Encapsulation, Fault> {
    Encapsulation::of(link_type).ok_or_else(|| {
        let known = "Ethernet, raw IP, Linux cooked and loopback";
        Fault::Damaged(offset, format!("packets of link type {link_type}; those of {known} can be read"))
    })
}

fn parse_classic(bytes: &[u8]) -> Result<Vec<CapturedFrame>, Fault> {
    let (_, header) = parse_pcap_header(bytes).map_err(|error| match error {
        NomError::Incomplete(_) => Fault::Truncated(0),
        _ => Fault::NotACapture,
    })?;
    let parse: fn(&[u8]) -> Parsed<'_, LegacyPcapBlock<'_>> = match header.magic_number {
        _ if header.is_modified_format() => parse_pcap_frame_modified,
        _ if header.is_bigendian() => parse_pcap_frame_be,
        _ => parse_pcap_frame,
    };
    // The upper half of the field tells of frame check sequences.
    let encapsulation = encapsulation_of(20, header.network.0 as u32 & 0xffff)?;
    let fraction_ns = if header.is_nanosecond_precision() { 1 } else { 1_000 };
    let mut frames = Vec::new();
    let mut offset = header.size();
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let length_at = rest.get(8..12).and_then(|field| field.first_chunk()).ok_or(Fault::Truncated(offset))?;
        let captured_bytes =
            if header.is_bigendian() { u32::from_be_bytes(*length_at) } else { u32::from_le_bytes(*length_at) };
        check_length(offset, captured_bytes)?;
        let (behind, packet) = parse(rest).map_err(|_| Fault::Truncated(offset))?;
        frames.push(CapturedFrame {
            at_ns: u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_usec) * fraction_ns,
            bytes: encapsulation.to_ethernet(packet.data),
            cut_bytes: packet.origlen.saturating_sub(packet.caplen),
            offset,
        });
        offset = bytes.len() - behind.len();
    }
    Ok(frames)
}

/// What the crate's parsers answer.
type Parsed<'a, T> = Result<(&'a [u8], T), NomError<PcapError<&'a [u8]>>>;

/// What a section of pcapng says of one of its interfaces.
struct Interface {
    link_type: u32,
    snap_bytes: u32,
    /// Ticks a second.
    resolution: u128,
    offset_s: i64,
}

/// A walk over the blocks of a pcapng file.
#[derive(Default)]
struct Walk {
    is_big_endian: bool,
    interfaces: Vec<Interface>,
    frames: Vec<CapturedFrame>,
}

fn parse_pcapng(bytes: &[u8]) -> Result<Vec<CapturedFrame>, Fault> {
    let mut walk = Walk::default();
    let mut offset = 0;
    while offset < bytes.len() {
        let length = walk.block_length(&bytes[offset..], offset)?;
        walk.take_block(&bytes[offset..offset + length], offset)?;
        offset += length;
    }
    Ok(walk.frames)
}

fn damaged<'a, T>(offset: usize, what: &str, parsed: Parsed<'a, T>) -> Result<T, Fault> {
    parsed.map(|(_, block)| block).map_err(|_| Fault::Damaged(offset, format!("{what} that does not fit its block")))
}

impl Walk {
    fn number(&self, field: [u8; 4]) -> u32 {
        if self.is_big_endian { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) }
    }

    /// The length of the block that begins here, all of which is in the file.
    fn block_length(&mut self, rest: &[u8], offset: usize) -> Result<usize, Fault> {
        let (Some(head), Some(magic)) = (rest.first_chunk::<BLOCK_BYTES_MIN>(), rest.first_chunk::<4>()) else {
            return Err(Fault::Truncated(offset));
        };
        if u32::from_le_bytes(*magic) == SHB_MAGIC {
            self.is_big_endian = match &head[8..] {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return Err(Fault::Damaged(offset, "a section header without a byte order".to_owned())),
            };
        }
        let [_, _, _, _, a, b, c, d, ..] = *head;
        let length = self.number([a, b, c, d]) as usize;
        if length < BLOCK_BYTES_MIN || !length.is_multiple_of(4) {
            return Err(Fault::Damaged(offset, format!("a block of {length} bytes, which no block can have")));
        }
        let block = rest.get(..length).ok_or(Fault::Truncated(offset))?;
        let again = block.last_chunk::<4>().map_or(0, |field| self.number(*field));
        if again as usize != length {
            return Err(Fault::Damaged(offset, format!("a block of {length} bytes that says {again} at its end")));
        }
        Ok(length)
    }

    fn take_block(&mut self, block: &[u8], offset: usize) -> Result<(), Fault> {
        let kind = block.first_chunk::<4>().map_or(0, |field| self.number(*field));
        match (kind, self.is_big_endian) {
            (SHB_MAGIC, _) => {
                damaged(offset, "a section header", parse_sectionheaderblock(block))?;
                self.interfaces.clear();
            }
            (IDB_MAGIC, false) => self.take_interface(block, offset, parse_interfacedescriptionblock_le)?,
            (IDB_MAGIC, true) => self.take_interface(block, offset, parse_interfacedescriptionblock_be)?,
            (EPB_MAGIC, false) => self.take_packet(block, offset, parse_enhancedpacketblock_le)?,
            (EPB_MAGIC, true) => self.take_packet(block, offset, parse_enhancedpacketblock_be)?,
            (SPB_MAGIC, false) => self.take_simple(block, offset, parse_simplepacketblock_le)?,
            (SPB_MAGIC, true) => self.take_simple(block, offset, parse_simplepacketblock_be)?,
            (OBSOLETE_PACKET_MAGIC, _) => {
                return Err(Fault::Damaged(
                    offset,
                    "a packet block of an obsolete kind; convert it with editcap".into(),
                ));
            }
            // Statistics, names and whatever may come hold no packets.
            _ => {}
        }
        Ok(())
    }

    fn take_interface<'a>(
        &mut self,
        block: &'a [u8],
        offset: usize,
        parse: fn(&'a [u8]) -> Parsed<'a, pcap_parser::InterfaceDescriptionBlock<'a>>,
    ) -> Result<(), Fault> {
        let block = damaged(offset, "an interface", parse(block))?;
        let option = |code| block.options.iter().find(|option| option.code == code).map(|option| option.value());
        let resolution = option(OptionCode::IfTsresol).and_then(|value| value.first()).copied().unwrap_or(6);
        let exponent = u32::from(resolution & 0x7f);
        let resolution = if resolution < 0x80 { 10_u128.checked_pow(exponent) } else { 1_u128.checked_shl(exponent) };
        let offset_s = option(OptionCode::IfTsoffset).and_then(|value| value.first_chunk::<8>()).map_or(0, |field| {
            if self.is_big_endian { i64::from_be_bytes(*field) } else { i64::from_le_bytes(*field) }
        });
        self.interfaces.push(Interface {
            link_type: block.linktype.0 as u32,
            snap_bytes: block.snaplen,
            resolution: resolution.ok_or(Fault::Damaged(offset, "a resolution of time beyond all use".to_owned()))?,
            offset_s,
        });
        Ok(())
    }

    fn interface(&self, index: u32, offset: usize) -> Result<&Interface, Fault> {
        let missing = || Fault::Damaged(offset, format!("a packet of interface {index}, which was not described"));
        self.interfaces.get(index as usize).ok_or_else(missing)
    }

    fn take_packet<'a>(
        &mut self,
        block: &'a [u8],
        offset: usize,
        parse: fn(&'a [u8]) -> Parsed<'a, pcap_parser::EnhancedPacketBlock<'a>>,
    ) -> Result<(), Fault> {
        let block = damaged(offset, "a packet", parse(block))?;
        let interface = self.interface(block.if_id, offset)?;
        check_length(offset, block.caplen)?;
        let ticks = u128::from(block.ts_high) << 32 | u128::from(block.ts_low);
        let since_ns = ticks / interface.resolution * 1_000_000_000
            + (ticks % interface.resolution).saturating_mul(1_000_000_000) / interface.resolution;
        let at_ns = i128::try_from(since_ns).unwrap_or(i128::MAX);
        let at_ns = at_ns.saturating_add(i128::from(interface.offset_s) * 1_000_000_000).max(0);
        self.frames.push(CapturedFrame {
            at_ns: u64::try_from(at_ns).unwrap_or(u64::MAX),
            bytes: encapsulation_of(offset, interface.link_type)?.to_ethernet(block.packet_data()),
            cut_bytes: block.origlen.saturating_sub(block.caplen),
            offset,
        });
        Ok(())
    }

    fn take_simple<'a>(
        &mut self,
        block: &'a [u8],
        offset: usize,
        parse: fn(&'a [u8]) -> Parsed<'a, pcap_parser::SimplePacketBlock<'a>>,
    ) -> Result<(), Fault> {
        let block = damaged(offset, "a packet", parse(block))?;
        let interface = self.interface(0, offset)?;
        let snap_bytes = if interface.snap_bytes == 0 { u32::MAX } else { interface.snap_bytes };
        let captured_bytes = block.origlen.min(snap_bytes);
        check_length(offset, captured_bytes)?;
        let packet = block.data.get(..captured_bytes as usize);
        let packet = packet.ok_or(Fault::Damaged(offset, "a packet that does not fit its block".to_owned()))?;
        self.frames.push(CapturedFrame {
            at_ns: self.frames.last().map_or(0, |frame| frame.at_ns),
            bytes: encapsulation_of(offset, interface.link_type)?.to_ethernet(packet),
            cut_bytes: block.origlen - captured_bytes,
            offset,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: &[u8] = &[0x45, 0, 0, 5, 9];

    fn word(value: u32, is_big_endian: bool) -> [u8; 4] {
        if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// A classic capture of raw IP with one packet, of which 3 bytes were cut.
    fn classic(magic: u32, is_big_endian: bool) -> Vec<u8> {
        let word = |value| word(value, is_big_endian);
        let versions = if is_big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let header = [word(magic), versions, word(0), word(0), word(65_535), word(101)].concat();
        [header, [word(7), word(5), word(5), word(8)].concat(), PACKET.to_vec()].concat()
    }

    fn block(kind: u32, is_big_endian: bool, content: &[u8]) -> Vec<u8> {
        let length = word(12 + content.len() as u32, is_big_endian);
        [&word(kind, is_big_endian), &length, content, &length].concat()
    }

    /// A pcapng of raw IP with one packet of 7.000005 s and the same as a simple one.
    fn pcapng(is_big_endian: bool, resolution: u8, ticks: u64) -> Vec<u8> {
        let word = |value| word(value, is_big_endian);
        let short = |high, low| if is_big_endian { [high, low] } else { [low, high] };
        let section = [&word(0x1a2b_3c4d)[..], &short(0, 1), &[0, 0], &[0xff; 8]].concat();
        let option = [&short(0, 9)[..], &short(0, 1), &[resolution, 0, 0, 0], &[0; 4]].concat();
        let interface = [&short(0, 101)[..], &[0, 0], &word(0), &option].concat();
        let time = [word((ticks >> 32) as u32), word(ticks as u32)].concat();
        let packet = [&word(0)[..], &time, &word(5), &word(8), PACKET, &[0; 3]].concat();
        let simple = [&word(5)[..], PACKET, &[0; 3]].concat();
        [(SHB_MAGIC, section), (IDB_MAGIC, interface), (EPB_MAGIC, packet), (5, vec![0; 12]), (SPB_MAGIC, simple)]
            .iter()
            .flat_map(|(kind, content)| block(*kind, is_big_endian, content))
            .collect()
    }

    fn frame() -> Vec<u8> {
        [&[0; 12], &[8, 0][..], PACKET].concat()
    }

    #[test]
    fn classic_captures_of_every_kind_are_read() {
        for (magic, fraction_ns) in [(0xa1b2_c3d4, 5_000), (0xa1b2_3c4d, 5)] {
            for is_big_endian in [false, true] {
                let frames = parse_capture(&classic(magic, is_big_endian)).expect("a capture");
                let at_ns = 7_000_000_000 + fraction_ns;
                assert_eq!(frames, [CapturedFrame { at_ns, bytes: frame(), cut_bytes: 3, offset: 24 }]);
            }
        }
    }

    #[test]
    fn pcapng_of_either_byte_order_and_any_resolution_is_read() {
        for is_big_endian in [false, true] {
            for (resolution, ticks, at_ns) in
                [(6, 7_000_005, 7_000_005_000), (9, 7_000_005_000, 7_000_005_000), (0x8a, 7 << 10 | 1, 7_000_976_562)]
            {
                let frames = parse_capture(&pcapng(is_big_endian, resolution, ticks)).expect("a capture");
                let found: Vec<_> = frames.iter().map(|it| (it.at_ns, it.bytes.as_slice(), it.cut_bytes)).collect();
                assert_eq!(found, [(at_ns, frame().as_slice(), 3), (at_ns, frame().as_slice(), 0)]);
            }
        }
    }

    #[test]
    fn every_cut_is_an_error_that_says_where() {
        let whole = classic(0xa1b2_c3d4, false);
        for length in 4..whole.len() {
            let expected = if length == 24 { Ok(Vec::new()) } else { Err(Fault::Truncated(length.min(24) / 24 * 24)) };
            assert_eq!(parse_capture(&whole[..length]), expected, "the first {length} bytes");
        }
        let whole = pcapng(true, 6, 1);
        let ends: Vec<usize> = [28, 32, 40, 24, 24].iter().scan(0, |at, length| Some((*at += length, *at).1)).collect();
        assert_eq!(ends.last(), Some(&whole.len()));
        for length in 4..whole.len() {
            let end_before = ends.iter().copied().filter(|end| *end <= length).max().unwrap_or(0);
            let outcome = parse_capture(&whole[..length]).map(|_| ());
            let expected = if end_before == length { Ok(()) } else { Err(Fault::Truncated(end_before)) };
            assert_eq!(outcome, expected, "the first {length} bytes");
        }
        assert_eq!(parse_capture(&[]), Err(Fault::NotACapture));
        assert_eq!(parse_capture(b"GET / HTTP/1.1"), Err(Fault::NotACapture));
    }

    #[test]
    fn no_damage_makes_it_panic() {
        for whole in [classic(0xa1b2_c3d4, true), pcapng(false, 6, 1), pcapng(true, 9, u64::MAX)] {
            for at in 0..whole.len() {
                for value in 0..=255 {
                    let mut damaged = whole.clone();
                    damaged[at] = value;
                    let _ = parse_capture(&damaged);
                    damaged.truncate(whole.len() - at);
                    let _ = parse_capture(&damaged);
                }
            }
        }
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let said = |bytes: &[u8]| match parse_capture(bytes) {
            Err(Fault::Damaged(offset, what)) => format!("{offset} {what}"),
            other => panic!("{other:?}"),
        };
        let mut large = classic(0xa1b2_c3d4, false);
        large[35] = 0x10;
        assert!(said(&large).starts_with("24 a packet of 268435461 bytes"), "{}", said(&large));
        let mut strange = classic(0xa1b2_c3d4, false);
        strange[20] = 147;
        assert!(said(&strange).starts_with("20 packets of link type 147"), "{}", said(&strange));
        let mut uneven = pcapng(false, 6, 1);
        uneven[32] += 1;
        assert_eq!(said(&uneven), "28 a block of 33 bytes, which no block can have");
        let mut absent = pcapng(false, 6, 1);
        absent[68] = 1;
        assert_eq!(said(&absent), "60 a packet of interface 1, which was not described");
        let mut long = pcapng(false, 6, 1);
        long[80] = 200;
        assert_eq!(said(&long), "60 a packet that does not fit its block");
    }

    #[test]
    fn errors_are_one_sentence_with_the_name() {
        let missing = read_capture(Path::new("/nowhere/at.pcap")).expect_err("no such file").to_string();
        assert!(missing.starts_with("/nowhere/at.pcap cannot be read: "), "{missing}");
        let cut = Fault::Truncated(24).within(Path::new("a.pcap")).to_string();
        assert_eq!(cut, "a.pcap is cut off: what begins at byte 24 is longer than the rest of the file");
    }
}
