//! Rooms that a shard consists of, compiled for the fuzzer under the project's own name: what its coverage is of.
//!
//! Added is a way to make a used storage empty again, which only a fuzzer needs: to map a new one for each execution
//! would cost more than all that is done with it.

#![deny(unsafe_code)]

#[path = "../../src/flows/mod.rs"]
pub mod flows;
#[path = "../../src/shard/mod.rs"]
pub mod shard;
#[path = "../../src/tcp/mod.rs"]
pub mod tcp;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

use bytemuck::Pod;
use flows::{Head, Storage};

/// What a storage that nobody has used yet says of itself.
pub fn head_of(storage: &Storage) -> Head {
    *storage.head()
}

/// Makes a storage that a shard has used as good as new. What payload stood in it stays: nothing names it any more.
pub fn empty(storage: &mut Storage, head: &Head) {
    let next_hops_end = storage.head().next_hops_end as usize;
    zero(storage.flows.records_mut());
    zero(storage.actives.records_mut());
    zero(storage.attachments.records_mut());
    zero(storage.jobs.records_mut());
    zero(&mut storage.next_hops.records_mut()[..next_hops_end]);
    // The first key has the number 1, and there are no gaps.
    let keys = &mut storage.keys.records_mut()[1..];
    let end = keys.iter().position(|key| key.sequence == 0).unwrap_or(keys.len());
    zero(&mut keys[..end]);
    *storage.head_mut() = *head;
}

fn zero<T: Pod>(records: &mut [T]) {
    records.fill(T::zeroed());
}
