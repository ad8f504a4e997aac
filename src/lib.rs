//! Server-side TCP in userspace for very many mostly idle connections, kept when the process dies.
//!
//! ```text
//!           link                                   other threads
//!            |  frames                                  | pushes
//!            v                                          v
//!         server: workers, threads that drive shards with real time, each over a link of its own
//!            |
//!            v
//!         shard (owns connections; sans-I/O)      service (the application: opened, received, delivered, closed)
//!            parse -> look up -> step on copies -> record -> apply -> gate -> frames and notices leave
//!            wire      flows        tcp           ------- commit -------   "may I speak?"
//! ```
//!
//! Reading order:
//!
//! 1. [`tcp`], the protocol: pure functions over a [`tcp::Flow`] and a [`tcp::Active`]. Begin with `tcp/flow.rs`, then
//!    `tcp/receive.rs` (a segment arrives, in the RFC's order) and `tcp/send.rs` (what may be sent, and when). Every
//!    outcome has a [`tcp::Rule`].
//! 2. [`flows`], where connections live: arenas of plain records in memory or in files, ids, the index, the clock hand.
//! 3. [`wire`], bytes to values and back.
//! 4. [`shard`], the owner: takes batches of frames, pushes and expirations, steps copies, commits, opens the gate.
//! 5. [`link`], [`service`] and [`server`]: the outside, the application, the threads.
//! 6. [`sim`], the seeded world that tries to break it all.
//!
//! Invariants that every part relies on:
//!
//! - What belongs to a connection is plain old data named by an index, never a pointer; so it can be written to a file.
//! - A batch is a transaction: nothing of it is let out before all of it is kept, and applying it twice is applying it
//!   once.
//! - A connection stays in its shard, which a fixed function of its addresses and ports names; which worker drives a
//!   shard may change at any time. Shards share nothing.
//! - A shard reads no clock and draws no random number: the same calls give the same bytes.
//! - Nothing that a peer sends can make it panic, and nothing that a peer does makes it use memory without bound.

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
