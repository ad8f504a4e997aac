//! Harness: what the fuzzer and the plain tests share, a decoder and an oracle for each of two targets.
//!
//! ```text
//! bytes -> input -> operation (or scene) -> apply -> world: one shard -> look, book, wire: the oracle
//! ```
//!
//! It speaks to a shard by its public interface only, and reads and writes frames by code of its own. A breach panics.

mod application;
mod apply;
mod book;
mod cut;
mod death;
mod ecn;
mod finish;
mod frame;
mod heal;
mod input;
mod look;
mod operation;
mod peers;
#[cfg(test)]
mod planted;
mod profile;
mod sack;
mod scene;
mod syn;
#[allow(dead_code, reason = "the reference tests use more of it")]
mod translate;
mod wire;
mod world;

use holdline::shard::{Capacity, RuleSet, Storage, Time};

use finish::End;
use heal::Healing;
use input::Input;
use operation::Operation;
use profile::PROFILES;
use translate::Family;
use world::World;

/// Operations, or frames, of one input.
const STEPS_MAX: u32 = 48;
/// Deaths of one input.
const DEATHS_MAX: u32 = 3;
/// Where the clock stands at the beginning: near the wraps of milliseconds and of initial sequence numbers, too.
const STARTS: [Time; 4] =
    [Time(0), Time(((1 << 32) - 2_500) * 1_000), Time(16_384_000_000), Time(60 * 86_400 * 1_000_000)];

/// Where storages come from and go to. A harness that makes each anew is right, one that uses them again is fast.
pub trait Storages {
    /// An empty one.
    fn take(&mut self, profile: usize, capacity: Capacity) -> Storage;
    /// One that was used.
    fn give_back(&mut self, profile: usize, storage: Storage);
}

/// A fuzz target: plays an input to its end, and says which rules have decided something.
pub type Target = fn(&[u8], &mut dyn Storages) -> RuleSet;

/// The operations that an input means.
pub fn decode(bytes: &[u8]) -> Vec<Operation> {
    let mut input = Input::new(bytes.get(2..).unwrap_or_default());
    std::iter::from_fn(|| Operation::read(&mut input)).take(STEPS_MAX as usize).collect()
}

fn begin(input: &mut Input<'_>, storages: &mut dyn Storages) -> (World, usize, (Healing, End)) {
    let profile = usize::from(input.byte()) % PROFILES.len();
    let byte = input.byte();
    let storage = storages.take(profile, PROFILES[profile].capacity);
    let family = if byte & 16 == 0 { Family::Ipv4 } else { Family::Ipv6 };
    let world = World::new(&PROFILES[profile], family, storage, STARTS[usize::from(byte & 3)]);
    let healing = if byte & 8 == 0 { Healing::None } else { Healing::First };
    (world, profile, (healing, if byte & 4 == 0 { End::Abort } else { End::Wait }))
}

fn end(mut world: World, profile: usize, how: (Healing, End), storages: &mut dyn Storages) -> RuleSet {
    world.finish(how);
    let rules = world.rules();
    storages.give_back(profile, world.into_storage());
    rules
}

/// Target: sequences of segments, calls, time and deaths.
pub fn operations(bytes: &[u8], storages: &mut dyn Storages) -> RuleSet {
    let mut input = Input::new(bytes);
    let (mut world, profile, how) = begin(&mut input, storages);
    let mut deaths = 0;
    for _ in 0..STEPS_MAX {
        let Some(operation) = Operation::read(&mut input) else { break };
        if matches!(operation, Operation::Die | Operation::DieWithin { .. }) {
            deaths += 1;
            if deaths > DEATHS_MAX {
                continue;
            }
        }
        world.apply(&operation);
    }
    end(world, profile, how, storages)
}

/// Target: the bytes of a wire, on connections in every state.
pub fn bytes(bytes: &[u8], storages: &mut dyn Storages) -> RuleSet {
    let mut input = Input::new(bytes);
    let (mut world, profile, how) = begin(&mut input, storages);
    world.is_true = false;
    let flows = input.word();
    world.set_scene(flows);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.fall(&mut input);
    }
    end(world, profile, how, storages)
}
