//! The control API, over a real socket, of a server with its real threads over a cable in memory.
//!
//! `stage` is the server and its peer, `http` a client that can be wrong; then each group of calls has a file.
//! Needs no privilege. Every wait is for something that happens, and bounded.

mod bad_input;
mod events;
mod flows;
mod http;
#[path = "../server/peer.rs"]
mod peer;
mod push;
mod several;
mod stage;
mod whole;
