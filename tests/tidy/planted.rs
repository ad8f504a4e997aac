//! Planted faults: each law is shown a file that breaks it, and one that does not.

use super::source::{Finding, Source};
use super::{facts, rooms, shape};

fn lines(findings: &[Finding]) -> Vec<usize> {
    findings.iter().map(|finding| finding.line).collect()
}

#[test]
fn strings_and_comments_are_blanked_in_place() {
    let text = r###"let a = "unsafe { \" }"; // unsafe
let b = 'x'; /* { /* } */ */ let c: &'static str = r#"{"{"#;
let d = '\''; let e = b"}"; fn r() {}
"###;
    let source = Source::rust("src/tcp/x.rs", text);
    assert_eq!(source.code.len(), text.len());
    assert_eq!(source.code.lines().count(), text.lines().count());
    assert!(!source.code.contains("unsafe"));
    assert_eq!(source.code.matches('{').count(), 1, "{}", source.code);
    assert!(source.code.contains("'static"));
    assert!(source.code.contains("fn r() {}"));
    assert!(source.comments.contains("unsafe"));
    assert!(!source.comments.contains("let"));
}

#[test]
fn a_forbidden_room_is_found_however_it_is_named() {
    for text in [
        "use crate::flows::Storage;",
        "use crate::{tcp::Time, flows::{self, Storage}};",
        "fn f() { crate::flows::f(); }",
        "use super::super::flows::Storage;",
        "mod tests { use super::super::super::flows::Storage; }",
        "use crate :: flows;",
    ] {
        let source = Source::rust("src/wire/x.rs", &format!("//! X.\n{text}\n"));
        let findings = rooms::forbidden_uses(&source);
        assert_eq!(lines(&findings), [2], "{text}: {findings:?}");
    }
}

#[test]
fn an_allowed_room_is_not_found() {
    for text in [
        "use crate::tcp::{Time, flows};",
        "use super::flows;",
        "use super::super::tcp;",
        "// crate::flows\nconst A: &str = \"crate::flows\";",
        "use crate::wire::Packet;",
        "use std::flows;",
    ] {
        let source = Source::rust("src/wire/x.rs", text);
        assert_eq!(rooms::forbidden_uses(&source), [], "{text}");
    }
    let test = Source::rust("tests/x/main.rs", "use holdline::flows::Storage;");
    assert_eq!(rooms::forbidden_uses(&test), []);
}

#[test]
fn a_room_that_is_no_room_is_found() {
    assert_eq!(rooms::forbidden_uses(&Source::rust("src/util/mod.rs", "")).len(), 1);
}

#[test]
fn a_crate_beside_its_door_is_found() {
    for (path, text, count) in [
        ("src/shard/x.rs", "use smoltcp::wire::Ipv4Packet;", 1),
        ("src/wire/x.rs", "use smoltcp::wire::Ipv4Packet;", 0),
        ("src/tcp/x.rs", "fn f() { tracing::info!(\"\"); }", 1),
        ("src/shard/x.rs", "fn f() { tracing::info!(\"\"); }", 0),
        ("src/server/x.rs", "use memmap2 as map;", 1),
        ("src/server/x.rs", "let rand = 4; let x = my::rand::y; // rand::x", 0),
        ("src/server/x.rs", "use nix::libc::close;", 0),
        ("src/server/x.rs", "use libc::close;", 1),
        ("tests/x/main.rs", "use smoltcp::wire::Ipv4Packet;", 0),
    ] {
        let findings = rooms::forbidden_crates(&Source::rust(path, text));
        assert_eq!(findings.len(), count, "{path} {text}: {findings:?}");
    }
}

