//! The Linux kernel as the reference: the same crafted segments to both, and the answers compared.
//!
//! Over IPv6 the same segments are translated on their way to and from both stacks (`translate`).
//!
//! `crafted` makes the client's segments, `kernel` and `ours` are the two stacks, `conversation` plays cases to both in
//! lockstep, `cases` lists one connection for each state and segment, `random` draws conversations from a seed, and
//! `table` says of each difference why ours is right (`differences`).

mod answer;
mod cases;
mod conversation;
mod crafted;
mod differences;
mod frame;
mod kernel;
mod malformed;
mod ours;
mod random;
mod route;
mod sequences;
mod stack;
mod table;
#[path = "../../fuzz/harness/translate.rs"]
#[allow(dead_code, reason = "the fuzz harness uses more of it")]
mod translate;

use std::time::{Duration, Instant};

use conversation::{Case, Stage, Step};
use kernel::Kernel;
use ours::Ours;
use translate::Family;

use crate::support::in_namespace;

/// Kernels older than this differ in more than the table says.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The kernel that the table was made with: from this one on every entry is demanded to be still true.
const KERNEL_OF_TABLE: (u32, u32) = (6, 18);

/// The version of this machine's kernel and what it calls itself.
fn kernel() -> ((u32, u32), String) {
    let release = nix::sys::utsname::uname().map(|it| it.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    ((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)), release)
}

/// How long a batch may take before the kernel repeats a SYN-ACK that was not acknowledged.
const BATCH_TIME_MAX: Duration = Duration::from_millis(900);

#[test]
fn every_state_answers_crafted_segments_as_linux_does() {
    let name = "every_state_answers_crafted_segments_as_linux_does";
    let cases = [cases::sound(), cases::stamped(), cases::damaged(), sequences::all()].concat();
    compare(name, Family::Ipv4, true, &cases);
}

#[test]
fn every_state_answers_crafted_segments_over_ipv6_as_linux_does() {
    let name = "every_state_answers_crafted_segments_over_ipv6_as_linux_does";
    let mut cases = [cases::sound(), cases::stamped(), cases::damaged(), sequences::all()].concat();
    cases.retain(is_sound_below_tcp);
    compare(name, Family::Ipv6, false, &cases);
}

/// The conversations that are drawn where nobody asks for others: the same in every run, so that a change that breaks
/// one is the one to blame.
const SEED: u64 = 1;
const CONVERSATIONS: u64 = 2_000;

/// HOLDLINE_SEED and HOLDLINE_CONVERSATIONS draw others, or more.
#[test]
fn random_conversations_go_as_with_linux() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("it is a number"));
    let seed = number("HOLDLINE_SEED").unwrap_or(SEED);
    let count = number("HOLDLINE_CONVERSATIONS").unwrap_or(CONVERSATIONS);
    println!("HOLDLINE_SEED={seed} HOLDLINE_CONVERSATIONS={count}");
    compare("random_conversations_go_as_with_linux", Family::Ipv4, false, &random::conversations(seed, count));
}

/// Others than over IPv4, and of these what is not about the IPv4 header.
#[test]
fn random_conversations_over_ipv6_go_as_with_linux() {
    let mut conversations = random::conversations(SEED + CONVERSATIONS, CONVERSATIONS);
    conversations.retain(is_sound_below_tcp);
    compare("random_conversations_over_ipv6_go_as_with_linux", Family::Ipv6, false, &conversations);
}

fn is_sound_below_tcp(case: &Case) -> bool {
    case.steps.iter().filter_map(Step::segment).all(|segment| segment.is_sound_below_tcp())
}

/// Plays the cases to both stacks. `is_whole`: they have every difference of the table.
fn compare(name: &str, family: Family, is_whole: bool, cases: &[Case]) {
    let (version, release) = kernel();
    if version < KERNEL_MIN {
        return eprintln!("{name} skipped: Linux {release} is older than {}.{}", KERNEL_MIN.0, KERNEL_MIN.1);
    }
    let is_whole = is_whole && version >= KERNEL_OF_TABLE;
    in_namespace(name, || {
        let begun = Instant::now();
        let (mut kernel, mut ours) = (Kernel::start(family), Ours::start(family));
        let mut stage = Stage::new(&mut kernel, &mut ours, BATCH_TIME_MAX);
        let found = stage.play(cases);
        println!("{} cases, {} steps, {} differences, {:?}", stage.cases, stage.steps, found.len(), begun.elapsed());
        let faults = differences::faults(&found, is_whole);
        assert!(faults.is_empty(), "{} differences are not listed:\n{}", faults.len(), faults.join("\n"));
    });
}
