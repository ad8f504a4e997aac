//! The offer: what configuration, link and path let us do on a connection.

use super::window::SHIFT_MAX;
use super::{CongestionControl, Ecn};

/// See the module.
#[derive(Clone, Copy, Default, Debug)]
pub struct Offer {
    /// Largest payload of a segment on our link.
    pub mss: u16,
    /// The same on the path to the peer, as far as it is known.
    pub path_mss: u16,
    /// The peer's MSS where its SYN does not say: 536 over IPv4, 1,220 over IPv6 (MUST-15).
    pub mss_default: u16,
    /// What the headers of IP and TCP take of a packet, options not counted.
    pub headers_bytes: u16,
    /// A path MTU that is said to be smaller is not believed: 552 over IPv4, 1,280 over IPv6 (RFC 8201 §4).
    pub mtu_min: u16,
    /// The receive window that a connection starts with, in bytes.
    pub window_bytes: u32,
    /// How long an ACK may wait for something that it can go with, in ms; 0 for not at all.
    pub delayed_ack_ms: u32,
    /// How congestion is avoided.
    pub congestion: CongestionControl,
    /// Whether ECN may be agreed on.
    pub ecn: Ecn,
}

impl Offer {
    /// The smallest shift that lets the window field say `window_bytes`.
    pub fn shift(&self) -> u8 {
        let mut shift = 0;
        while shift < SHIFT_MAX && self.window_bytes >> shift > u32::from(u16::MAX) {
            shift += 1;
        }
        shift
    }

    /// The window field of our SYN, which is never scaled (RFC 7323 §2.2).
    pub(super) fn window_of_syn(&self) -> u16 {
        self.window_bytes.min(u32::from(u16::MAX)) as u16
    }
}
