//! Operations, guided by coverage.

#![no_main]

#[allow(dead_code, reason = "the other target is another program")]
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../pool.rs"]
mod pool;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pool::play(harness::operations, data));
