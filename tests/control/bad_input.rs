//! Bad input: every flag, every key of a configuration, every call names what is wrong and does nothing else.
//!
//! The tables are held against what there is: a flag of `--help`, a key of the configuration or a path of the control
//! API without a row fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use crate::http;
use crate::stage::Stage;

/// What is refused before anything is done: subcommand, flag, value, and what the sentence says beside these two.
const FLAGS: &[(&str, &str, &str, &str)] = &[
    ("demo", "--clients", "0", "0 is not in 1.."),
    ("demo", "--clients", "many", "invalid digit"),
    ("demo", "--rounds", "0", "0 is not in 1.."),
    ("demo", "--payload", "65537", "is not in 1..=65536"),
    ("demo", "--link", "wlan", "tap, veth-raw, veth-af-xdp"),
    ("demo", "--rest", "3601", "is not in 0..=3600"),
    ("serve", "--link", "eth0", "a link is tap:NAME, raw:IFACE or af-xdp"),
    ("serve", "--link", "tap:", "a link is tap:NAME, raw:IFACE or af-xdp"),
    ("serve", "--link", "af-xdp:", "a link is tap:NAME, raw:IFACE or af-xdp"),
    ("serve", "--link", "af-xdp:eth0:all", "an interface and a queue or several"),
    ("serve", "--link", "af-xdp:eth0:0,fast", "generic, copy, busy-poll"),
    ("serve", "--address", "10.0.0.2", "an IPv4 or IPv6 address with a prefix length"),
    ("serve", "--address", "10.0.0.2/33", "an IPv4 or IPv6 address with a prefix length"),
    ("serve", "--address", "fd00::2/129", "an IPv4 or IPv6 address with a prefix length"),
    ("serve", "--address", "224.0.0.1/4", "no address that a host on a link can have"),
    ("serve", "--gateway", "home", "IP address"),
    ("serve", "--listen", "0", "a port is 1 to 65535"),
    ("serve", "--listen", "9-7", "a port is 1 to 65535"),
    ("serve", "--listen", "65536", "a port is 1 to 65535"),
    ("serve", "--service", "chat", "echo, hold, names"),
    ("serve", "--metrics", "loud", "metrics are served on a port"),
    ("serve", "--metrics", "65536", "metrics are served on a port"),
    ("serve", "--max-connections", "0", "0 is not in 1.."),
    ("serve", "--max-connections", "4294967296", "is not in 1.."),
    ("serve", "--max-memory", "5X", "is no size"),
    ("serve", "--max-memory", "0", "is no size"),
    ("serve", "--push-queue", "65M", "at most 67108864 bytes"),
    ("serve", "--push-queue", "0", "is no size"),
    ("serve", "--keepalive", "0", "0 is not in 1.."),
    ("serve", "--keepalive", "soon", "invalid digit"),
    ("serve", "--idle-timeout", "-5", "-5 is not in 1.."),
    ("serve", "--user-timeout", "0", "0 is not in 1.."),
    ("serve", "--drain-rate", "1.5", "invalid digit"),
    ("serve", "--workers", "0", "0 is not in 1..=128"),
    ("serve", "--workers", "129", "129 is not in 1..=128"),
    ("serve", "--shards", "0", "0 is not in 1..=128"),
    ("serve", "--shards", "many", "invalid digit"),
    ("serve", "--spin", "1000001", "1000001 is not in 0..=1000000"),
    ("serve", "--pin", "3-1", "cores are numbers and ranges"),
    ("serve", "--pin", "first", "cores are numbers and ranges"),
    ("flows", "--limit", "many", "invalid digit"),
    ("push", "--timeout", "soon", "invalid digit"),
    ("push", "--expires", "-1", "-1 is not in 0.."),
    ("broadcast", "--pace", "fast", "invalid digit"),
    ("broadcast", "--expires", "4294967296", "4294967296 is not in"),
    ("broadcast", "--job", "first", "invalid digit"),
    ("events", "--limit", "-1", "invalid digit"),
    ("drain", "--rate", "fast", "invalid digit"),
    ("top", "--interval", "0", "0 is not in 1..=3600"),
    ("top", "--count", "few", "invalid digit"),
    ("load", "--link", "eth0", "a link is tap:NAME, raw:IFACE or af-xdp"),
    ("load", "--address", "10.0.0.2", "an IPv4 or IPv6 address with a prefix length"),
    ("load", "--addresses-each", "65", "65 is not in 1..=64"),
    ("load", "--gateway", "home", "IP address"),
    ("load", "--to", "somewhere", "socket address"),
    ("load", "--clients", "0", "0 is not in 1.."),
    ("load", "--rate", "0", "0 is not in 1.."),
    ("load", "--echo", "65537", "65537 is not in 1..=65536"),
    ("load", "--every", "0", "0 is not in 1.."),
    ("load", "--seconds", "-1", "-1 is not in 0.."),
    ("replay", "--address", "nobody", "IP address"),
    ("replay", "--listen", "0", "0 is not in 1.."),
    ("replay", "--service", "names", "recorded, echo, hold"),
    ("sim", "--seed", "first", "invalid digit"),
    ("sim", "--seeds", "9..1", "no range of seeds"),
    ("sim", "--profile", "sunny", "there are"),
];

