//! Sizes: how much memory a flag allows, and how shards divide it.
//!
//! What is fixed comes first: records of connections with their index. What is left goes to payload, three quarters and
//! more, and to active blocks. Memory is touched as it is used; these are bounds.

use holdline::shard::Capacity;

/// A size in bytes, such as 65536, 64K, 512M or 2G.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size; write a number of bytes, or one with K, M or G behind it, such as 512M");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// What a connection may have beside its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beside {
    /// The service attaches something to it.
    pub has_attachment: bool,
    /// It may be over IPv6, and its peer's address be kept apart.
    pub has_ipv6: bool,
}

impl Beside {
    /// What one connection may take, its record and its part of the index included, in bytes.
    fn flow_bytes(self) -> u64 {
        let attachment_bytes = if self.has_attachment { ATTACHMENT_BYTES } else { 0 };
        FLOW_BYTES + attachment_bytes + if self.has_ipv6 { PEER_BYTES } else { 0 }
    }
}

/// What each of several shards gets of what all have together: its share, and a sixteenth more of connections, as these
/// do not divide evenly. The error says what is needed.
pub fn capacity_of_shard(
    connections: u32,
    memory_bytes: Option<u64>,
    beside: Beside,
    shards: u8,
) -> Result<Capacity, String> {
    if shards == 1 {
        return capacity(connections, memory_bytes, beside);
    }
    let share = connections.div_ceil(shards.into());
    let connections = share.saturating_add(share / 16 + UNEVEN_FLOWS);
    let shard = capacity(connections, memory_bytes.map(|bytes| bytes / u64::from(shards)), beside);
    let mut shard = shard.map_err(|error| format!("each of {shards} shards gets its part, and {error}"))?;
    if memory_bytes.is_none() {
        shard.blocks = (shard.blocks / u32::from(shards)).max(BLOCKS_MIN as u32);
        shard.spans = shard.blocks * 2;
    }
    Ok(shard)
}

/// By how much few connections may be divided unevenly.
const UNEVEN_FLOWS: u32 = 64;

/// What so many connections get of so much memory. The error says what they need.
pub fn capacity(connections: u32, memory_bytes: Option<u64>, beside: Beside) -> Result<Capacity, String> {
    let usual = Capacity::for_connections(connections);
    let Some(memory_bytes) = memory_bytes else { return Ok(usual) };
    let fixed_bytes = FIXED_BYTES + u64::from(usual.flows) * beside.flow_bytes();
    let least_bytes = fixed_bytes + ACTIVES_MIN * ACTIVE_BYTES + BLOCKS_MIN * (BLOCK_BYTES + 2 * SPAN_BYTES);
    let Some(rest_bytes) = memory_bytes.checked_sub(fixed_bytes).filter(|_| memory_bytes >= least_bytes) else {
        return Err(format!(
            "--max-memory {memory_bytes} is too little for --max-connections {connections}, which need at least \
             {least_bytes} bytes; allow more memory or fewer connections"
        ));
    };
    let actives = (rest_bytes / 4 / ACTIVE_BYTES).clamp(ACTIVES_MIN, u64::from(usual.actives));
    let payload_bytes = rest_bytes - actives * ACTIVE_BYTES;
    let blocks = (payload_bytes / (BLOCK_BYTES + 2 * SPAN_BYTES)).clamp(BLOCKS_MIN, BLOCKS_MAX);
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Capacity { flows: usual.flows, actives: count(actives), spans: count(blocks * 2), blocks: count(blocks) })
}

/// The record of a connection and its part of the index, in bytes.
const FLOW_BYTES: u64 = size_of::<holdline::tcp::Flow>() as u64 + 16;

/// What a service may attach to it, in bytes.
const ATTACHMENT_BYTES: u64 = 128;

/// The address of its peer, where that is one of IPv6, in bytes.
const PEER_BYTES: u64 = 16;

/// Everything that does not grow: log, idempotency keys, jobs, next hops, buffers, in bytes.
const FIXED_BYTES: u64 = 16 << 20;

/// An active block, its place in the wheel and its share of the repair blocks, in bytes.
const ACTIVE_BYTES: u64 =
    size_of::<holdline::tcp::Active>() as u64 + 32 + size_of::<holdline::tcp::Repair>() as u64 / 4;

const SPAN_BYTES: u64 = size_of::<holdline::tcp::Span>() as u64;
const BLOCK_BYTES: u64 = 2_048;
const ACTIVES_MIN: u64 = 1_024;
const BLOCKS_MIN: u64 = 1_024;
/// 8 GB of payload.
const BLOCKS_MAX: u64 = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("1", 1), ("64K", 65_536), ("512M", 512 << 20), ("2g", 2 << 30), ("1MiB", 1 << 20)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for wrong in ["", "0", "M", "-1", "1.5G", "10 M", "1T", "99999999999G", "512MM"] {
            assert!(parse_size(wrong).is_err_and(|error| error.contains("is no size")), "{wrong}");
        }
    }

    #[test]
    fn all_of_it_is_within_the_bound() {
        for (connections, memory) in [(1_000, 64 << 20), (1_000_000, 512 << 20), (10_000_000, 4 << 30)] {
            for has_attachment in [true, false] {
                let beside = Beside { has_attachment, has_ipv6: true };
                let Ok(capacity) = capacity(connections, Some(memory), beside) else {
                    assert_eq!((connections, has_attachment), (10_000_000, true), "only that is too little");
                    continue;
                };
                let flow_bytes = beside.flow_bytes();
                let whole = FIXED_BYTES
                    + u64::from(capacity.flows) * flow_bytes
                    + u64::from(capacity.actives) * ACTIVE_BYTES
                    + u64::from(capacity.spans) * SPAN_BYTES
                    + u64::from(capacity.blocks) * BLOCK_BYTES;
                assert_eq!(capacity.flows, connections);
                assert!(whole <= memory && whole > memory / 2, "{connections}: {whole} of {memory}");
            }
        }
    }

    #[test]
    fn shards_divide_what_there_is() {
        let beside = Beside::default();
        for shards in [1, 2, 7, 128] {
            for memory in [None, Some(8 << 30)] {
                let shard = capacity_of_shard(1_000_000, memory, beside, shards).expect("it is enough");
                let count = u64::from(shards);
                let flows = u64::from(shard.flows) * count;
                assert!((1_000_000..1_100_000).contains(&flows), "{shards}: {flows}");
                let payload_bytes = u64::from(shard.blocks) * BLOCK_BYTES * count;
                assert!(payload_bytes <= memory.unwrap_or(1 << 30), "{shards}: {payload_bytes}");
            }
        }
        let error = capacity_of_shard(1_000_000, Some(256 << 20), beside, 64).expect_err("4 MB each");
        assert!(error.contains("each of 64 shards") && error.contains("at least"), "{error}");
    }

    #[test]
    fn too_little_is_said_with_what_is_needed() {
        let error = capacity(1_000_000, Some(1 << 20), Beside::default()).expect_err("a megabyte for a million");
        assert!(error.contains("--max-memory") && error.contains("at least"), "{error}");
    }
}
