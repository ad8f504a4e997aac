//! Scripts of this folder, which show a server from outside with the tools that everybody has.
//!
//! Each makes its own namespaces, as a plain user too where that is allowed, prints its steps and ends at the first
//! wrong answer; a tool that is missing makes it say so on one line and pass.

use std::path::Path;
use std::process::Command;

use crate::support::HOLDLINE;

/// Runs the script, which either skips itself or says as its last line that all was right.
fn holds(script: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/linux").join(script);
    let outcome = Command::new("bash").arg(path).arg(HOLDLINE).args(arguments).output().expect("bash is everywhere");
    let (said, wrong) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    let last = said.lines().last().unwrap_or_default();
    assert!(outcome.status.success(), "{script}: {}\n{said}\n{wrong}", outcome.status);
    match last.strip_prefix("skipped: ") {
        Some(reason) => eprintln!("{script} skipped: {reason}"),
        None => assert_eq!(last, "all answers were right", "{said}\n{wrong}"),
    }
}

#[test]
fn a_server_is_driven_by_curl_alone() {
    holds("control.sh", &[]);
}

#[test]
fn two_workers_are_driven_by_curl_alone() {
    holds("control.sh", &["2"]);
}

#[test]
fn an_unplugged_client_is_found_out_and_found_again_elsewhere() {
    holds("unplugged.sh", &[]);
}

#[test]
fn a_flood_of_syns_shuts_nobody_out() {
    // Ten thousand in a second: what a debug build answers beside other tests.
    holds("flood.sh", &["100"]);
}

#[test]
fn a_path_that_takes_less_is_found_with_its_messages_and_without() {
    holds("path-mtu.sh", &[]);
}

#[test]
fn jumbo_frames_are_filled_where_the_link_has_them() {
    holds("jumbo.sh", &[]);
}

#[test]
fn synthetic_clients_are_accounted_for() {
    holds("load.sh", &["2"]);
}
