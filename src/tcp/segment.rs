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
    /// ECN-Echo (RFC 3168 §6.1).
    pub const ECE: Control = Control(0x40);
    /// Congestion window reduced (RFC 3168 §6.1).
    pub const CWR: Control = Control(0x80);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Control) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits if so, none otherwise.
    #[must_use]
    pub(super) fn when(self, is_so: bool) -> Control {
        if is_so { self } else { Control::default() }
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Control) -> Control {
        Control(self.0 | other.0)
    }
}

/// A received segment: header and the options that we read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment<'a> {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: SeqNum,
    /// Acknowledgment number; meaningless without the ACK bit.
    pub ack: SeqNum,
    /// Control bits.
    pub control: Control,
    /// The packet was marked on its way: congestion experienced (CE, RFC 3168 §5).
    pub is_congested: bool,
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
    /// SACK option, as received behind its length: pairs of numbers.
    pub sack: &'a [u8],
}

/// Most blocks that a SACK option has.
pub(super) const SACK_BLOCKS_MAX: usize = 4;

/// The blocks of a SACK option (RFC 2018 §3), in its order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    count: u8,
    blocks: [(SeqNum, SeqNum); SACK_BLOCKS_MAX],
}

impl SackBlocks {
    /// Adds a block, if there are fewer than so many.
    pub fn push(&mut self, start: SeqNum, end: SeqNum, blocks_max: usize) {
        let count = usize::from(self.count);
        if count < blocks_max.min(SACK_BLOCKS_MAX) {
            self.blocks[count] = (start, end);
            self.count += 1;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The blocks: first byte, and one past the last.
    pub fn iter(&self) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        self.blocks[..self.len()].iter().copied()
    }
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

impl Segment<'_> {
    /// A segment without payload and options.
    pub fn bare(seq: SeqNum, ack: SeqNum, control: Control, window: u16) -> Segment<'static> {
        Segment { seq, ack, control, window, ..Segment::default() }
    }

    /// The blocks of its SACK option: first byte, and one past the last.
    pub fn sack_blocks(&self) -> impl Iterator<Item = (SeqNum, SeqNum)> + '_ {
        let number = |bytes: &[u8]| SeqNum(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)));
        self.sack.chunks_exact(8).take(SACK_BLOCKS_MAX).map(move |block| (number(&block[..4]), number(&block[4..])))
    }

    /// Length in sequence space: payload, SYN and FIN (SEG.LEN).
    pub fn length(&self) -> u32 {
        self.payload_bytes + u32::from(self.control.has(Control::SYN)) + u32::from(self.control.has(Control::FIN))
    }
}

/// A segment that the machine wants sent on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outgoing {
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgment number; used where `control` has ACK.
    pub ack: SeqNum,
    /// Control bits.
    pub control: Control,
    /// The packet may be marked on its way: ECN-capable transport (ECT(0), RFC 3168 §5).
    pub is_ecn_capable: bool,
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
    /// SACK-permitted option, on SYN and SYN-ACK only.
    pub sack_permitted: bool,
    /// Timestamps option, on every segment of a connection that has agreed on it.
    pub timestamps: Option<Timestamps>,
    /// SACK option.
    pub sack: SackBlocks,
}

impl Outgoing {
    /// A segment without payload and options.
    pub fn bare(seq: SeqNum, ack: SeqNum, control: Control, window: u16) -> Outgoing {
        Outgoing { seq, ack, control, window, ..Outgoing::default() }
    }
}