#[test]
fn a_dependency_without_reason_or_door_is_found() {
    let manifest = r###"[package]
name = "x"
[dependencies]
# Why.
rand = "1"
serde = { version = "1" }

# Why.
leftpad = "1"
[profile.dev]
opt-level = 1
"###;
    assert_eq!(lines(&facts::dependencies(manifest)), [6, 9]);
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let long = "//! X.\n".repeat(401);
    assert_eq!(shape::long_files(&Source::rust("src/tcp/x.rs", &long)).len(), 1);
    let fits = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "//! X.\n".repeat(400), "fn f() {}\n".repeat(500));
    assert_eq!(shape::long_files(&Source::rust("src/tcp/x.rs", &fits)), []);
}

#[test]
fn a_long_function_is_found_by_name() {
    let with = |lines: usize| {
        format!("fn short() {{}}\nfn f(a: [u8; 4]) {{\n{}}}\n", "    let s = \"}\"; // }\n".repeat(lines - 2))
    };
    assert_eq!(shape::long_functions(&Source::rust("src/tcp/x.rs", &with(70))), []);
    let findings = shape::long_functions(&Source::rust("src/tcp/x.rs", &with(71)));
    assert_eq!(lines(&findings), [2]);
    assert!(findings[0].what.contains("function f has 71 lines"), "{findings:?}");
}

#[test]
fn a_declared_function_has_no_length() {
    let text = format!("trait T {{\nfn f();\n{}\n}}\n", "const A: u8 = 0;\n".repeat(100));
    assert_eq!(shape::long_functions(&Source::rust("src/tcp/x.rs", &text)), []);
}

#[test]
fn a_long_line_is_found() {
    let text = format!("{}\n{}\n", "é".repeat(120), "x".repeat(121));
    assert_eq!(lines(&shape::long_lines(&Source::rust("src/tcp/x.rs", &text))), [2]);
}

#[test]
fn a_header_that_is_none_is_found() {
    for (text, count) in [
        ("//! Sequence numbers: a circle (RFC 9293).\n", 0),
        ("//! The outside: where frames come from.\n", 0),
        ("//! What may be sent, and when.\n", 0),
        ("use std::fmt;\n", 1),
        ("//! implements sequence numbers.\n", 1),
        ("//! Implements sequence numbers.\n", 1),
        ("//! This module is about numbers.\n", 1),
        ("//! Sequence numbers\n", 1),
        ("//!Sequence numbers.\n", 1),
        ("\n//! Sequence numbers.\n", 1),
    ] {
        assert_eq!(shape::headers(&Source::rust("src/tcp/x.rs", text)).len(), count, "{text}");
    }
}

#[test]
fn unsafe_code_out_of_place_or_without_reason_is_found() {
    for (path, text, found) in [
        ("src/tcp/x.rs", "// SAFETY: none.\nunsafe { f() }\n", vec![2]),
        ("src/flows/x.rs", "unsafe { f() }\n", vec![1]),
        ("src/flows/x.rs", "// SAFETY: f is sound.\nunsafe { f() }\n", vec![]),
        ("src/flows/x.rs", "// SAFETY: f is sound,\n// as g says.\nlet a =\n    unsafe { f() };\n", vec![]),
        ("src/flows/x.rs", "// SAFETY: f is sound.\nf();\nunsafe { f() }\n", vec![3]),
        ("src/flows/x.rs", "/// # Safety\n/// None.\n#[inline]\nunsafe fn f() {}\n", vec![]),
        ("src/tcp/x.rs", "#![allow(unsafe_code)]\n", vec![1]),
        ("src/lib.rs", "#![deny(unsafe_code)]\n", vec![]),
        ("src/tcp/x.rs", "// unsafe\n", vec![]),
    ] {
        assert_eq!(lines(&shape::unsafe_code(&Source::rust(path, text))), found, "{path} {text}");
    }
}

