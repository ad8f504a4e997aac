//! Requirements of RFC 9293, Appendix B: what shows that each is met, or why it is not to be met here.
//!
//! `requirements.txt` lists them all. A script shows one by naming its label in the opening comment, and the rules of
//! that script (`!!`) are those that decide. `cargo test --test segments requirements -- --nocapture` prints the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::play::Process;
use super::{folder, play, scripts};

/// How many requirements of each kind there are.
const KINDS: &[(&str, u32)] = &[("MUST", 69), ("SHLD", 31), ("REC", 1)];

/// A line of the list.
struct Requirement {
    label: String,
    section: String,
    wording: String,
    ground: Ground,
}

/// What there is for a requirement beside scripts.
enum Ground {
    /// Nothing.
    Scripts,
    /// Tests of ours, each by the file that it is in and its name.
    Tests(Vec<(String, String)>),
    /// It is not met, and why.
    Exception(String),
}

/// A script, with the labels that it cites and the rules that it names.
struct Shows {
    name: String,
    labels: BTreeSet<String>,
    rules: BTreeSet<&'static str>,
}

impl Requirement {
    /// Understands `| label | section | wording | |`, with `test FILE NAME, ...` or `exception: REASON` in the last.
    fn parse(line: &str) -> Result<Requirement, String> {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", label, section, wording, ground, ""] = columns[..] else {
            return Err(format!("`{line}` is no row of four columns"));
        };
        if label.is_empty() || !section.starts_with('§') || wording.is_empty() {
            return Err(format!("`{line}` lacks a label, a section or a wording"));
        }
        let ground = if ground.is_empty() {
            Ground::Scripts
        } else if let Some(reason) = ground.strip_prefix("exception: ") {
            Ground::Exception(reason.into())
        } else if let Some(tests) = ground.strip_prefix("test ") {
            let tests = tests.split(", ").map(|test| test.split_once(' ').ok_or(format!("`{test}` is no FILE NAME")));
            let tests = tests.map(|test| test.map(|(file, name)| (file.to_string(), name.to_string())));
            Ground::Tests(tests.collect::<Result<_, String>>()?)
        } else {
            return Err(format!("`{ground}` begins neither with `test ` nor with `exception: `"));
        };
        Ok(Requirement { label: label.into(), section: section.into(), wording: wording.into(), ground })
    }

    /// What is wrong with this line, given all scripts.
    fn faults(&self, shows: &[&Shows], has_test: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let label = &self.label;
        let first = shows.first().map(|shows| &shows.name);
        match (&self.ground, first) {
            (Ground::Scripts, None) => vec![format!("{label}: neither a script, nor a test, nor a reason")],
            (Ground::Exception(_), Some(script)) => vec![format!("{label}: an exception, though {script} shows it")],
            (Ground::Tests(tests), _) => {
                let missing = tests.iter().filter(|(file, name)| !has_test(file, name));
                missing.map(|(file, name)| format!("{label}: there is no test {name} in {file}")).collect()
            }
            (Ground::Scripts, Some(script)) if shows.iter().all(|shows| shows.rules.is_empty()) => {
                vec![format!("{label}: {script} names no rule")]
            }
            (Ground::Scripts, Some(_)) | (Ground::Exception(_), None) => Vec::new(),
        }
    }
}

/// Understands the list; lines that begin with `#` say what it is.
fn parse(list: &str) -> Result<Vec<Requirement>, String> {
    let lines = list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(Requirement::parse).collect()
}

/// The labels in a text: `MUST-37`, `SHLD-2`, `REC-1`.
fn labels(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !is_part(c));
    let is_label = |word: &&str| {
        let Some((kind, number)) = word.split_once('-') else { return false };
        KINDS.iter().any(|(name, _)| *name == kind) && number.parse::<u32>().is_ok()
    };
    words.filter(is_label).map(str::to_string).collect()
}

/// What a script cites: the labels of its opening comment.
fn cited(script: &str) -> BTreeSet<String> {
    let claim: Vec<&str> = script.lines().take_while(|line| line.starts_with('#')).collect();
    labels(&claim.join("\n"))
}

/// Everything that is wrong with the list and with what cites it.
fn faults(list: &[Requirement], shows: &[Shows], has_test: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    let expected = KINDS.iter().flat_map(|(kind, count)| (1..=*count).map(move |number| format!("{kind}-{number}")));
    let expected: Vec<String> = expected.collect();
    let mut lines: BTreeMap<&str, u32> = BTreeMap::new();
    for requirement in list {
        *lines.entry(&requirement.label).or_default() += 1;
    }
    for label in &expected {
        match lines.remove(label.as_str()) {
            Some(1) => {}
            count => faults.push(format!("{label} has {} lines in the list", count.unwrap_or(0))),
        }
    }
    faults.extend(lines.keys().map(|label| format!("the RFC has no {label}")));
    for script in shows {
        let unknown = script.labels.iter().filter(|label| !expected.contains(label));
        faults.extend(unknown.map(|label| format!("{} cites {label}, which the RFC has not", script.name)));
    }
    for requirement in list {
        let shows: Vec<&Shows> = shows.iter().filter(|script| script.labels.contains(&requirement.label)).collect();
        faults.extend(requirement.faults(&shows, &has_test));
    }
    faults
}

