//! holdline (skeleton)
#![deny(unsafe_code)]
#![warn(missing_docs)]
pub mod flows;
pub mod link;
pub mod server;
pub mod service;
pub mod shard;
pub mod sim;
pub mod tcp;
pub mod wire;
