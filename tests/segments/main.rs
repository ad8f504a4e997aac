//! Segment scripts: conversations with a shard, readable without Rust.
//!
//! Every `.seg` file below this folder is played against a real shard in memory, in real Ethernet frames that are
//! built and taken apart by the tests' own code. A failure names the file and the line. The language is in `script`.
//! What a death leaves of a batch with many connections, which no script can show, is in `deaths`.

mod application;
mod client;
mod deaths;
mod expect;
mod fault;
mod frame;
mod ipv6;
mod matrix;
mod neighbor;
mod packet;
mod play;
mod reader;
mod requirements;
mod script;
mod stage;
mod tcp;
mod together;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use holdline::shard::CommitPoint;
use holdline::tcp::Rule;
use play::Process;
use script::{Family, Script};
use strum::IntoEnumIterator;

/// The folders, by operation.
const TOPICS: &[&str] = &[
    "arp",
    "close",
    "cookies",
    "connect",
    "data",
    "delayed-ack",
    "ecn",
    "fragments",
    "icmp",
    "idle",
    "ipv6",
    "limits",
    "malformed",
    "ndp",
    "open",
    "path-mtu",
    "push",
    "recovery",
    "reset",
    "retransmit",
    "sack",
    "time-wait",
    "timestamps",
    "window",
];

/// Every script below a folder, in order.
fn scripts(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of the scripts is readable") {
        let path = entry.expect("the folder of the scripts is readable").path();
        if path.is_dir() {
            found.extend(scripts(&path));
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/segments")
}

/// Plays a script. Returns the rules that it names; the error begins with file and line.
fn play(path: &Path, process: Process) -> Result<BTreeSet<&'static str>, String> {
    play_over(path, process, Wire::AsWritten)
}

/// What a script is played over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// The family that it is written for.
    AsWritten,
    /// IPv6, though it is written for IPv4.
    Ipv6,
}

fn play_over(path: &Path, process: Process, wire: Wire) -> Result<BTreeSet<&'static str>, String> {
    let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let played = Script::parse(&text).and_then(|mut script| {
        if wire == Wire::Ipv6 && script.listen.family == Family::Ipv4 {
            script.listen.family = Family::Ipv4AsIpv6;
        }
        play::play(&script, process)
    });
    played.map_err(|(line, what)| {
        let source = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
        format!("{name}:{line}: {what}\n    at `{source}`")
    })
}

/// Plays every script, but where processes die not those that a death changes.
fn hold_all(process: Process) {
    let mut scripts = scripts(&folder());
    scripts.retain(|path| process == Process::Lasts || !is_listed(NOT_ACROSS_RESTARTS, path));
    assert!(!scripts.is_empty(), "no script was found below {}", folder().display());
    let failures: Vec<String> = scripts.iter().filter_map(|path| play(path, process).err()).collect();
    assert!(failures.is_empty(), "{} of {} scripts fail:\n{}", failures.len(), scripts.len(), failures.join("\n"));
}

fn is_listed(list: &[(&str, &str)], path: &Path) -> bool {
    list.iter().any(|(name, _)| path.ends_with(name))
}

#[test]
fn every_script_holds() {
    hold_all(Process::Lasts);
}

/// Scripts that a dying process changes, each with the reason.
const NOT_ACROSS_RESTARTS: &[(&str, &str)] = &[
    ("arp/gateway.seg", "a new process asks for the gateway at once"),
    ("ndp/router.seg", "a new process asks for routers at once"),
    ("ndp/router-that-is-a-peer.seg", "a new process asks for routers at once"),
    ("ipv6/problems-are-throttled.seg", "a new process has told nobody yet"),
    ("fragments/bounded.seg", "a new process has no fragments"),
    ("fragments/expire.seg", "a new process has no fragments"),
    ("fragments/too-many.seg", "a new process has no fragments"),
    ("path-mtu/black-hole-is-remembered.seg", "a new process knows no path yet"),
    ("path-mtu/black-hole-over-ipv6.seg", "a new process asks for routers at once"),
    ("path-mtu/of-connections-that-are-accepted.seg", "a new process knows no path yet"),
    ("path-mtu/of-connections-that-we-open.seg", "a new process knows no path yet"),
    ("path-mtu/of-cookies.seg", "a new process knows no path yet"),
];

#[test]
fn every_script_holds_with_a_restart_before_each_line() {
    hold_all(Process::DiesBeforeEachStep);
}

#[test]
fn every_script_holds_with_a_death_in_each_batch() {
    for point in [CommitPoint::BeforeRecord, CommitPoint::WithinRecord] {
        hold_all(Process::DiesAt(point));
    }
}

/// Scripts that are not about what both families have, each with the reason.
const NOT_OVER_IPV6: &[(&str, &str)] = &[
    ("icmp/ping-of-others.seg", "there is no broadcast; ndp/ping-of-others.seg has the rest"),
    ("malformed/ipv4-checksum.seg", "the header has no checksum"),
    ("malformed/ipv4-options.seg", "options have headers of their own; ipv6/options.seg"),
    ("malformed/ipv4-source-route.seg", "routing has a header of its own; ipv6/routing.seg"),
    ("malformed/other-protocols.seg", "the sender is told; ipv6/other-protocols.seg"),
    ("malformed/total-length.seg", "the length is that of what follows the header; ipv6/payload-length.seg"),
    ("malformed/version-and-header-length.seg", "the header has one length; ipv6/payload-length.seg"),
    ("open/impossible-sources.seg", "there is no broadcast; ipv6/impossible-sources.seg"),
    ("open/mss-default.seg", "it is 1,220; ipv6/mss-default.seg"),
    ("open/mss-of-the-peer.seg", "no link has so small an MTU; ipv6/mss-of-the-peer.seg"),
    ("path-mtu/black-hole-is-remembered.seg", "the sizes are others; path-mtu/black-hole-over-ipv6.seg"),
    ("path-mtu/black-hole.seg", "the sizes are others; path-mtu/black-hole-over-ipv6.seg"),
];