/// The table: a line for each requirement, and below it what shows it.
fn table(list: &[Requirement], shows: &[Shows]) -> String {
    let mut table = String::new();
    for Requirement { label, section, wording, ground } in list {
        table += &format!("{label:<8} {section:<11} {wording}\n");
        match ground {
            Ground::Exception(reason) => table += &format!("{:>22} {reason}\n", "not met:"),
            Ground::Tests(tests) => {
                for (file, name) in tests {
                    table += &format!("{:>22} {name}, {file}\n", "test:");
                }
            }
            Ground::Scripts => {}
        }
        for script in shows.iter().filter(|script| script.labels.contains(label)) {
            let rules: Vec<&str> = script.rules.iter().copied().collect();
            let rules = if rules.is_empty() { String::new() } else { format!("  !! {}", rules.join(" ")) };
            table += &format!("{:>22} {}{rules}\n", "script:", script.name);
        }
    }
    table
}

/// Every script that holds, with what it shows.
fn shown() -> Vec<Shows> {
    let shows = scripts(&folder()).into_iter().filter_map(|path| {
        let text = std::fs::read_to_string(&path).expect("a script is readable");
        let name = path.strip_prefix(folder()).unwrap_or(&path).display().to_string();
        let rules = play(&path, Process::Lasts).ok()?;
        Some(Shows { name, labels: cited(&text), rules })
    });
    shows.collect()
}

/// Whether a file of ours has a test of this name.
fn has_test(file: &str, name: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declaration = format!("fn {name}(");
    lines.windows(2).any(|pair| pair[0] == "#[test]" && pair[1].starts_with(&declaration))
}

#[test]
fn every_requirement_is_shown_or_has_a_reason() {
    let list = std::fs::read_to_string(folder().join("requirements.txt")).expect("the list is readable");
    let list = parse(&list).expect("the list is understood");
    let shows = shown();
    println!("{}", table(&list, &shows));
    let faults = faults(&list, &shows, has_test);
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn labels_are_read_out_of_sentences() {
    let found =
        labels("RFC 9293 §3.4 (MUST-3, SHLD-31). REC-1; MUST-, MAY-2, TIME-WAIT, AMUST-4 and MUST-5x are none.");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["MUST-3", "REC-1", "SHLD-31"]);
    assert_eq!(cited("# One. MUST-1\n# MUST-2\nlisten\n# MUST-3\n").len(), 2, "only the opening comment counts");
}

/// A list without fault, and what shows it: everything has a reason but MUST-2 and MUST-3.
fn example() -> (String, Vec<Shows>) {
    let mut list = String::from("# A list\n");
    for (kind, count) in KINDS {
        for number in 1..=*count {
            let ground = match (*kind, number) {
                ("MUST", 2) => "",
                ("MUST", 3) => "test tests/segments/requirements.rs faults_are_found",
                _ => "exception: no need",
            };
            list += &format!("| {kind}-{number} | §3.1 | Something | {ground} |\n");
        }
    }
    let labels = BTreeSet::from(["MUST-2".to_string()]);
    (list, vec![Shows { name: "data/some.seg".into(), labels, rules: BTreeSet::from(["AckAdvances"]) }])
}

#[test]
fn faults_are_found() {
    let (list, shows) = example();
    let found = |list: &str, shows: &[Shows]| faults(&parse(list).expect("a list"), shows, has_test);
    assert_eq!(found(&list, &shows), Vec::<String>::new());
    assert_eq!(found(&list, &[]), ["MUST-2: neither a script, nor a test, nor a reason"]);
    let (_, mut no_rule) = example();
    no_rule[0].rules.clear();
    assert_eq!(found(&list, &no_rule), ["MUST-2: data/some.seg names no rule"]);
    let (_, mut too_much) = example();
    too_much[0].labels.extend(["MUST-4", "MUST-70"].map(str::to_string));
    assert_eq!(
        found(&list, &too_much),
        ["data/some.seg cites MUST-70, which the RFC has not", "MUST-4: an exception, though data/some.seg shows it"]
    );
    for (right, wrong, fault) in [
        ("MUST-9 |", "MUST-90 |", "MUST-9 has 0 lines in the list"),
        ("MUST-9 |", "MUST-8 |", "MUST-8 has 2 lines in the list"),
        ("SHLD-31 |", "SHLD-32 |", "SHLD-31 has 0 lines in the list"),
        ("rs faults_are_found", "rs no_such", "MUST-3: there is no test no_such in tests/segments/requirements.rs"),
        ("rs faults_are_found", "rs example", "MUST-3: there is no test example in tests/segments/requirements.rs"),
        ("requirements.rs", "none.rs", "MUST-3: there is no test faults_are_found in tests/segments/none.rs"),
    ] {
        let broken = list.replacen(right, wrong, 1);
        assert_eq!(found(&broken, &shows).first().map(String::as_str), Some(fault), "{right} -> {wrong}");
    }
    for line in ["MUST-1 | §3.1 | It | |", "| MUST-1 | §3.1 | It |", "| MUST-1 | 3.1 | It | |", "| M | §3 | It | why |"]
    {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn the_table_says_what_shows_a_requirement() {
    let (list, shows) = example();
    let table = table(&parse(&list).expect("a list"), &shows);
    for line in ["MUST-2   §3.1        Something", "script: data/some.seg  !! AckAdvances", "not met: no need"] {
        assert!(table.contains(line), "{table}");
    }
}
