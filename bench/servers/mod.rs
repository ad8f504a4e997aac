//! Servers under one and the same load: what each is given, and what it gives back.

pub mod frames;
pub mod lwip;
pub mod ours;
pub mod small;

use std::time::Duration;

use frames::Frames;

/// What is pushed.
pub const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Frames, or pushes, in one call.
pub const BATCH: usize = 64;

/// A TCP server on 10.0.0.1, port 7000. Each call returns how long it took by itself, and adds what it sends.
pub trait Server {
    /// Takes frames in.
    fn receive(&mut self, frames: &Frames, sent: &mut Frames) -> Duration;
    /// Sends 64 bytes each to connections, named by the order in which they came.
    fn push(&mut self, connections: &[u32], sent: &mut Frames) -> Duration;
    /// Whose memory it is in.
    fn process(&self) -> u32;
}