#[test]
fn every_script_holds_over_ipv6_too() {
    for process in [Process::Lasts, Process::DiesBeforeEachStep, Process::DiesAt(CommitPoint::WithinRecord)] {
        let failure = |path: &PathBuf| {
            if process != Process::Lasts && is_listed(NOT_ACROSS_RESTARTS, path) {
                return None;
            }
            match (play_over(path, process, Wire::Ipv6), is_listed(NOT_OVER_IPV6, path)) {
                (Err(what), false) => Some(what),
                (Ok(_), true) => Some(format!("{} holds, and is listed as one that does not", path.display())),
                (Ok(_), false) | (Err(_), true) => None,
            }
        };
        let failures: Vec<String> = scripts(&folder()).iter().filter_map(failure).collect();
        assert!(failures.is_empty(), "{} fail over IPv6, {process:?}:\n{}", failures.len(), failures.join("\n"));
    }
}

#[test]
fn every_rule_is_named_by_a_script() {
    let named: BTreeSet<&str> =
        scripts(&folder()).iter().filter_map(|path| play(path, Process::Lasts).ok()).flatten().collect();
    let unnamed: Vec<Rule> = Rule::iter().filter(|rule| !named.contains(<&str>::from(rule))).collect();
    assert!(unnamed.is_empty(), "no script names (`!!`) these rules: {unnamed:?}");
}

#[test]
fn every_folder_has_a_script() {
    for topic in TOPICS {
        let folder = folder().join(topic);
        assert!(folder.is_dir() && !scripts(&folder).is_empty(), "no script in {}", folder.display());
    }
    assert!(scripts(&folder()).iter().all(|path| TOPICS.iter().any(|topic| path.starts_with(folder().join(topic)))));
}

#[test]
fn every_topic_has_a_case_at_the_wrap() {
    for topic in TOPICS {
        let is_at_the_wrap = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).expect("a script is readable");
            text.contains("42949672") || text.contains("4294966")
        };
        assert!(scripts(&folder().join(topic)).iter().any(is_at_the_wrap), "{topic} has no case at the wrap");
    }
}

/// A conversation that holds, and what breaks each of its expectations: the line that must fail.
const CONVERSATION: &str = "# RFC 9293
listen iss 5000
>> syn seq 100 mss 1460
<< syn seq 5000 ack 101 mss 1460 window 65535
!! ListenAcceptsSyn
state SYN-RECEIVED
>> seq 101 ack 5001
app opened
push 100
<< psh seq 5001..5101 ack 101
>> seq 101..111 ack 5101
<< seq 5101 ack 111
!! AckAdvances
!! PayloadAccepted
app received 10
app delivered
app silent
at 200ms
";

fn failing_line(text: &str) -> Option<usize> {
    let script = Script::parse(text).expect("a script that is understood");
    play::play(&script, Process::Lasts).err().map(|(line, _)| line)
}

#[test]
fn a_conversation_fails_at_the_line_that_is_wrong() {
    assert_eq!(failing_line(CONVERSATION), None);
    for (right, wrong, line) in [
        ("<< syn seq 5000 ack 101", "<< syn seq 5000 ack 102", 4),
        ("mss 1460 window 65535", "mss 1400 window 65535", 4),
        ("mss 1460 window 65535", "window 65534", 4),
        ("mss 1460 window 65535", "no mss", 4),
        ("mss 1460 window 65535", "ts 1 2", 4),
        ("<< syn seq 5000 ack 101", "<< fin seq 5000 ack 101", 4),
        ("!! ListenAcceptsSyn", "!! ListenRejectsAck", 5),
        ("SYN-RECEIVED", "ESTABLISHED", 6),
        ("app opened", "app peer-closed", 8),
        ("<< psh seq 5001..5101", "<< psh seq 5001..5100", 10),
        ("<< psh seq 5001..5101 ack 101\n", "", 10),
        ("<< seq 5101 ack 111", "<< seq 5100 ack 111", 12),
        ("<< seq 5101 ack 111", "<< rst seq 5101 ack 111", 12),
        ("<< seq 5101 ack 111", "<< seq 5101", 12),
        ("<< seq 5101 ack 111", "<< port 40001 seq 5101 ack 111", 12),
        ("!! AckAdvances\n", "", 17),
        ("!! AckAdvances\n", "!! AckAdvances\n!! AckAdvances\n", 14),
        ("app received 10", "app received 11", 15),
        ("app delivered\n", "", 16),
        ("at 200ms", "<< seq 5101 ack 111", 18),
        ("at 200ms", "push 10", 18),
    ] {
        let text = CONVERSATION.replacen(right, wrong, 1);
        assert_ne!(text, CONVERSATION, "{right} is not in the conversation");
        assert_eq!(failing_line(&text), Some(line), "{right} -> {wrong}");
    }
}
