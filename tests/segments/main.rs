//! Segment scripts: conversations with a shard, readable without Rust.
//!
//! Every `.seg` file below this folder is played against a real shard in memory, in real Ethernet frames that are
//! built and taken apart by the tests' own code. A failure names the file and the line. The language is in `script`.

mod application;
mod client;
mod expect;
mod frame;
mod packet;
mod reader;
mod script;
mod stage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use script::Script;
use strum::IntoEnumIterator;

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

/// Plays a script; the error begins with file and line.
fn play(path: &Path) -> Result<stage::Shown, String> {
    let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let played = Script::parse(&text).and_then(|script| stage::play(&script));
    played.map_err(|(line, what)| {
        let source = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
        format!("{name}:{line}: {what}\n    at `{source}`")
    })
}

#[test]
fn every_script_holds() {
    let scripts = scripts(&folder());
    assert!(!scripts.is_empty(), "no script was found below {}", folder().display());
    let failures: Vec<String> = scripts.iter().filter_map(|path| play(path).err()).collect();
    assert!(failures.is_empty(), "{} of {} scripts fail:\n{}", failures.len(), scripts.len(), failures.join("\n"));
}

#[test]
fn every_folder_has_a_script() {
    for topic in ["arp", "close", "data", "icmp", "malformed", "open", "reset", "retransmit", "time-wait", "window"] {
        let folder = folder().join(topic);
        assert!(folder.is_dir() && !scripts(&folder).is_empty(), "no script in {}", folder.display());
    }
}
