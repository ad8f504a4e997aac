//! Applications over a shard: the trait, and the services that come with holdline.
//!
//! A service is called inside the batch that its answer belongs to: what it pushes, closes or writes into a flow's
//! service word is committed together with the bytes it consumed, or not at all. The trait itself is defined in
//! `shard`, which calls it; here is the door applications come in by.
//!
//! A service of its own, and a server around it. Each line is given back with its number; how many there were and the
//! line that is still coming are kept with the connection, not in the service.
//!
//! ```
//! use holdline::link::memory_pair;
//! use holdline::server::{Options, Server};
//! use holdline::service::{Context, Service};
//! use holdline::shard::{Capacity, CloseHow, Config, FlowId, Notice, Storage};
//!
//! struct Numbered;
//!
//! impl Service for Numbered {
//!     fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
//!         let mut consumed = 0;
//!         for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
//!             let line = [&context.attachment(flow), piece].concat();
//!             if !line.ends_with(b"\n") {
//!                 // A connection has room for 124 bytes beside it.
//!                 if context.attach(flow, &line).is_err() {
//!                     let _ = context.close(flow, CloseHow::Reset);
//!                 }
//!                 return bytes.len();
//!             }
//!             let number = context.word(flow).unwrap_or(0) + 1;
//!             let answer = [format!("{number} ").as_bytes(), &line].concat();
//!             if context.push(flow, &answer).is_err() {
//!                 // What is left closes the window, and is offered again when the peer has read something.
//!                 return consumed;
//!             }
//!             context.set_word(flow, number);
//!             context.attach(flow, b"").expect("a connection that could be pushed to is there");
//!             consumed += piece.len();
//!         }
//!         consumed
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // On a network: link::Raw::open("eth0"), a Tap, or a queue of AF_XDP.
//! let (link, far_end) = memory_pair(1_500, 1_024)?;
//! // With Storage::in_directory connections outlive the process.
//! let storage = Storage::in_memory(Capacity::for_connections(1_000))?;
//! let config = Config::new([10, 0, 0, 2], 24, &[7]);
//! let server = Server::start(config, storage, Box::new(link), Box::new(Numbered), Options::default())?;
//! # let client = std::thread::spawn(move || client::lines_through(far_end));
//! let pusher = server.pusher();
//! for notice in server.notices() {
//!     match notice {
//!         Notice::Opened { flow, .. } => drop(pusher.push(flow, b"welcome\n")?),
//!         Notice::Closed { .. } => break,
//!         _ => {}
//!     }
//! }
//! server.stop()?;
//! # assert_eq!(client.join().expect("no panic"), "welcome\n1 one\n2 two\n");
//! # Ok(())
//! # }
//! # mod client {
//! #     use holdline::link::{Link, MemoryLink};
//! #     use holdline::server::Clock;
//! #     use holdline::shard::*;
//! #
//! #     /// What a client has received.
//! #     struct Heard(String);
//! #
//! #     impl Service for Heard {
//! #         fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
//! #             if self.0.is_empty() {
//! #                 context.push(flow, b"one\ntw").expect("there is room");
//! #                 context.push(flow, b"o\n").expect("there is room");
//! #             }
//! #             self.0 += std::str::from_utf8(bytes).expect("text");
//! #             if self.0.lines().count() == 3 && self.0.ends_with('\n') {
//! #                 context.close(flow, CloseHow::Fin).expect("it is open");
//! #             }
//! #             bytes.len()
//! #         }
//! #     }
//! #
//! #     /// Connects, sends two lines and closes; returns what came back.
//! #     pub fn lines_through(mut link: MemoryLink) -> String {
//! #         let mut storage = Storage::in_memory(Capacity::for_connections(1_000)).expect("memory");
//! #         let clock = Clock::start(std::slice::from_mut(&mut storage));
//! #         let mut config = Config::new([10, 0, 0, 1], 24, &[1]);
//! #         config.mac = link.mac();
//! #         let shard = Shard::new(config, storage, Heard(String::new()), [1; 32], clock.now());
//! #         let mut shard = shard.expect("it starts");
//! #         shard.connect(clock.now(), None, 40_000, ([10, 0, 0, 2], 7)).expect("there is room");
//! #         let mut is_over = false;
//! #         while !is_over {
//! #             let frames = link.receive().expect("memory does not fail");
//! #             shard.receive(clock.now(), &frames);
//! #             shard.tick(clock.now());
//! #             shard.transmit(|frame| link.send(frame).expect("memory does not fail"));
//! #             shard.drain_notices(|notice| is_over |= matches!(notice, Notice::Closed { .. }));
//! #             is_over |= shard.in_state(State::TimeWait) > 0;
//! #             std::thread::yield_now();
//! #         }
//! #         shard.service().0.clone()
//! #     }
//! # }
//! ```
//!
//! Invariant: nothing that must survive the process lives in a service's own fields; see [`Service::resumed`].

mod echo;
mod hold;
mod names;

pub use crate::shard::{Context, Service};
pub use echo::Echo;
pub use hold::Hold;
pub use names::{NAME_BYTES_MAX, Names};
