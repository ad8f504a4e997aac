//! Shape: lengths, headers, words that must not stand, places of unsafe code.

use super::source::{Finding, Source, closing, words};

/// Files that may be longer than 400 lines, each with its limit and its reason.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Functions that may be longer than 70 lines: path, name, limit, reason.
const LONG_FUNCTIONS: &[(&str, &str, usize, &str)] = &[];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARACTERS_MAX: usize = 120;

/// The file, if it is longer than it may be without its test modules.
pub fn long_files(source: &Source) -> Vec<Finding> {
    let exception = LONG_FILES.iter().find(|(path, ..)| *path == source.path);
    let allowed = exception.map_or(FILE_LINES_MAX, |(_, lines, _)| *lines);
    let tests: usize = source.test_ranges().into_iter().map(|range| source.text[range].lines().count()).sum();
    let lines = source.text.lines().count() - tests;
    match lines > allowed {
        true => vec![source.finding(0, format!("{lines} lines without tests, {allowed} are allowed"))],
        false => Vec::new(),
    }
}

/// Functions that are longer than they may be, from their name to their last bracket.
pub fn long_functions(source: &Source) -> Vec<Finding> {
    let all = source.words();
    let mut findings = Vec::new();
    for pair in all.windows(2) {
        let ((at, keyword), (name_at, name)) = (pair[0], pair[1]);
        let gap = &source.code[at + keyword.len()..name_at];
        if keyword != "fn" || !gap.trim().is_empty() {
            continue;
        }
        let Some(open) = body(&source.code, name_at) else { continue };
        let end = closing(&source.code, open).unwrap_or(source.code.len() - 1);
        let lines = source.line_at(end) - source.line_at(at) + 1;
        let exception = LONG_FUNCTIONS.iter().find(|(path, known, ..)| *path == source.path && *known == name);
        let allowed = exception.map_or(FUNCTION_LINES_MAX, |(_, _, lines, _)| *lines);
        if lines > allowed {
            findings.push(source.finding(at, format!("function {name} has {lines} lines, {allowed} are allowed")));
        }
    }
    findings
}

