//! Records beside flows: addresses, next hops, what a service attaches, idempotency keys, broadcast jobs.
//!
//! Invariant: plain old data; what is written here today must be read by the next process. What is logged is in whole
//! lines, so that each is logged without its neighbours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

use super::arena::LINE_BYTES;

/// Most different Ethernet addresses that peers can be behind.
pub const NEXT_HOPS_MAX: u32 = 1_024;
/// Most bytes that a service may attach to a flow.
pub const ATTACHMENT_BYTES_MAX: usize = 124;
/// How many idempotency keys are remembered.
pub const KEYS_MAX: u32 = 65_536;
/// How many broadcast jobs are remembered.
pub const JOBS_MAX: u32 = 16;
/// Longest name prefix of a broadcast.
pub const PREFIX_BYTES_MAX: usize = 64;

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

/// What a service has attached to the flow in the slot of the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Attachment {
    bytes: u16,
    is_name: u16,
    content: [u8; ATTACHMENT_BYTES_MAX],
}

const _: () = assert!(size_of::<Attachment>() == 2 * LINE_BYTES);

impl Attachment {
    /// With this content, at most `ATTACHMENT_BYTES_MAX` bytes, which may be the name of the flow.
    pub fn new(content: &[u8], is_name: bool) -> Attachment {
        let bytes = content.len() as u16;
        let mut attachment = Attachment { bytes, is_name: u16::from(is_name), content: [0; ATTACHMENT_BYTES_MAX] };
        attachment.content[..content.len()].copy_from_slice(content);
        attachment
    }

    /// Its content.
    pub fn content(&self) -> &[u8] {
        &self.content[..usize::from(self.bytes).min(ATTACHMENT_BYTES_MAX)]
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&[u8]> {
        (self.is_name == 1).then(|| self.content())
    }
}

/// An idempotency key and the push that had it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct KeyRecord {
    /// The key.
    pub key: [u8; 16],
    /// The push.
    pub ticket: u64,
    /// The connection that it was for.
    pub flow: u64,
    /// How many keys were remembered before; the record is free where it is 0 and the key too.
    pub sequence: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<KeyRecord>() == LINE_BYTES);

/// Where a broadcast stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, strum::FromRepr, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
#[repr(u32)]
pub enum JobState {
    /// There is no such job.
    #[default]
    Free,
    /// It goes on.
    Running,
    /// It has passed every flow.
    Done,
    /// It was cancelled.
    Cancelled,
}

/// A broadcast: one payload on its way through the table of flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// The ticket of all its pushes.
    pub ticket: u64,
    state: u32,
    /// The next slot that it looks at.
    pub cursor: u32,
    /// Pushes a second; 0 for as fast as there is room.
    pub pace_per_s: u32,
    /// When its pushes expire, in seconds of the stack's clock; 0 for never.
    pub expires_s: u32,
    /// Flows that it was pushed to.
    pub pushed: u32,
    /// Flows that refused it.
    pub refused: u32,
    /// Pushes that were delivered.
    pub delivered: u32,
    /// Pushes that were lost with their connection, or expired.
    pub lost: u32,
    /// First span of the payload; `NO_SPAN` once it is not needed.
    pub head: u32,
    /// Its last span.
    pub tail: u32,
    /// Its length.
    pub bytes: u32,
    prefix_bytes: u32,
    prefix: [u8; PREFIX_BYTES_MAX],
}

const _: () = assert!(size_of::<Job>() == 2 * LINE_BYTES);

impl Job {
    /// The state.
    pub fn state(&self) -> JobState {
        JobState::from_repr(self.state).unwrap_or_default()
    }

    /// Sets it.
    pub fn set_state(&mut self, state: JobState) {
        self.state = state as u32;
    }

    /// What the name of a flow must begin with; empty for all flows.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix[..(self.prefix_bytes as usize).min(PREFIX_BYTES_MAX)]
    }

    /// Sets it; at most `PREFIX_BYTES_MAX` bytes.
    pub fn set_prefix(&mut self, prefix: &[u8]) {
        self.prefix_bytes = prefix.len() as u32;
        self.prefix[..prefix.len()].copy_from_slice(prefix);
    }
}

/// Which idempotency keys are remembered, and where. Rebuilt at each start.
#[derive(Default)]
pub struct PushKeys {
    positions: HashMap<[u8; 16], u32>,
    next_sequence: u64,
}

impl PushKeys {
    /// Finds all that `records` hold.
    pub fn rebuild(records: &[KeyRecord]) -> PushKeys {
        let mut keys = PushKeys { positions: HashMap::new(), next_sequence: 1 };
        // They are used in the order of their numbers, the first of which is 1: behind a free one all are free.
        let in_order = records.iter().enumerate().cycle().skip(1).take(records.len());
        for (position, record) in in_order.take_while(|(_, record)| record.sequence != 0) {
            keys.positions.insert(record.key, position as u32);
            keys.next_sequence = keys.next_sequence.max(record.sequence + 1);
        }
        keys
    }

    /// Where a key is remembered.
    pub fn find(&self, key: &[u8; 16]) -> Option<u32> {
        self.positions.get(key).copied()
    }

    /// The number of the next key.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// A key takes the place of the oldest.
    pub fn replace(&mut self, oldest: &KeyRecord, key: [u8; 16], position: u32) {
        if oldest.sequence != 0 && self.positions.get(&oldest.key) == Some(&position) {
            self.positions.remove(&oldest.key);
        }
        self.positions.insert(key, position);
        self.next_sequence += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_key_is_forgotten_for_the_newest() {
        let mut keys = PushKeys::rebuild(&[]);
        let mut oldest = KeyRecord::zeroed();
        keys.replace(&oldest, [1; 16], 0);
        oldest.key = [1; 16];
        oldest.sequence = 1;
        keys.replace(&oldest, [2; 16], 0);
        assert_eq!((keys.find(&[1; 16]), keys.find(&[2; 16])), (None, Some(0)));
        assert_eq!(keys.next_sequence(), 3);
    }

    #[test]
    fn every_remembered_key_is_found_again_across_the_wrap_of_positions() {
        for last in [0, 1, 5, u64::from(KEYS_MAX) - 1, u64::from(KEYS_MAX), u64::from(KEYS_MAX) + 7] {
            let mut records = vec![KeyRecord::zeroed(); KEYS_MAX as usize];
            for sequence in 1..=last {
                let record = &mut records[(sequence % u64::from(KEYS_MAX)) as usize];
                record.sequence = sequence;
                record.key[..8].copy_from_slice(&sequence.to_le_bytes());
            }
            let keys = PushKeys::rebuild(&records);
            assert_eq!(keys.positions.len() as u64, last.min(u64::from(KEYS_MAX)), "{last} keys");
            assert_eq!(keys.next_sequence(), last + 1);
        }
    }
}
