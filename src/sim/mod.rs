//! The seeded world: a shard, its clients, the network between them and everything that goes wrong, from one number.
//!
//! A seed and a profile come in; out comes a [`Report`]: what was drawn, what happened, and the first [`Breach`] if
//! something happened that must not. `holdline sim` and `tests/sim` call it.
//!
//! ```text
//!            parameters (drawn from the seed, printed when a world fails)
//!                 |
//!   clients -> middlebox -> network -> node [ shard + host service | storage ] -> middlebox -> network -> clients
//!   (smoltcp,     (means    (faults)     (killed at any commit point, started again;                        |
//!    or ours)      well)       |          its clock stops, it pauses)                                       |
//!       |                      |          |  notices, received bytes; invariants inside after every call    |
//!       `----------------> wiretap        v                                                                 v
//!                        every frame  ------------->  ledger: one per connection, every byte both ways
//! ```
//!
//! Machines of IPv4 and of IPv6 are in one world: each client has an address of one family, the node one of both.
//!
//! Read `profile` (what can be drawn), `fault`, `frame`, `network` and `middlebox`, `client` with `reference` (smoltcp,
//! and `application` on it) and `own` (a second shard), `host`, `clock` and `node`, then `ledger`, `wiretap` and
//! `invariants` (what is checked, the invariants listed in the last), then `world` (the loop from event to event).
//!
//! Invariant: one seed is one run, byte for byte. There is no wall clock, no thread, no address and no order of a
//! hashed map in here; all random numbers come from the seed, and the trace of a run is hashed to prove it.

mod application;
mod client;
mod clock;
mod fault;
mod frame;
mod host;
mod invariants;
mod ledger;
mod middlebox;
mod network;
mod node;
mod own;
mod pattern;
mod profile;
mod reference;
mod report;
mod trace;
mod wiretap;
mod world;

pub use fault::Fault;
pub use invariants::Invariant;
pub use profile::{Operation, Parameters, Profile};
pub use report::{Breach, Report, Statistics, Totals};
pub use world::{Sabotage, World};

/// Runs the world of one seed to its end.
pub fn run(seed: u64, profile: Profile) -> Report {
    run_with(Parameters::draw(seed, profile), |world| world)
}

/// Runs a world whose parameters are given, after `prepare` (a lie, a spoken trace).
pub fn run_with(parameters: Parameters, prepare: impl FnOnce(World) -> World) -> Report {
    match World::new(parameters.clone()) {
        Ok(world) => prepare(world).run(),
        Err(breach) => {
            Report { parameters, statistics: Statistics::default(), trace_hash: 0, breach: Some((0, breach)) }
        }
    }
}
