//! Replay: recorded clients of real stacks against ours, the answers compared with snapshots.
//!
//! Every capture of `pcap/` is played by the program itself, and what it prints must be what stands in
//! `tests/replay/snapshots`. Where it is not, the test shows the first lines that differ and says where the new output
//! lies; whoever has read all of the difference and finds it right copies it over the snapshot.

mod damage;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Captures, and the address of the server in each.
const CAPTURES: &[(&str, &str)] = &[
    ("bare.pcap", "10.5.0.2"),
    ("cooked.pcap", "127.0.0.1"),
    ("echo.pcap", "10.5.0.2"),
    ("half-close.pcap", "10.5.0.2"),
    ("holdline.pcapng", "10.6.0.2"),
    ("http.pcap", "10.5.0.2"),
    ("ipv6-cooked.pcap", "::1"),
    ("ipv6.pcapng", "fd07::2"),
    ("keepalive.pcap", "10.5.0.2"),
    ("last-ack-lost.pcap", "10.5.0.2"),
    ("loss-down.pcap", "10.5.0.2"),
    ("loss-up.pcap", "10.5.0.2"),
    ("many.pcap", "10.5.0.2"),
    ("reorder.pcap", "10.5.0.2"),
    ("reset.pcap", "10.5.0.2"),
    ("syn-ack-lost.pcap", "10.5.0.2"),
    ("together.pcap", "10.5.0.2"),
    ("urgent.pcap", "10.5.0.2"),
    ("veth.pcapng", "10.7.0.2"),
    ("zero-window.pcap", "10.5.0.2"),
];

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn fixture(name: &str) -> PathBuf {
    in_project("pcap").join(name)
}

fn names_in(folder: &str, extensions: &[&str]) -> BTreeSet<String> {
    let entries = fs::read_dir(in_project(folder)).expect("the project is readable");
    let names = entries.map(|entry| entry.expect("the project is readable").file_name().to_string_lossy().into_owned());
    names.filter(|name| extensions.iter().any(|extension| name.ends_with(extension))).collect()
}

/// Plays captures with a server on port 7000.
fn replay(captures: &[&Path], address: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdline"));
    command.arg("replay").args(captures).args(["--address", address, "--listen", "7000"]).args(more);
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What differs, in a few lines; none where nothing does.
fn first_differences(expected: &str, found: &str) -> Vec<String> {
    let (mut before, mut after) = (expected.lines(), found.lines());
    let mut differences = Vec::new();
    for number in 1.. {
        let (old, new) = (before.next(), after.next());
        if old.is_none() && new.is_none() {
            break;
        }
        if old != new && differences.len() < 8 {
            differences.push(format!("{number:>5} - {}\n      + {}", old.unwrap_or(""), new.unwrap_or("")));
        }
    }
    differences
}

#[test]
fn every_capture_is_answered_as_before() {
    let outputs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("replay");
    let mut complaints = Vec::new();
    for (name, address) in CAPTURES {
        let played = replay(&[&fixture(name)], address, &[]);
        assert!(played.status.success(), "{name}: {}", text(&played.stderr));
        let found = text(&played.stdout);
        let snapshot = in_project("tests/replay/snapshots").join(format!("{name}.txt"));
        let expected = fs::read_to_string(&snapshot).unwrap_or_default();
        let differences = first_differences(&expected, &found);
        if !differences.is_empty() {
            let output = outputs.join(format!("{name}.txt"));
            let written = fs::create_dir_all(&outputs).and_then(|()| fs::write(&output, &found));
            let (output, snapshot) = (output.display(), snapshot.display());
            let next = match written {
                Ok(()) => {
                    format!("read `diff -u {snapshot} {output}`, and if all of it is right `cp {output} {snapshot}`")
                }
                Err(error) => format!("what was found could not be written to {output}: {error}"),
            };
            complaints.push(format!("{name}:\n{}\n{next}", differences.join("\n")));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn every_capture_is_known_and_has_its_provenance() {
    let captures = names_in("pcap", &[".pcap", ".pcapng"]);
    let known: BTreeSet<String> = CAPTURES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(captures, known, "pcap/ and the table of this test");
    let snapshots: BTreeSet<String> = known.iter().map(|name| format!("{name}.txt")).collect();
    assert_eq!(names_in("tests/replay/snapshots", &[".txt"]), snapshots, "snapshots and the table of this test");
    let readme = fs::read_to_string(in_project("pcap/README.md")).expect("it is there");
    for name in known {
        let rows = readme.lines().filter(|line| line.starts_with(&format!("| `{name}` | "))).count();
        assert_eq!(rows, 1, "pcap/README.md has one row for {name}");
    }
}

#[test]
fn json_tells_what_the_lines_tell() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("it.json");
    let captures = [fixture("many.pcap"), fixture("keepalive.pcap")];
    let more = ["--json", path.to_str().expect("a plain name")];
    let played = replay(&[&captures[0], &captures[1]], "10.5.0.2", &more);
    assert!(played.status.success(), "{}", text(&played.stderr));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("it was written")).expect("it is JSON");
    let lines = text(&played.stdout);
    let count = |mark: &str| lines.lines().filter(|line| line.contains(mark)).count();
    let mut ways = std::collections::BTreeMap::new();
    for report in json.as_array().expect("a report for each capture") {
        for conversation in report["conversations"].as_array().expect("conversations") {
            assert_eq!(conversation["ours"], conversation["recorded"], "both end alike");
            for line in conversation["lines"].as_array().expect("lines") {
                *ways.entry(line["way"].as_str().expect("a way").to_owned()).or_insert(0) += 1;
                assert!(line["segment"]["seq"].is_u64() && line["at_us"].is_u64());
            }
        }
    }
    assert_eq!(json[0]["conversations"].as_array().map(Vec::len), Some(5));
    assert_eq!(json[1]["rules"][1]["rule"], "SequenceUnacceptable");
    let by_marks = [("in", ">>"), ("out", "<<"), ("recorded", "==")].map(|(way, mark)| (way.to_owned(), count(mark)));
    assert_eq!(ways, by_marks.into());
}