/// What is refused of flags that are right each by itself: a command line, and what the sentence says.
const TOGETHER: &[(&[&str], &str)] = &[
    (
        &["serve", "--link=raw:no-such-if", "--address=10.0.0.2/24", "--listen=7", "--gateway=fd00::1"],
        "the gateway fd00::1 is of no use without an address of its family",
    ),
    (
        &["load", "--link=memory", "--address=fd00::2/64", "--to=[fd00::1]:7", "--gateway=10.0.0.1"],
        "the gateway 10.0.0.1 is of no use without an address of its family",
    ),
];

/// What a running server refuses: a whole command line behind `--control`, and what the sentence says.
const REFUSED: &[(&[&str], &str)] = &[
    (&["flows", "--limit", "0"], "limit=0"),
    (&["flows", "--after", "12"], "`12` is no id"),
    (&["flows", "--state", "LISTEN"], "state=LISTEN is none of: SYN-RECEIVED"),
    (&["flows", "--name", ""], "`` is no name"),
    (&["push", "--to", "", "x"], "`` is no name"),
    (&["push", "--to", "a\nb", "x"], "`a\\nb` is no name"),
    (&["push", "--to", "nobody", "x"], "no connection has the name `nobody`"),
    (&["push", "--flow", "xyz", "x"], "`xyz` is no id"),
    (&["push", "--flow", "", "x"], "`` is no id"),
    (&["push", "--flow", "0000000000000009", "x"], "no connection ever had the id 0000000000000009"),
    (&["push", "--to", "a", "--expires", "0", "x"], "expires=0"),
    (&["push", "--to", "a", "--wait", "--timeout", "0", "x"], "timeout=0"),
    (&["push", "--to", "a", "--key", "", "x"], "an Idempotency-Key has 1 to 255 bytes"),
    (&["push", "--to", "a", "--key", "a\nb", "x"], "this cannot be asked for"),
    (&["push", "--to", "a", ""], "at least one byte"),
    (&["push", "--to", "a", "--file", "/nowhere/it"], "cannot read /nowhere/it"),
    (&["broadcast", "--pace", "0", "x"], "pace=0"),
    (&["broadcast", "--expires", "0", "x"], "expires=0"),
    (&["broadcast", "--name-prefix", "a\tb", "x"], "`a\\tb` is no name"),
    (&["broadcast", "--file", "/nowhere/it"], "cannot read /nowhere/it"),
    (&["broadcast", "--job", "999"], "there is no job 999"),
    (&["events", "--after", "now"], "after=now is no cursor"),
    (&["events", "--kinds", "born"], "`born` is none of: opened"),
    (&["events", "--limit", "0"], "limit=0"),
    (&["drain", "--rate", "0"], "rate=0"),
    (&["close", "zz"], "`zz` is no id"),
    (&["pause", "zz"], "`zz` is no id"),
    (&["resume", "0000000000000009"], "no connection ever had the id 0000000000000009"),
];

/// Flags whose values are paths, which are looked at when the rest is right: these say so in tests/linux, as a link is
/// opened before, or here by `REFUSED` and in `a_path_that_leads_nowhere_is_named`.
const PATHS: &[(&str, &str)] = &[
    ("demo", "--json"),
    ("serve", "--control"),
    ("serve", "--state"),
    ("serve", "--capture"),
    ("serve", "--config"),
    ("load", "--json"),
    ("replay", "--json"),
];

