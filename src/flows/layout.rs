//! Records of a state beside flows and active blocks, and how many of each there may be.
//!
//! Invariant: plain old data; what is written here today must be read by the next process.

use std::net::{IpAddr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

use super::arena::LINE_BYTES;

/// How many of each thing there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Capacity {
    /// Connections.
    pub flows: u32,
    /// Active blocks: connections that are doing something at the same time.
    pub actives: u32,
    /// Spans: pieces of queues.
    pub spans: u32,
    /// Payload blocks of 2 KB.
    pub blocks: u32,
}

impl Capacity {
    /// Repair blocks: a quarter of the active blocks can have one, the others wait for time-outs.
    pub fn repairs(&self) -> u32 {
        self.actives.div_ceil(4)
    }

    /// For so many connections of which all may be active at once, within 1 GB of queued payload.
    pub fn for_connections(connections: u32) -> Capacity {
        let actives = connections.clamp(1_024, 1 << 22);
        Capacity { flows: connections.max(1), actives, spans: 1 << 20, blocks: 1 << 19 }
    }
}

/// Most different Ethernet addresses that peers can be behind.
pub const NEXT_HOPS_MAX: u32 = 1_024;
/// Most addresses of our own.
pub const LOCALS_MAX: usize = 64;
/// Most lines that one record can hold.
pub const RECORD_LINES_MAX: u32 = 20_480;

/// Where frames for a peer go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct NextHop {
    /// Ethernet address.
    pub mac: [u8; 6],
    /// 1 once the address is known.
    pub is_known: u16,
    /// The address that is asked for: a gateway's, or a neighbour's that we spoke to first; unspecified where frames
    /// told it.
    pub asked: Address,
}

/// An address of either family: of IPv6, or of IPv4 as IPv6 maps it (RFC 4291 §2.5.5.2). All zero is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Address([u8; 16]);

impl Address {
    /// No address.
    pub const NONE: Address = Address([0; 16]);

    /// The address; `None` for none.
    pub fn ip(self) -> Option<IpAddr> {
        (self != Address::NONE).then(|| Ipv6Addr::from(self.0).to_canonical())
    }

    /// The address as one of IPv6, whatever it stands for.
    pub fn bits(self) -> Ipv6Addr {
        Ipv6Addr::from(self.0)
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        match address {
            IpAddr::V4(address) => Address(address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => Address(address.octets()),
        }
    }
}

/// The arenas whose lines are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::FromRepr)]
#[repr(u32)]
pub enum Logged {
    /// Flows.
    Flows,
    /// Active blocks.
    Actives,
    /// Repair blocks.
    Repairs,
    /// What services attach to flows.
    Attachments,
    /// Idempotency keys.
    Keys,
    /// Broadcast jobs.
    Jobs,
}

/// One logged line: where it belongs and what it becomes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct LoggedLine {
    /// Which arena, as in `Logged`.
    pub arena: u32,
    /// Which line of it.
    pub line: u32,
    /// Its new content.
    pub image: [u32; LINE_BYTES / 4],
}

impl LoggedLine {
    /// Whether it is this line.
    pub fn is_at(&self, arena: Logged, line: u32) -> bool {
        self.line == line && self.arena == arena as u32
    }
}
