//! Fields: where in the headers of a frame what stands, and what the numbers in it mean.
//!
//! Offsets are from the beginning of the header that has the field. Options begin where a header without them ends.

#![allow(missing_docs, reason = "the names are those of the RFCs, or say what the number is")]

/// Ethernet (IEEE 802.3).
pub mod ethernet {
    pub const TYPE: usize = 12;
    pub const BYTES: usize = 14;

    pub const TYPE_IPV4: u16 = 0x0800;
    pub const TYPE_ARP: u16 = 0x0806;
    pub const TYPE_IPV6: u16 = 0x86dd;
    /// How the addresses of IPv6 groups begin (RFC 2464 §7).
    pub const IPV6_GROUP: [u8; 2] = [0x33, 0x33];
}

/// RFC 791 §3.1.
pub mod ipv4 {
    pub const TRAFFIC_CLASS: usize = 1;
    pub const TOTAL_BYTES: usize = 2;
    pub const IDENTIFICATION: usize = 4;
    pub const FRAGMENT: usize = 6;
    pub const PROTOCOL: usize = 9;
    pub const CHECKSUM: usize = 10;
    pub const SOURCE: usize = 12;
    pub const DESTINATION: usize = 16;
    pub const BYTES: usize = 20;

    pub const DONT_FRAGMENT: u16 = 0x4000;
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// In units of eight bytes.
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;
    /// One of these bits is set in every fragment, and none in a whole packet.
    pub const FRAGMENT_BITS: u16 = MORE_FRAGMENTS | FRAGMENT_OFFSET;
}

/// RFC 8200 §3.
pub mod ipv6 {
    pub const PAYLOAD_BYTES: usize = 4;
    pub const NEXT_HEADER: usize = 6;
    pub const HOP_LIMIT: usize = 7;
    pub const SOURCE: usize = 8;
    pub const DESTINATION: usize = 24;
    pub const BYTES: usize = 40;
}

/// What is next in an IP packet: the protocol of IPv4, the next header of IPv6.
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMPV4: u8 = 1;
    pub const TCP: u8 = 6;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// RFC 9293 §3.1.
pub mod tcp {
    pub const SOURCE_PORT: usize = 0;
    pub const DESTINATION_PORT: usize = 2;
    pub const SEQ: usize = 4;
    pub const ACK: usize = 8;
    /// The upper four bits, in words of four bytes.
    pub const DATA_OFFSET: usize = 12;
    pub const CONTROL: usize = 13;
    pub const WINDOW: usize = 14;
    pub const CHECKSUM: usize = 16;
    pub const URGENT: usize = 18;
    pub const BYTES: usize = 20;

    /// Kinds of options; the first two are the same in IPv4.
    pub mod option {
        pub const END: u8 = 0;
        pub const NO_OPERATION: u8 = 1;
        pub const MSS: u8 = 2;
        pub const WINDOW_SCALE: u8 = 3;
        pub const SACK_PERMITTED: u8 = 4;
        pub const SACK: u8 = 5;
        pub const TIMESTAMPS: u8 = 8;
    }
}

/// The number at a place; `None` where the bytes end before.
#[inline]
pub fn u16_in(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|number| u16::from_be_bytes(*number))
}

/// The same of 32 bits.
#[inline]
pub fn u32_in(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_be_bytes(*number))
}

/// The number at a place in a header that is long enough for it.
#[inline]
pub(super) fn u16_at<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// The same of 32 bits.
#[inline]
pub(super) fn u32_at<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