/// What a subcommand needs beside the flag that is wrong. No row gets as far as to open the link.
fn needed(command: &str) -> &'static [(&'static str, &'static str)] {
    match command {
        "serve" => &[("--link", "raw:no-such-if"), ("--address", "10.0.0.2/24"), ("--listen", "7")],
        "load" => &[("--link", "raw:no-such-if"), ("--address", "10.0.0.2/24"), ("--to", "10.0.0.1:7")],
        "replay" => &[("--address", "10.0.0.2"), ("--listen", "7")],
        "push" => &[("--control", "/nowhere/control"), ("--to", "alice")],
        "demo" | "sim" => &[],
        _ => &[("--control", "/nowhere/control")],
    }
}

fn holdline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdline")).args(arguments).output().expect("it starts")
}

/// Runs it, sees that it fails without a word on standard output, and returns what it says.
fn refusal(arguments: &[&str]) -> String {
    let outcome = holdline(arguments);
    let said = String::from_utf8(outcome.stderr).expect("text");
    assert!(matches!(outcome.status.code(), Some(1 | 2)), "{arguments:?}: {}: {said}", outcome.status);
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    said
}

/// The subcommands with those of their flags that take a value, as `--help` tells.
fn flags_with_values() -> BTreeSet<(String, String)> {
    let help = String::from_utf8(holdline(&["--help"]).stdout).expect("text");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut found = BTreeSet::new();
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help") {
        let help = String::from_utf8(holdline(&[command, "--help"]).stdout).expect("text");
        for line in help.lines().map(str::trim_start).filter(|line| line.starts_with("--") && line.contains(" <")) {
            found.insert((command.to_owned(), line.split_whitespace().next().expect("it is there").to_owned()));
        }
    }
    found
}

#[test]
fn every_flag_names_itself_where_its_value_is_wrong() {
    for (command, flag, value, sentence) in FLAGS {
        let wrong = format!("{flag}={value}");
        let mut arguments = vec![*command, wrong.as_str()];
        let others = needed(command).iter().filter(|(other, _)| other != flag);
        let others: Vec<String> = others.map(|(other, value)| format!("{other}={value}")).collect();
        arguments.extend(others.iter().map(String::as_str));
        let said = refusal(&arguments);
        let what = format!("invalid value '{value}' for '{flag} <");
        assert!(said.contains(&what) && said.contains(sentence), "{arguments:?}: {said}");
    }
    let in_tables = |command: &str, flag: &str| {
        FLAGS.iter().any(|row| (row.0, row.1) == (command, flag))
            || REFUSED.iter().any(|(line, _)| line[0] == command && line.contains(&flag))
            || PATHS.contains(&(command, flag))
            || flag == "--control"
    };
    let all = flags_with_values();
    assert!(all.len() > 40, "the help is read: {all:?}");
    let missing: Vec<_> = all.iter().filter(|(command, flag)| !in_tables(command, flag)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

#[test]
fn flags_that_do_not_go_together_are_refused_in_one_sentence() {
    for (line, sentence) in TOGETHER {
        let said = refusal(line);
        assert!(said.starts_with("holdline: ") && said.contains(sentence), "{line:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{line:?}: {said}");
    }
}

#[test]
fn what_a_server_refuses_is_one_sentence_that_names_it() {
    let mut stage = Stage::new();
    let (index, id) = stage.connect("a");
    let control = format!("--control={}", stage.socket().display());
    for (line, sentence) in REFUSED {
        let mut arguments = line.to_vec();
        arguments.insert(1, &control);
        let said = refusal(&arguments);
        assert!(said.starts_with("holdline: ") && said.contains(sentence), "{line:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{line:?}: {said}");
    }
    let flow = stage.get(&format!("/flows/{id}"));
    assert_eq!((&flow["state"], &flow["paused"]), (&"ESTABLISHED".into(), &false.into()));
    assert_eq!(stage.get("/stats")["draining"], false);
    let answer = stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"only this");
    assert_eq!((answer.status, stage.peer.received(index)), (200, &b"only this"[..]));
}

#[test]
fn a_path_that_leads_nowhere_is_named() {
    for command in ["flows", "push", "broadcast", "close", "pause", "resume", "events", "stats", "drain", "top"] {
        let rest: &[&str] = match command {
            "push" => &["--to", "alice", "hello"],
            "broadcast" => &["hello"],
            "close" | "pause" | "resume" => &["0000000000000001"],
            _ => &[],
        };
        let said = refusal(&[&[command, "--control", "/nowhere/control"], rest].concat());
        assert!(said.contains("there is no control socket /nowhere/control") && said.lines().count() == 1, "{said}");
    }
    let said = refusal(&["serve", "--config", "/nowhere/c.toml"]);
    assert!(said.contains("cannot read the configuration /nowhere/c.toml"), "{said}");
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/pcap/echo.pcap");
    let line = ["replay", capture, "--address", "10.5.0.2", "--listen", "7000", "--json", "/nowhere/it.json"];
    let outcome = holdline(&line);
    let said = String::from_utf8(outcome.stderr).expect("text");
    assert!(!outcome.status.success() && said.contains("cannot write /nowhere/it.json"), "{said}");
}

#[test]
fn every_key_of_a_configuration_names_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("c.toml");
    let path = file.to_str().expect("a plain name");
    let refused = |text: &str, key: &str| {
        fs::write(&file, text).expect("there is room");
        let others = needed("serve").iter().filter(|(flag, _)| flag[2..] != *key);
        let others: Vec<String> = others.map(|(flag, value)| format!("{flag}={value}")).collect();
        let mut arguments = vec!["serve", "--config", path];
        arguments.extend(others.iter().map(String::as_str));
        let said = refusal(&arguments);
        assert!(said.contains(path) && said.lines().count() == 1, "{text}: {said}");
        said
    };
    let unknown = refused("link-name = 'x'", "");
    let (what, keys) = unknown.trim_end().split_once("`link-name` is no key; there are: ").expect("it lists them");
    assert!(what.starts_with("holdline: "), "{what}");
    let keys: Vec<&str> = keys.split(", ").collect();
    assert!(keys.len() > 14, "{keys:?}");
    for key in &keys {
        for wrong in ["1.5", "true", "{ a = 1 }", "[[1]]", "1979-05-27"] {
            let said = refused(&format!("{key} = {wrong}"), key);
            assert!(said.contains(&format!("the key `{key}`")), "{key} = {wrong}: {said}");
        }
    }
    for (_, flag, value, _) in FLAGS.iter().filter(|row| row.0 == "serve") {
        let key = &flag[2..];
        let said = refused(&format!("{key} = '{value}'"), key);
        assert!(said.contains(&format!("the key `{key}`: invalid value '{value}'")), "{key}: {said}");
        assert!(keys.contains(&key), "{key} is a flag and no key");
    }
}

