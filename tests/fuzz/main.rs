//! Fuzz inputs, played without a fuzzer: the committed corpora, and random ones from a seed.
//!
//! `tests/fuzz/run TARGET SECONDS` looks for new ones, guided by coverage; the harness is the same. An input that once
//! broke something stays in the corpus under a name that says what.

mod harness;

use std::any::Any;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use harness::{Storages, Target};
use holdline::shard::{Capacity, Rule, RuleSet, Storage};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use strum::IntoEnumIterator;

const TARGETS: [(&str, Target); 2] = [("bytes", harness::bytes), ("operations", harness::operations)];
const SEED: u64 = 4;
/// Some seconds' worth.
const RANDOM_INPUTS: u32 = 15_000;

/// Each input gets memory of its own.
struct Fresh;

impl Storages for Fresh {
    fn take(&mut self, _profile: usize, capacity: Capacity) -> Storage {
        Storage::in_memory_logged(capacity).expect("address space for a storage")
    }

    fn give_back(&mut self, _profile: usize, storage: Storage) {
        drop(storage);
    }
}

/// The inputs of a target's corpus with their names, in order.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a corpus is readable").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("an input is readable"))).collect()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// Plays an input; the error says what broke, and what it was.
fn play(name: &str, target: Target, input: &[u8]) -> Result<RuleSet, String> {
    catch_unwind(|| target(input, &mut Fresh)).map_err(|panic| {
        let operations = if name == "operations" { harness::decode(input) } else { Vec::new() };
        let lines: Vec<String> = operations.iter().map(|operation| format!("    {operation:?}")).collect();
        format!("{}\ninput of {name}: {input:?}\n{}", message(&*panic), lines.join("\n"))
    })
}

#[test]
fn every_input_of_the_corpora_holds() {
    for (name, target) in TARGETS {
        for (path, input) in corpus(name) {
            if let Err(what) = play(name, target, &input) {
                panic!("{}: {what}", path.display());
            }
        }
    }
}

#[test]
fn operations_reach_every_rule() {
    let played =
        corpus("operations").into_iter().filter_map(|(_, input)| play("operations", TARGETS[1].1, &input).ok());
    let reached = played.fold(RuleSet::default(), RuleSet::with);
    let missing: Vec<Rule> = Rule::iter().filter(|&rule| !reached.iter().any(|other| other == rule)).collect();
    assert!(missing.is_empty(), "no input of the corpus reaches {missing:?}");
}

#[test]
fn random_inputs_hold() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        for number in 0..RANDOM_INPUTS {
            // The beginning of one that leads somewhere, then anything.
            let (_, known) = &corpus[random.random_range(0..corpus.len())];
            let mut input = known[..random.random_range(0..=known.len())].to_vec();
            input.extend((0..random.random_range(2..60)).map(|_| random.random::<u8>()));
            if let Err(what) = play(name, target, &input) {
                panic!("input {number} of seed {SEED}: {what}");
            }
        }
    }
}
