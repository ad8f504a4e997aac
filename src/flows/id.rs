//! Flow ids: names of connections that never come to mean another one.
//!
//! ```text
//! 63      56 55                    32 31                              0
//! |  shard  |       generation       |              slot              |
//! ```
//!
//! A slot is used again with the next generation, so an id of a connection that is gone is recognised as such.

use std::fmt;
use std::str::FromStr;

/// Names one connection for as long as the state lives (2^24 uses of a slot).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FlowId(u64);

impl FlowId {
    /// The id of the connection that has `slot` in `shard` for the `generation`th time (modulo 2^24).
    pub fn new(shard: u8, generation: u32, slot: u32) -> FlowId {
        FlowId(u64::from(shard) << 56 | u64::from(generation & 0xff_ffff) << 32 | u64::from(slot))
    }

    /// The id as a number.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The shard that owns the connection.
    pub fn shard(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// How often the slot was used before, 24 bits.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// Its slot in the shard's table.
    pub fn slot(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is not 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a flow id is 16 hexadecimal digits")]
pub struct NotAFlowId;

impl FromStr for FlowId {
    type Err = NotAFlowId;

    fn from_str(text: &str) -> Result<FlowId, NotAFlowId> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAFlowId);
        }
        u64::from_str_radix(text, 16).map(FlowId).map_err(|_| NotAFlowId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = FlowId::new(3, 0xabcdef, 77);
        assert_eq!((id.shard(), id.generation(), id.slot()), (3, 0xabcdef, 77));
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "3", "+00000000000000a", "00000000000000zz", "00000000000000000"] {
            assert_eq!(text.parse::<FlowId>(), Err(NotAFlowId), "{text}");
        }
    }
}