#[test]
fn every_call_refuses_parameters_and_methods_that_it_does_not_know() {
    let mut stage = Stage::new();
    let (index, id) = stage.connect("a");
    let nowhere = stage.call("GET", "/nowhere", b"").error();
    let (_, list) = nowhere.split_once("there are ").expect("it lists what there is");
    let paths: Vec<String> = list
        .replace(" and ", ", ")
        .split(", ")
        .map(|path| path.replace("ID", &id).replace("NAME", "a").replace("JOB", "1").replace("SHARD", "0"))
        .collect();
    assert_eq!(paths.len(), 13, "{paths:?}");
    for path in paths {
        let answer = stage.call("PATCH", &path, b"x");
        assert_eq!(answer.status, 405, "{path}: {answer:?}");
        assert!(answer.error().contains(&format!("{path} does not take PATCH")), "{answer:?}");
        let allowed = answer.head.lines().find_map(|line| line.strip_prefix("allow: ")).expect("it says what it takes");
        for method in allowed.to_uppercase().split(',').filter(|method| *method != "HEAD") {
            let answer = stage.call(method, &format!("{path}?bogus=1"), b"x");
            assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
            assert!(answer.error().contains("`bogus` is no parameter of "), "{method} {path}: {answer:?}");
        }
    }
    for (method, target, named) in [
        ("GET", "/flows/%ff", "/flows/%ff cannot be read"),
        ("GET", "/flows/%00", "is no id"),
        ("GET", "/jobs/%2f", "`/` is no job"),
        ("DELETE", "/flows/00000000000000000", "is no id"),
        ("POST", "/names/%0d/push", "`\\r` is no name"),
    ] {
        let answer = http::call(&stage.socket(), method, target, &[], b"x");
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
        assert!(answer.error().contains(named), "{target}: {answer:?}");
    }
    assert_eq!(stage.get(&format!("/flows/{id}"))["state"], "ESTABLISHED", "nothing was done to it");
    assert_eq!((stage.get("/stats")["draining"].clone(), stage.peer.received(index)), (false.into(), &b""[..]));
}
