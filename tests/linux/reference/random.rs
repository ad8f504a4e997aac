//! Random conversations: what a seed makes of the segments, closes and pushes that the cases have one by one.

use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::cases::{KINDS, MSS_OPTION, SCALED_OPTIONS, ack, syn};
use super::conversation::{Case, Step};
use super::crafted::{ACK, Ack, FIN, PSH, Segment, Seq};
use super::malformed;
use super::stack::PORT;

/// The conversations of a seed.
pub fn conversations(seed: u64, count: u64) -> Vec<Case> {
    (0..count).map(|index| conversation(seed.wrapping_add(index))).collect()
}

/// A conversation; the same seed draws the same one.
fn conversation(seed: u64) -> Case {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let is_stamped = random.random_bool(0.3);
    let options = if random.random_bool(0.5) { MSS_OPTION } else { SCALED_OPTIONS };
    let mut steps = vec![syn(options)];
    if random.random_bool(0.95) {
        steps.push(ack());
    }
    let is_accepted = steps.len() > 1;
    for _ in 0..random.random_range(2..14) {
        steps.push(step(&mut random, is_accepted));
    }
    if is_stamped {
        steps.iter_mut().for_each(Step::stamp);
    }
    let start = if random.random_bool(0.3) { 0xffff_ff00 + random.random_range(0..0x100) } else { random.next_u32() };
    Case { name: format!("conversation of seed {seed}"), server_port: PORT, start, steps }
}

fn step(random: &mut impl Rng, is_accepted: bool) -> Step {
    let next = Some(Ack::Next(0));
    let bytes = random.random_range(1..300);
    match random.random_range(0..100) {
        0..24 => Step::Send(Segment::new(PSH, Seq::Next(0), next).payload(bytes)),
        24..34 => Step::Send(Segment::new(0, Seq::Next(0), next)),
        34..38 => Step::Send(Segment::new(0, Seq::Next(0), Some(Ack::Una(0))).payload(bytes)),
        38..46 if is_accepted => Step::Push(bytes),
        46..50 if is_accepted => Step::Close,
        50..52 if is_accepted => Step::CloseBoth,
        52..58 => Step::Send(Segment::new(FIN, Seq::Next(0), next).payload(bytes % 3)),
        58..64 => Step::Send(Segment::new(ACK, Seq::Next(-i32::from(bytes)), next).payload(bytes % 100)),
        64..68 => Step::Send(Segment::new(0, Seq::Next(0), next).window(bytes)),
        68..71 => Step::Send(damaged(random)),
        _ => Step::Send(any(random)),
    }
}

/// A segment of any kind, near the edges of what is acceptable.
fn any(random: &mut impl Rng) -> Segment {
    let (control, payload_bytes, has_ack) = KINDS[random.random_range(0..KINDS.len())];
    let near = random.random_range(-12..12);
    let seq = match random.random_range(0..8) {
        0..5 => Seq::Next(near),
        5 => Seq::Edge(near),
        6 => Seq::Start(near),
        _ => Seq::Next(random.random_range(-50_000..50_000)),
    };
    let ack = match random.random_range(0..8) {
        0..4 => Ack::Next(0),
        4 => Ack::Una(0),
        5 => Ack::Next(near),
        6 => Ack::Una(near),
        _ => Ack::Una(random.random_range(-50_000..50_000)),
    };
    Segment::new(control, seq, has_ack.then_some(ack)).payload(payload_bytes)
}

fn damaged(random: &mut impl Rng) -> Segment {
    let damages = malformed::damages();
    let damage = damages[random.random_range(0..damages.len())].clone();
    let good = Segment::new(PSH, Seq::Next(0), Some(Ack::Next(0))).payload(12);
    damage.into_iter().fold(good, Segment::damaged)
}
