//! Synthetic clients in memory, and the account of them.

use std::process::{Command, Output};

const HOLDLINE: &str = env!("CARGO_BIN_EXE_holdline");

fn load(flags: &[&str]) -> Output {
    Command::new(HOLDLINE).arg("load").args(flags).output().expect("the program is there")
}

const IN_MEMORY: [&str; 6] = ["--link", "memory", "--address", "10.99.0.2/24", "--to", "10.99.0.1:7000"];

#[test]
fn every_message_in_memory_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("account.json");
    let flags = ["--clients", "3000", "--rate", "10000", "--echo", "100", "--every", "1", "--seconds", "2", "--json"];
    let output = load(&[&IN_MEMORY[..], &flags, &[file.to_str().expect("is text")]].concat());
    assert!(output.status.success(), "{output:?}");
    let account: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("the file is written")).expect("is JSON");
    for (field, expected) in
        [("opened", 3_000), ("closed", 3_000), ("not_closed", 0), ("missing", 0), ("wrong_bytes", 0)]
    {
        assert_eq!(account[field], expected, "{field} of {account}");
    }
    // Two whole rounds at least.
    let messages = account["messages"].as_u64().expect("a number");
    assert!(messages >= 6_000 && account["echoed"] == messages, "{account}");
    assert_eq!(account["received_bytes"], messages * 100);
    assert!(String::from_utf8_lossy(&output.stdout).contains("3,000 of 3,000"), "{output:?}");
}

#[test]
fn what_cannot_be_is_refused_in_a_sentence() {
    let with = |flags: &[&'static str]| [&IN_MEMORY[..], flags].concat();
    let cases = [
        (with(&["--clients", "100000"]), "give more with --address or --addresses-each"),
        (with(&["--address", "fd00::2/64"]), "have addresses of its family"),
        (vec!["--link", "raw:none0", "--address", "10.0.0.2/24", "--to", "10.0.0.1:1"], "none0"),
        (vec!["--link", "memory", "--address", "10.0.0.2/24", "--to", "10.0.0.2:1"], "cannot connect"),
        (
            vec!["--link", "memory", "--address", "255.255.255.254/8", "--addresses-each", "3", "--to", "10.0.0.1:1"],
            "no",
        ),
    ];
    for (flags, part) in cases {
        let output = load(&flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{flags:?}: {said}");
    }
}
