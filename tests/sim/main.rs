//! Seeded worlds: every profile holds over a few hundred seeds, a seed is one run, and the checkers are seen to fail.

use holdline::shard::Rule;
use holdline::sim::{self, Breach, Fault, Operation, Parameters, Profile, Report, Sabotage, Totals};
use strum::IntoEnumIterator;

const SEEDS: u64 = 300;

/// Runs worlds and panics with the report of the first that failed.
fn run_all(profile: Profile) -> Totals {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        let report = sim::run(seed, profile);
        assert!(report.breach.is_none(), "{report}");
        totals.add(&report);
    }
    totals
}

#[test]
fn calm_worlds_hold() {
    let totals = run_all(Profile::Calm);
    assert_eq!(totals.statistics.kills(), 0);
    assert!(totals.statistics.connections > SEEDS && totals.statistics.receipts > SEEDS);
    // Two of five clients speak IPv6.
    let share_percent = totals.statistics.connections_ipv6 * 100 / totals.statistics.connections;
    assert!((30..50).contains(&share_percent), "{share_percent} % of the connections are over IPv6");
}

#[test]
fn lossy_worlds_hold() {
    let totals = run_all(Profile::Lossy).statistics;
    for (fault, count) in Fault::iter().zip(totals.faults) {
        assert!(count > SEEDS / 30, "only {count} {fault}");
    }
}

#[test]
fn worlds_with_kills_hold() {
    let totals = run_all(Profile::Kills).statistics;
    for (operation, counts) in Operation::iter().zip(totals.kills_at) {
        assert!(counts.iter().all(|&count| count > 0), "kills at commit points in {operation}: {counts:?}");
    }
    assert!(totals.kills_between >= 10);
    assert!(totals.records_discarded >= 10, "only {} records were found incomplete", totals.records_discarded);
    assert!(totals.records_applied_again >= 10, "only {} records were applied again", totals.records_applied_again);
}

#[test]
fn mixed_worlds_hold() {
    let totals = run_all(Profile::Mixed).statistics;
    assert!(totals.kills() > 0 && totals.faults[Fault::Lost as usize] > 0);
}

#[test]
fn tight_worlds_hold() {
    let totals = run_all(Profile::Tight).statistics;
    assert!(totals.refusals > 0);
}

/// Rules that no world reaches, and why; scripts and fuzzing do.
const OUT_OF_REACH: &[(&[Rule], &str)] = &[
    (
        &[
            Rule::Ipv4SourceRoute,
            Rule::Ipv6HeaderRefused,
            Rule::Ipv6ProblemThrottled,
            Rule::IcmpEchoAnswers,
            Rule::IcmpSoftError,
            Rule::IcmpAbortsOpen,
        ],
        "machines speak nothing but TCP there and ask for each other, and no link spoils many frames a second",
    ),
    (&[Rule::RouterLearns], "there is no router"),
    (
        &[
            Rule::FragmentHeld,
            Rule::FragmentCompletes,
            Rule::FragmentRepeated,
            Rule::FragmentOverlaps,
            Rule::FragmentMarksDiffer,
            Rule::FragmentTiny,
            Rule::FragmentTooMany,
            Rule::FragmentEvicted,
            Rule::FragmentExpired,
            Rule::PathMtuLowered,
            Rule::PathMtuDoubted,
            Rule::PathMtuTooSmall,
            Rule::PathMtuNotSmaller,
            Rule::PathMtuConfirmed,
        ],
        "nobody cuts packets up there, or says that they are too large",
    ),
    (
        &[Rule::AckMissing, Rule::AckOfUnsent, Rule::PayloadAfterFin, Rule::SynSentRefused],
        "both stacks follow the rules, and nobody guesses at connections of others",
    ),
    (&[Rule::SynSentSimultaneous], "the node opens no connection"),
    (
        &[Rule::ListenSendsCookie, Rule::CookieAccepted, Rule::CookieNoRoom],
        "a cookie may open an ended connection again",
    ),
    (&[Rule::ListenDraining, Rule::UrgentAnnounced, Rule::PushRepeated, Rule::PushExpired], "nobody asks for it"),
    (&[Rule::DataAfterClose, Rule::IdleExpired], "the ledger would have no word for bytes that are lost by intent"),
    (
        &[Rule::RetransmissionGivenUp, Rule::FinWait2Expired, Rule::KeepaliveGivenUp, Rule::ListenDropsOther],
        "a world that has healed ends before patience does, or nobody sends it",
    ),
];