#[test]
fn what_was_left_undone_is_found() {
    for (text, count) in [
        ("// TODO: more\n", 1),
        ("/// FIXME\n", 1),
        ("fn f() { todo!() }\n", 1),
        ("fn f() { unimplemented!(\"later\") }\n", 1),
        ("#[ignore]\nfn f() {}\n", 1),
        ("#[ignore = \"slow\"]\nfn f() {}\n", 1),
        ("let a = \"TODO\"; fn todo() {} // todo\n", 0),
    ] {
        assert_eq!(shape::undone(&Source::rust("tests/x.rs", text)).len(), count, "{text}");
    }
    assert_eq!(shape::undone(&Source::other("README.md", "a\nTODO\n")).len(), 1);
}

#[test]
fn a_test_that_sleeps_is_found() {
    let text = r###"fn f() { std::thread::sleep(d); }
#[cfg(test)]
mod tests {
    fn g() { sleep(d); env::var("X"); env!("Y"); }
}
"###;
    assert_eq!(lines(&shape::sleepy_tests(&Source::rust("src/server/x.rs", text))), [4, 4]);
    assert_eq!(lines(&shape::sleepy_tests(&Source::rust("tests/x.rs", text))), [1, 4, 4]);
}

#[test]
fn a_wildcard_on_states_is_found() {
    let states = Source::rust("src/tcp/flow.rs", "pub enum State { Free, /// Open.\n Established }");
    let wild = |text: &str| shape::wildcards(&[states.clone(), Source::rust("src/tcp/x.rs", text)]);
    assert_eq!(lines(&wild("match s {\n    State::Free => {}\n    _ => {}\n}\n")), [3]);
    assert_eq!(lines(&wild("match s {\n    State::Free => f(|a, b| { a }),\n    _ if c => 1,\n    x => 2,\n}\n")), [3]);
    assert!(
        lines(&wild("match (s, c) {\n    (State::Free, _) => {}\n    (State::Established, _) => 1,\n}\n")).is_empty()
    );
    assert!(lines(&wild("match kind {\n    0 => {}\n    _ => {}\n}\n")).is_empty());
    let inner = r###"match s {
    State::Free => match n {
        0 => 1,
        _ => 2,
    },
    State::Established => 3,
}
"###;
    assert!(lines(&wild(inner)).is_empty());
}

#[test]
fn a_top_level_that_is_not_the_layout_is_found() {
    let all = ["Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "bench", "pcap"];
    let names: Vec<String> =
        all.into_iter().chain(["rustfmt.toml", "src", "tests", "xdp", ".gitignore"]).map(str::to_string).collect();
    assert_eq!(facts::top_level(&names), []);
    let strange: Vec<String> = names.iter().cloned().chain(["docs".to_string()]).collect();
    assert_eq!(facts::top_level(&strange).len(), 1);
    assert_eq!(facts::top_level(&names[1..]).len(), 1);
}

#[test]
fn a_readme_that_says_something_else_is_found() {
    let readme = r###"# x
## Folders

| folder | what |
|---|---|
| `src` | a |
| `gone` | b |

## Sizes
| what | how much |
|---|---|
| a record | 1,064 |
| a colour | 7 |

## Numbers
| what | command |
|---|---|
| speed | `run` |
| 12 | because |
"###;
    let folders = ["src".to_string(), "tests".to_string()];
    assert_eq!(lines(&facts::folder_map(readme, &folders)), [7, 1]);
    assert_eq!(lines(&facts::sizes_against(readme, &[("a record", 1064)])), [13]);
    assert_eq!(lines(&facts::sizes_against(readme, &[("a record", 64), ("a block", 1)])), [12, 1, 13]);
    assert_eq!(lines(&facts::numbers(readme)), [19]);
}

#[test]
fn a_walk_through_what_is_not_there_is_found() {
    let tour = "//! See `gone`.\n//! # One frame\n//! `Shard::step`, `skip`, `Queued`,\n//! then `open` and `shut`.\n";
    let code = ["fn step(now: u64) {}".to_string(), "fn open<T>(what: T) {}".to_string()];
    assert_eq!(lines(&facts::walks(tour, &code)), [3, 4]);
}