/// Where the body of the function whose name is at `from` opens; none where it is only declared.
fn body(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    while at < code.len() {
        match code.as_bytes()[at] {
            b'(' | b'[' => at = closing(code, at)?,
            b'{' => return Some(at),
            b';' => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Lines that are too long; a table's row cannot be broken.
pub fn long_lines(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let characters = line.chars().count();
        if characters > LINE_CHARACTERS_MAX && !line.starts_with('|') {
            let what = format!("{characters} characters");
            findings.push(Finding { path: source.path.clone(), line: index + 1, what });
        }
    }
    findings
}

/// Words that a noun phrase does not begin with.
const NO_NOUN: &[&str] = &[
    "this",
    "it",
    "we",
    "here",
    "implements",
    "provides",
    "contains",
    "handles",
    "defines",
    "is",
    "are",
    "has",
    "does",
    "implement",
    "provide",
    "handle",
    "define",
    "add",
    "make",
    "use",
    "run",
    "skeleton",
    "module",
];

/// A header that is not `//! `, a noun phrase, and a period or colon at the end of the first line. A benchmark's is its
/// question.
pub fn headers(source: &Source) -> Vec<Finding> {
    let Some(first) = source.text.lines().next().and_then(|line| line.strip_prefix("//! ")) else {
        return vec![source.finding(0, "the file does not begin with a `//!` header")];
    };
    let word = first.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("").to_lowercase();
    let is_capital = first.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit() || c == '`');
    if !is_capital || NO_NOUN.contains(&word.as_str()) {
        return vec![source.finding(0, format!("the header does not begin with a noun phrase: {first}"))];
    }
    let is_question = source.path.starts_with("bench/") && first.ends_with('?');
    match first.ends_with(['.', ':']) || is_question {
        true => Vec::new(),
        false => vec![source.finding(0, format!("the header's first line ends in no period or colon: {first}"))],
    }
}

/// Unsafe code outside its places, or without its reason on the lines above.
pub fn unsafe_code(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    let has_place = source.path.starts_with("src/link/") || source.path.starts_with("src/flows/");
    let mut findings = Vec::new();
    for (at, word) in source.words() {
        let is_permission = word == "unsafe_code" && source.code[..at].ends_with("allow(");
        if word != "unsafe" && !is_permission {
            continue;
        }
        let line = source.line_at(at);
        if !has_place {
            findings.push(source.finding(at, format!("`{word}` stands outside link and flows")));
        }
        if word == "unsafe" && !has_safety_comment(&lines, line - 1) {
            findings.push(source.finding(at, "no `// SAFETY:` above"));
        }
    }
    findings
}

/// Whether the comment directly above the statement that `index` belongs to says why it is sound.
fn has_safety_comment(lines: &[&str], index: usize) -> bool {
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let goes_on = |line: &str| line.trim_end().ends_with(['=', '(', ',', '|']) || line.trim_start().starts_with("#[");
    let mut at = index;
    while at > 0 && !is_comment(lines[at - 1]) && goes_on(lines[at - 1]) {
        at -= 1;
    }
    let comment = lines[..at].iter().rev().take_while(|line| is_comment(line));
    comment.into_iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

/// Marks of what was left for later, and tests that are switched off.
pub fn undone(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, word) in words(&source.comments) {
        if ["TODO", "FIXME", "XXX", "HACK"].contains(&word) {
            findings.push(source.finding(at, format!("{word} in a comment")));
        }
    }
    for (at, word) in source.words() {
        let rest = &source.code[at + word.len()..];
        let is_macro = rest.starts_with('!') && ["todo", "unimplemented", "dbg"].contains(&word);
        let is_attribute = word == "ignore" && source.code[..at].trim_end().ends_with("#[");
        if is_macro || is_attribute {
            findings.push(source.finding(at, format!("`{word}`")));
        }
    }
    findings
}

/// Tests that wait for the clock of the machine, or that depend on how they are started. `tests/linux` waits for the
/// kernel and for other processes, in bounded loops.
pub fn sleepy_tests(source: &Source) -> Vec<Finding> {
    let ranges = source.test_ranges();
    let has_own_clock = !source.path.starts_with("tests/linux/");
    let is_test = |at: usize| {
        has_own_clock && source.path.starts_with("tests/") || ranges.iter().any(|range| range.contains(&at))
    };
    let mut findings = Vec::new();
    for (at, word) in source.words() {
        let rest = &source.code[at + word.len()..];
        let before = &source.code[..at];
        let is_sleep = word == "sleep" && rest.starts_with('(');
        let is_environment = ["var", "var_os", "vars", "set_var"].contains(&word) && before.ends_with("env::");
        if is_test(at) && (is_sleep || is_environment) {
            findings.push(source.finding(at, format!("`{word}` in a test")));
        }
    }
    findings
}

/// `_ =>` in matches of tcp/ whose other patterns name states or rules.
pub fn wildcards(sources: &[Source]) -> Vec<Finding> {
    let machine: Vec<&Source> = sources.iter().filter(|source| source.path.starts_with("src/tcp/")).collect();
    let names: Vec<String> = machine.iter().flat_map(|source| variants(source, &["State", "Rule"])).collect();
    let mut findings = Vec::new();
    for source in machine {
        let tests = source.test_ranges();
        for (at, word) in source.words() {
            if word != "match" || tests.iter().any(|range| range.contains(&at)) {
                continue;
            }
            let Some(open) = body(&source.code, at) else { continue };
            let arms = patterns(&source.code, open);
            let is_named = |pattern: &str| words(pattern).iter().any(|(_, word)| names.iter().any(|name| name == word));
            let is_wild = |pattern: &str| pattern == "_" || pattern.starts_with("_ if");
            if !arms.iter().any(|(_, pattern)| is_named(pattern)) {
                continue;
            }
            let wild = arms.iter().filter(|(_, pattern)| is_wild(pattern));
            findings.extend(wild.map(|(at, _)| source.finding(*at, "`_ =>` in a match on states or rules")));
        }
    }
    findings
}

/// Variants of the enums of these names.
fn variants(source: &Source, enums: &[&str]) -> Vec<String> {
    let all = source.words();
    let mut names = Vec::new();
    for pair in all.windows(2) {
        if pair[0].1 != "enum" || !enums.contains(&pair[1].1) {
            continue;
        }
        let Some(open) = body(&source.code, pair[1].0) else { continue };
        let end = closing(&source.code, open).unwrap_or(source.code.len());
        let inside = words(&source.code[open..end]).into_iter().map(|(_, word)| word.to_string());
        names.extend(inside.filter(|word| word.starts_with(|c: char| c.is_uppercase())));
    }
    names
}

/// The patterns of the match whose bracket opens at `open`, with where they begin.
fn patterns(code: &str, open: usize) -> Vec<(usize, String)> {
    let end = closing(code, open).unwrap_or(code.len());
    let mut found = Vec::new();
    let mut at = open + 1;
    while at < end {
        let Some(arrow) = at_depth(code, at, end, "=>") else { break };
        let pattern = code[at..arrow].trim();
        found.push((arrow - code[at..arrow].trim_start().len(), pattern.to_string()));
        let behind = &code[arrow + 2..end];
        let start = arrow + 2 + (behind.len() - behind.trim_start().len());
        at = match code.as_bytes().get(start) {
            Some(b'{') => closing(code, start).map_or(end, |close| close + 1),
            _ => at_depth(code, start, end, ",").map_or(end, |comma| comma + 1),
        };
        let rest = code[at.min(end)..end].trim_start();
        at = end - rest.strip_prefix(',').unwrap_or(rest).len();
    }
    found
}

/// Where `wanted` stands next outside all brackets.
fn at_depth(code: &str, from: usize, end: usize, wanted: &str) -> Option<usize> {
    let mut at = from;
    while at < end {
        if code.is_char_boundary(at) && code[at..end].starts_with(wanted) {
            return Some(at);
        }
        at = match code.as_bytes()[at] {
            b'(' | b'[' | b'{' => closing(code, at)? + 1,
            _ => at + 1,
        };
    }
    None
}
