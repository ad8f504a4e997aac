//! Bytes of a wire, guided by coverage.

#![no_main]

use holdline::{harness, pool};

libfuzzer_sys::fuzz_target!(|data: &[u8]| pool::play(harness::bytes, data));