/// Rules that only one world in thousands reaches.
const BY_CHANCE: &[Rule] = &[
    // What no checksum of IPv6 covers has to be spoilt in one of few bits.
    Rule::FrameNotForUs,
    Rule::SourceAddressInvalid,
    Rule::Ipv6ProblemTold,
    Rule::HandshakeAckRejected,
    Rule::SynSentDropsOther,
    Rule::HeldGivenUp,
    Rule::AckTooOld,
    Rule::HandshakeCutShort,
    Rule::BlackHoleSuspected,
];

#[test]
fn every_rule_is_reached_or_out_of_reach_for_a_reason() {
    let mut totals = Totals::default();
    for (profile, seeds) in [(Profile::Lossy, 0..700), (Profile::Tight, 0..700), (Profile::Mixed, 0..700)] {
        seeds.for_each(|seed| totals.add(&sim::run(seed, profile)));
    }
    let missing = totals.statistics.rules_not_reached();
    let known = |rule: &Rule| BY_CHANCE.contains(rule) || OUT_OF_REACH.iter().any(|(rules, _)| rules.contains(rule));
    let unknown: Vec<&Rule> = missing.iter().filter(|rule| !known(rule)).collect();
    assert!(unknown.is_empty(), "no world reaches {unknown:?}");
    for rule in OUT_OF_REACH.iter().flat_map(|(rules, _)| *rules) {
        assert!(missing.contains(rule), "{rule:?} is reached after all");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..40 {
        let [first, second] = [0, 1].map(|_| sim::run(seed, Profile::Mixed));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed} went two ways");
        assert_eq!(first.statistics.simulated_us, second.statistics.simulated_us);
    }
    assert_ne!(sim::run(1, Profile::Mixed).trace_hash, sim::run(2, Profile::Mixed).trace_hash);
}

#[test]
fn every_lie_is_found() {
    for sabotage in Sabotage::all() {
        // A name is looked for after a restart.
        let profile = if sabotage == Sabotage::WithholdNames { Profile::Kills } else { Profile::Mixed };
        let mut told = 0;
        let mut found = 0;
        for seed in 0..60 {
            let report = sim::run_with(Parameters::draw(seed, profile), |world| world.with_sabotage(sabotage));
            told += report.statistics.lies;
            found += u64::from(is_found(sabotage, &report));
        }
        assert!(told >= 5, "{sabotage:?} was told only {told} times");
        assert!(found * 3 >= told, "{sabotage:?} was told {told} times and found only {found} times");
    }
}

/// Whether the breach is the one that this lie must lead to.
fn is_found(sabotage: Sabotage, report: &Report) -> bool {
    let Some((_, breach)) = &report.breach else { return false };
    match sabotage {
        Sabotage::Break(lie) => matches!(breach, Breach::Broken { invariant, .. } if *invariant == lie),
        Sabotage::SwallowStreamEnd => matches!(breach, Breach::StreamUnread { .. }),
        Sabotage::RepeatOwnReceipt => matches!(breach, Breach::ReceiptTwice { .. }),
        Sabotage::HurryOwnReceipt => matches!(breach, Breach::ReceiptTooEarly { .. }),
        Sabotage::WithholdNames => matches!(breach, Breach::NameLost { .. }),
        Sabotage::SendReset => matches!(breach, Breach::WrongSegment { .. }),
        Sabotage::FlipDeliveredBit | Sabotage::RepeatDeliveredBytes => {
            matches!(breach, Breach::WrongBytesDelivered { .. })
        }
        Sabotage::EndEarly => matches!(breach, Breach::EndUnasked { .. } | Breach::EndTooEarly { .. }),
        Sabotage::ResetClient => matches!(breach, Breach::ResetUnasked { .. }),
        // A kill may have swallowed it too, or the connection may have been reset later.
        Sabotage::SwallowReceipt => matches!(breach, Breach::ReceiptMissing { .. }),
        Sabotage::RepeatReceipt => matches!(breach, Breach::ReceiptTwice { .. }),
        Sabotage::SwallowQueued => matches!(breach, Breach::PushNotAnsweredOnce { .. }),
        Sabotage::HideFlow => matches!(breach, Breach::Lost { .. }),
        Sabotage::LeakBlock | Sabotage::LeakPeer => matches!(breach, Breach::Leaked { .. }),
        Sabotage::SpoilSegment => matches!(breach, Breach::MalformedFrame { .. }),
    }
}
