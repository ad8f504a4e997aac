//! Steering among the shards of a state: which of them a frame or a connection belongs to.
//!
//! ```text
//! shard = (hash of addresses and ports, by wire) mod 128 mod (number of shards)
//! ```
//!
//! That is what a NIC does whose table has 128 places, or twice or four times as many, filled one after the other
//! (`ethtool -X IFACE equal N`). The number of shards is fixed when the state is made, so a connection never changes
//! its shard. What concerns nobody's connection (ARP, neighbour discovery) goes to all: each learns from it, and the
//! first one answers.

use super::tables::Tables;
use crate::flows::FlowKey;
use crate::wire::{self, Concern};

/// The most shards that a state can have.
pub const SHARDS_MAX: u8 = TABLE_PLACES as u8;

/// Places of a NIC's table that are reckoned with.
const TABLE_PLACES: u32 = 128;

/// Whose a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// This shard's.
    Of(u8),
    /// Every shard is to see it.
    All,
    /// Whoever has it may take it in; it is dropped and counted.
    Nobody,
}

/// Whose a frame is that has arrived at the Ethernet address `mac`, among so many shards.
pub fn whose(frame: &[u8], mac: &[u8; 6], shards: u8) -> Whose {
    match wire::concern(frame, mac) {
        Concern::One(hash) => Whose::Of(shard_of(hash, shards)),
        Concern::All => Whose::All,
        Concern::Nobody => Whose::Nobody,
    }
}

fn shard_of(hash: u32, shards: u8) -> u8 {
    (hash % TABLE_PLACES % u32::from(shards)) as u8
}

impl Tables {
    /// Whether this shard is one of several.
    pub fn has_siblings(&self) -> bool {
        self.config.shards > 1
    }

    /// Whether it is this shard that answers what all of them see.
    pub fn answers_for_all(&self) -> bool {
        !self.has_siblings() || self.config.shard == 0
    }

    /// Whether the frames of a connection with this key come to this shard.
    pub fn is_own(&self, key: &FlowKey) -> bool {
        !self.has_siblings() || {
            let hash = wire::tuple_hash(key.remote, key.remote_port, self.local(key.local_index), key.local_port);
            shard_of(hash, self.config.shards) == self.config.shard
        }
    }

    /// The shard that a whole frame belongs to, if it is another one.
    pub fn other_owner(&self, frame: &[u8]) -> Option<u8> {
        match whose(frame, &self.config.mac, self.config.shards) {
            Whose::Of(shard) if shard != self.config.shard => Some(shard),
            Whose::Of(_) | Whose::All | Whose::Nobody => None,
        }
    }
}
