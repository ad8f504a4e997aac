//! Segments as values: what the machine reads and what it wants sent.
//!
//! `wire` makes a `Segment` of received bytes and bytes of an `Outgoing`. Payload is only counted here; its bytes stay
//! in the frame or in the arena.

use super::SeqNum;

/// The control bits of a segment (RFC 9293 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Control(pub u8);

impl Control {
    /// No more data from the sender.
    pub const FIN: Control = Control(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Control = Control(0x02);
    /// Reset the connection.
    pub const RST: Control = Control(0x04);
    /// Push function.
    pub const PSH: Control = Control(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Control = Control(0x10);
    /// The urgent field is significant.
    pub const URG: Control = Control(0x20);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Control) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Control) -> Control {
        Control(self.0 | other.0)
    }
}

/// A received segment: header and the options that we read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: SeqNum,
    /// Acknowledgment number; meaningless without the ACK bit.
    pub ack: SeqNum,
    /// Control bits.
    pub control: Control,
    /// Window field as it stands in the header, unscaled.
    pub window: u16,
    /// Payload length in bytes.
    pub payload_bytes: u32,
    /// Urgent pointer; meaningless without the URG bit.
    pub urgent: u16,
    /// Maximum segment size option (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// Window scale option, as received (RFC 7323 §2).
    pub window_shift: Option<u8>,
    /// SACK-permitted option (RFC 2018 §2).
    pub sack_permitted: bool,
    /// Timestamps option (RFC 7323 §3).
    pub timestamps: Option<Timestamps>,
}

/// A timestamps option: milliseconds of two clocks that start anywhere. The caller takes the random offset of a
/// connection off our own clock's side before the machine sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamps {
    /// The sender's clock (TSval).
    pub value: u32,
    /// The latest of the receiver's that it has seen (TSecr).
    pub echo: u32,
}

impl Segment {
    /// Length in sequence space: payload, SYN and FIN (SEG.LEN).
    pub fn length(&self) -> u32 {
        self.payload_bytes + u32::from(self.control.has(Control::SYN)) + u32::from(self.control.has(Control::FIN))
    }
}

/// A segment that the machine wants sent on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgment number; used where `control` has ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub control: Control,
    /// Window field, already scaled down.
    pub window: u16,
    /// How many bytes of the send queue, from `seq` on, it carries.
    pub payload_bytes: u32,
    /// Urgent pointer; used where `control` has URG.
    pub urgent: u16,
    /// MSS option, on SYN and SYN-ACK only.
    pub mss: Option<u16>,
    /// Window scale option, on SYN and SYN-ACK only.
    pub window_shift: Option<u8>,
    /// Timestamps option, on every segment of a connection that has agreed on it.
    pub timestamps: Option<Timestamps>,
}

impl Outgoing {
    /// A segment without payload and options.
    pub fn bare(seq: SeqNum, ack: SeqNum, control: Control, window: u16) -> Outgoing {
        Outgoing {
            seq,
            ack,
            control,
            window,
            payload_bytes: 0,
            urgent: 0,
            mss: None,
            window_shift: None,
            timestamps: None,
        }
    }
}
