//! Capture files: packets that were recorded, as Ethernet frames, and frames on their way into a file.
//!
//! Read are classic pcap (microseconds and nanoseconds, either byte order) and pcapng, with packets of Ethernet, raw
//! IP, Linux cooked and loopback links; written is pcapng with a comment for each packet. The blocks themselves are
//! read and written by the `pcap-parser` crate, over a file that lies in memory, so that every error knows its
//! offset.
//!
//! Invariant: no file makes this panic, and none is read by half: it is whole, or an error says where it is not.

mod encapsulation;
mod read;
mod write;

use std::io;
use std::path::PathBuf;

pub use read::{CAPTURE_BYTES_MAX, CapturedFrame, PACKET_BYTES_MAX, read_capture};
pub use write::{CaptureFile, Direction, Packet};

/// Why a capture cannot be read or begun. Each is one sentence that names the file.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The system would not read it.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system would not make it.
    #[error("{} cannot be written: {source}; give --capture a file in a folder that may be written to", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is longer than what is read into memory.
    #[error("{} has more than {CAPTURE_BYTES_MAX} bytes; cut it with `editcap -c 1000000`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It does not begin like a capture.
    #[error("{} is no capture: at byte 0 stands no header of pcap or pcapng", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// It ends too early.
    #[error("{} is cut off: what begins at byte {offset} is longer than the rest of the file", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where the last, incomplete part begins.
        offset: usize,
    },
    /// Something in it is impossible.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// What.
        what: String,
    },
}
