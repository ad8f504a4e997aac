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
//! Whoever embeds the library begins with the example in [`service`].
//!
//! # One received frame
//!
//! 1. A worker's `Worker::receive` has [`link::Link::receive`] lend a batch of frames and gives each to the shard that
//!    [`shard::whose`] names; those of other workers' shards it leaves in their mailboxes (`Shared::hand_over`).
//! 2. [`shard::Shard::receive`] opens a batch (`Batch::begin`), has [`wire::parse()`] make values of all frames, and
//!    asks for the memory of the flows that are theirs (`Batch::prepare`, `Batch::prefetch`).
//! 3. `Shard::step` steps the batch's copy of a flow: an acknowledgment that was expected in a straight line
//!    (`Batch::take_expected_ack`), all else by [`tcp::on_segment`], whose effects say what is done. Payload goes to
//!    [`service::Service::received`] (`Shard::take_payload`), what is acknowledged becomes a receipt
//!    (`Shard::release_acknowledged`); where there is no flow, `Batch::receive_unmatched` accepts or refuses.
//! 4. `Batch::commit` has each touched flow send what [`tcp::poll_segment`] gives (`Batch::finish_flows`), keeps the
//!    record where there is a log, applies the copies to the tables, and opens the gate (`Gate::open_up_to`).
//! 5. `Seat::let_out` takes from the gate: frames into [`link::Link::send`], notices to whoever reads them; the worker
//!    ends its pass with [`link::Link::flush`].
//!
//! # One push from another thread
//!
//! 1. [`server::Pusher::push`] copies the bytes into the mailbox of the flow's shard, which is bounded
//!    (`Shared::push`), returns the ticket and rings the bell of the worker that drives the shard (`Shared::ring`).
//! 2. The worker, which `Worker::sleep` has woken where it slept, takes up to 64 requests in its next pass
//!    (`Seat::take_requests`).
//! 3. [`shard::Shard::push`] opens a batch; `Batch::push` finds the flow's copy, lends it an active block and appends
//!    the bytes to its send queue. What comes of it is the notice `Queued` or `Refused`.
//! 4. `Batch::commit` and `Seat::let_out` go on as for a frame: the bytes leave with the batch.
//! 5. With the peer's acknowledgment, a received frame, comes the notice `Delivered` and
//!    [`service::Service::delivered`].
//!
//! # One expired timer
//!
//! 1. `Worker::sleep` sleeps no longer than [`shard::Shard::next_deadline`] (`Seat::timeout`), and `Seat::pass` calls
//!    [`shard::Shard::tick`] when that is due.
//! 2. `Shard::fire_timers` has the wheel bring up active blocks whose time has come (`Wheel::advance`), 64 to a batch.
//! 3. `Shard::fire_timer` looks whether the block is still a flow's and due, takes a copy, and asks [`tcp::on_timer`]
//!    what is to be done: send again, probe, acknowledge, or give up.
//! 4. `Batch::commit` sends as after a frame, and enters the next deadline of each copy into the wheel
//!    (`Batch::apply`).
//! 5. A flow that is idle has no active block and no timer: the clock hand finds it on its way through the table
//!    (`Shard::sweep`) and asks [`tcp::on_sweep`].
//!
//! # One restart after a kill
//!
//! 1. `holdline serve` opens the files again ([`shard::Storage::all_in_directory`]); `Clock::start` goes on with the
//!    time of the state.
//! 2. `Shard::open` has `recover` bring the log to its end: a record that is not complete is discarded, one that is
//!    complete is applied again.
//! 3. `rebuild` checks every flow and enters it into index, slots and wheel; `rebuild_records` does so with what is not
//!    a flow's own.
//! 4. `Shard::tell_all_resumed` calls [`service::Service::resumed`] for every connection, 64 to a batch.
//! 5. `take_back_parts` ends broadcasts that not every shard had taken; then the workers start, and what was in flight
//!    is sent again when its timer expires.
//!
//! # Invariants that every part relies on
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
