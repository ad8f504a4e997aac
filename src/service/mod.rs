//! Applications over a shard: the trait, and the services that come with holdline.
//!
//! A service is called inside the batch that its answer belongs to: what it pushes, closes or writes into a flow's
//! service word is committed together with the bytes it consumed, or not at all. The trait itself is defined in
//! `shard`, which calls it; here is the door applications come in by.
//!
//! Invariant: nothing that must survive the process lives in a service's own fields; see `resumed`.

mod echo;
mod hold;
mod names;

pub use crate::shard::{Context, Service};
pub use echo::Echo;
pub use hold::Hold;
pub use names::{NAME_BYTES_MAX, Names};
