//! Clients of a script: what each port said of itself, and how the script calls the stack's numbers.

use std::net::IpAddr;

use super::packet::Tcp;

/// What a client offered in its latest SYN.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offered {
    pub mss: Option<u16>,
    /// What holds where it says nothing.
    pub mss_default: u16,
    /// Whether it had options that the script wrote byte by byte, which may be anything.
    pub has_option_bytes: bool,
    pub has_window_scale: bool,
}

impl Offered {
    /// The largest segment that the client takes (MUST-15 where it said nothing).
    fn mss_or_default(&self) -> u16 {
        self.mss.unwrap_or(if self.has_option_bytes { u16::MAX } else { self.mss_default })
    }
}

/// One client port: what was agreed in its latest handshake, and what holds since.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Where its last segment came from.
    pub address: Option<IpAddr>,
    pub offered: Offered,
    /// The client's initial sequence number.
    pub irs: u32,
    /// The largest segment it takes, in bytes.
    pub mss: u16,
    /// The stack's initial sequence number, and what the script calls it.
    pub iss: Option<(u32, u32)>,
    /// The stack's first timestamp, from which a script counts its clock in ms.
    pub ts_start: u32,
    /// The window scale that the stack's SYN has offered.
    pub stack_shift: Option<u8>,
    /// By how much the stack's windows are scaled.
    pub shift: u8,
    /// The right edge of the stack's window, promised.
    pub edge: Option<u32>,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            address: None,
            offered: Offered::default(),
            irs: u32::MAX,
            mss: 536,
            iss: None,
            ts_start: 0,
            stack_shift: None,
            shift: 0,
            edge: None,
        }
    }
}

impl Client {
    /// A SYN-ACK with the initial sequence number `iss` began a connection; the script calls that number `called`.
    pub fn begin(&mut self, iss: u32, called: u32, syn_ack: &Tcp) {
        self.irs = syn_ack.ack.unwrap_or(0).wrapping_sub(1);
        self.mss = self.offered.mss_or_default();
        self.stack_shift = syn_ack.window_scale;
        self.shift = syn_ack.window_scale.filter(|_| self.offered.has_window_scale).unwrap_or(0);
        self.iss = Some((iss, called));
        self.ts_start = syn_ack.timestamps.map_or(0, |(value, _)| value);
        self.edge = None;
    }

    /// The client's SYN answers one of the stack's, which has begun the connection.
    pub fn answer(&mut self, irs: u32) {
        if self.iss.is_some() && self.irs == u32::MAX {
            self.irs = irs;
            self.mss = self.offered.mss_or_default();
            self.shift = self.stack_shift.filter(|_| self.offered.has_window_scale).unwrap_or(0);
        }
    }

    /// A number of the stack's side as the script calls it.
    pub fn shown(&self, real: u32) -> u32 {
        self.iss.map_or(real, |(iss, called)| real.wrapping_sub(iss).wrapping_add(called))
    }

    /// A number of the stack's side that the script wrote, as it is on the wire.
    pub fn real(&self, shown: u32) -> u32 {
        self.iss.map_or(shown, |(iss, called)| shown.wrapping_sub(called).wrapping_add(iss))
    }
}
