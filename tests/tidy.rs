//! Tidy: the shape of the project, held by tests that fail by file, line and name.
//!
//! `source` reads the files and blanks out strings and comments, `rooms` holds who may use whom, `shape` lengths,
//! headers and words, `facts` what is stated in two places; `planted` shows that every law can fail.

#[path = "tidy/facts.rs"]
mod facts;
#[path = "tidy/planted.rs"]
mod planted;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;

use source::{Finding, Source};

/// Fails with everything that was found, a line for each.
fn demand_none(law: &str, findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "{law}: {} found\n{}", findings.len(), lines.join("\n"));
}

/// Holds a law in every file of ours that is Rust.
fn hold(law: &str, find: impl Fn(&Source) -> Vec<Finding>) {
    let sources = source::rust_sources();
    assert!(sources.len() > 20, "the sources were not found");
    let findings: Vec<Finding> = sources.iter().flat_map(find).collect();
    demand_none(law, &findings);
}

#[test]
fn rooms_use_only_what_they_may() {
    hold("a room may use only what DESIGN's layout allows", rooms::forbidden_uses);
}

#[test]
fn crates_come_in_by_one_door() {
    hold("a crate has one door", rooms::forbidden_crates);
}

#[test]
fn every_crate_has_a_door() {
    let manifest = source::text_of("Cargo.toml");
    demand_none("a dependency has a reason, and a door in tests/tidy/rooms.rs", &facts::dependencies(&manifest));
}

#[test]
fn files_are_short() {
    hold("a file has at most 400 lines without its tests", shape::long_files);
}

#[test]
fn functions_are_short() {
    hold("a function has at most 70 lines", shape::long_functions);
}

#[test]
fn lines_are_short() {
    hold("a line has at most 120 characters", shape::long_lines);
    // A manifest's strings cannot be broken.
    let others = source::other_texts().into_iter().filter(|source| source.path != "Cargo.toml");
    let findings: Vec<Finding> = others.flat_map(|source| shape::long_lines(&source)).collect();
    demand_none("a line has at most 120 characters", &findings);
}

#[test]
fn modules_open_with_a_noun_phrase() {
    hold("a module opens with one noun phrase", shape::headers);
}

#[test]
fn unsafe_code_has_its_places_and_reasons() {
    hold("unsafe code stands in link and flows only, under // SAFETY:", shape::unsafe_code);
    let root = source::text_of("src/lib.rs");
    assert!(root.contains("#![deny(unsafe_code)]"), "src/lib.rs: the crate denies unsafe code");
}

#[test]
fn nothing_is_left_undone() {
    hold("nothing is left undone, and no test is switched off", shape::undone);
    let findings: Vec<Finding> = source::other_texts().iter().flat_map(shape::undone).collect();
    demand_none("nothing is left undone", &findings);
}

#[test]
fn tests_neither_sleep_nor_read_the_environment() {
    hold("a test neither sleeps nor reads the environment", shape::sleepy_tests);
}

#[test]
fn main_is_short() {
    let lines = source::text_of("src/main.rs").lines().count();
    assert!(lines < 100, "src/main.rs: {lines} lines; it stays under 100, subcommands live in cli/");
}

#[test]
fn the_machine_decides_by_name() {
    let sources = source::rust_sources();
    demand_none("no `_ =>` on states or rules in tcp/", &shape::wildcards(&sources));
}

#[test]
fn the_top_level_is_fixed() {
    demand_none("the top level is fixed", &facts::top_level(&source::top_level()));
}

#[test]
fn the_readme_and_the_code_agree() {
    let readme = source::text_of("README.md");
    demand_none("README.md lists exactly the folders that exist", &facts::folder_map(&readme, &source::folders()));
    demand_none("README.md states the sizes that the code has", &facts::sizes(&readme));
    demand_none("README.md names every number's command", &facts::numbers(&readme));
}

#[test]
fn the_tour_names_functions_that_there_are() {
    let code: Vec<String> = source::rust_sources().into_iter().map(|source| source.code).collect();
    demand_none("src/lib.rs walks through the code as it is", &facts::walks(&source::text_of("src/lib.rs"), &code));
}
