//! Captures as they are written: pcapng, with a comment, a direction and what was lost before each packet.
//!
//! In: frames in bunches. Out: a file that any reader of pcapng takes, at every moment: a bunch is written whole, and
//! what a full disk left of one is cut off again.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pcap_parser::{
    BOM_MAGIC, EPB_MAGIC, EnhancedPacketBlock, IDB_MAGIC, InterfaceDescriptionBlock, Linktype, OptionCode,
    PcapNGOption, SHB_MAGIC, SectionHeaderBlock, ToVec,
};

use super::CaptureError;

/// Which way a frame went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// To us.
    Received,
    /// From us.
    Sent,
}

/// A frame that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// Which way it went.
    pub direction: Direction,
    /// The Ethernet frame.
    pub frame: &'a [u8],
    /// What is said of it; empty for nothing.
    pub comment: &'a str,
    /// How many frames between the last one written and this one are missing in the file.
    pub lost_before: u64,
}

/// A capture that is being written.
#[derive(Debug)]
pub struct CaptureFile {
    file: File,
    /// Up to here the file is whole.
    whole_bytes: u64,
    /// What a failed write left could not be cut off; nothing more is written.
    is_broken: bool,
}

/// `epb_flags`: bits 0 and 1 are the direction.
const OPTION_FLAGS: OptionCode = OptionCode(2);
/// `epb_dropcount`.
const OPTION_DROPPED: OptionCode = OptionCode(4);
/// Link type of Ethernet.
const ETHERNET: Linktype = Linktype(1);
/// Exponent of ten of a tick: nanoseconds.
const RESOLUTION: u8 = 9;

impl CaptureFile {
    /// Makes the file, readable by its owner only as it holds what people say; one of that name is replaced.
    pub fn create(path: &Path, interface: &str) -> Result<CaptureFile, CaptureError> {
        let unwritable = |source| CaptureError::Unwritable { path: path.to_path_buf(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let mut file = CaptureFile { file: file.map_err(unwritable)?, whole_bytes: 0, is_broken: false };
        let headers = [section_header(), interface_description(interface)].concat();
        file.append(&headers).map_err(unwritable)?;
        Ok(file)
    }

    /// Writes packets: all of them, or on an error none.
    pub fn write<'a>(&mut self, packets: impl Iterator<Item = Packet<'a>>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for packet in packets {
            bytes.extend_from_slice(&packet_block(&packet));
        }
        self.append(&bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an earlier failure left half of a packet at the end of the file"));
        }
        let written = self.file.write_all(bytes);
        match &written {
            Ok(()) => self.whole_bytes += bytes.len() as u64,
            Err(_) => self.is_broken = self.cut_off().is_err(),
        }
        written
    }

    fn cut_off(&mut self) -> io::Result<()> {
        self.file.set_len(self.whole_bytes)?;
        self.file.seek(SeekFrom::Start(self.whole_bytes)).map(drop)
    }
}

fn option(code: OptionCode, value: &[u8]) -> PcapNGOption<'_> {
    PcapNGOption { code, len: value.len() as u16, value: Cow::Borrowed(value) }
}

/// A block as bytes. Its parts are in memory and their lengths in range, so that nothing can fail.
fn bytes_of(block: &mut impl ToVec) -> Vec<u8> {
    block.to_vec().expect("a block in memory is written to memory")
}

fn section_header() -> Vec<u8> {
    bytes_of(&mut SectionHeaderBlock {
        block_type: SHB_MAGIC,
        block_len1: 0,
        bom: BOM_MAGIC,
        major_version: 1,
        minor_version: 0,
        section_len: -1,
        options: vec![option(OptionCode::ShbUserAppl, concat!("holdline ", env!("CARGO_PKG_VERSION")).as_bytes())],
        block_len2: 0,
    })
}

fn interface_description(name: &str) -> Vec<u8> {
    bytes_of(&mut InterfaceDescriptionBlock {
        block_type: IDB_MAGIC,
        block_len1: 0,
        linktype: ETHERNET,
        reserved: 0,
        snaplen: 0,
        options: vec![option(OptionCode::IfName, name.as_bytes()), option(OptionCode::IfTsresol, &[RESOLUTION])],
        block_len2: 0,
        if_tsresol: RESOLUTION,
        if_tsoffset: 0,
    })
}

fn packet_block(packet: &Packet<'_>) -> Vec<u8> {
    let flags = match packet.direction {
        Direction::Received => 1_u32.to_le_bytes(),
        Direction::Sent => 2_u32.to_le_bytes(),
    };
    let lost = packet.lost_before.to_le_bytes();
    let mut options = vec![option(OPTION_FLAGS, &flags)];
    if packet.lost_before > 0 {
        options.push(option(OPTION_DROPPED, &lost));
    }
    if !packet.comment.is_empty() {
        let comment = packet.comment.as_bytes();
        options.push(option(OptionCode::Comment, &comment[..comment.len().min(usize::from(u16::MAX))]));
    }
    bytes_of(&mut EnhancedPacketBlock {
        block_type: EPB_MAGIC,
        block_len1: 0,
        if_id: 0,
        ts_high: (packet.at_ns >> 32) as u32,
        ts_low: packet.at_ns as u32,
        caplen: packet.frame.len() as u32,
        origlen: packet.frame.len() as u32,
        data: packet.frame,
        options,
        block_len2: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::super::read_capture;
    use super::*;

    fn packet(frame: &[u8]) -> Packet<'_> {
        let comment = "AckAdvances PayloadAccepted";
        Packet { at_ns: 1_700_000_000_123_456_789, direction: Direction::Sent, frame, comment, lost_before: 3 }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("it.pcapng");
        let mut file = CaptureFile::create(&path, "tap0").expect("it can be made");
        let frames: Vec<Vec<u8>> = (14..80).map(|length| vec![length as u8; length]).collect();
        file.write(frames.iter().map(|frame| packet(frame))).expect("it can be written");
        let read = read_capture(&path).expect("it is a capture");
        assert!(read.iter().map(|it| &it.bytes).eq(&frames));
        assert!(read.iter().all(|it| it.at_ns == packet(&[]).at_ns && it.cut_bytes == 0));
        let bytes = std::fs::read(&path).expect("it is there");
        assert!(bytes.windows(27).any(|window| window == packet(&[]).comment.as_bytes()));
    }

    #[test]
    fn what_a_failed_write_left_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("it.pcapng");
        let mut file = CaptureFile::create(&path, "tap0").expect("it can be made");
        file.write([packet(&[1; 60])].into_iter()).expect("it can be written");
        // As after a write of which only a part found room.
        file.file.write_all(&[7; 21]).expect("there is room");
        file.cut_off().expect("a file can be cut");
        file.write([packet(&[2; 60])].into_iter()).expect("it can be written");
        assert_eq!(read_capture(&path).expect("it is a capture").len(), 2);
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let mut file = CaptureFile {
            file: OpenOptions::new().write(true).open("/dev/full").expect("Linux has it"),
            whole_bytes: 0,
            is_broken: false,
        };
        for _ in 0..3 {
            assert!(file.write([packet(&[1; 60])].into_iter()).is_err());
        }
        let error = CaptureFile::create(Path::new("/nowhere/at.pcapng"), "tap0").expect_err("no such folder");
        assert!(error.to_string().starts_with("/nowhere/at.pcapng cannot be written: "), "{error}");
    }
}
