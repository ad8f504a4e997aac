//! Sources: the files of the project, and their text with strings and comments blanked out.
//!
//! Invariant: blanking keeps every line and column, so that what is found in the blanked text is where it says.

use std::fmt;
use std::path::{Path, PathBuf};

/// Something that breaks a law.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Path from the top of the project.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the top of the project, with `/`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The same with comments, strings and character literals as spaces.
    pub code: String,
    /// The same with everything but comments as spaces.
    pub comments: String,
}

impl Source {
    /// A Rust file.
    pub fn rust(path: &str, text: &str) -> Source {
        let (code, comments) = blank(text);
        Source { path: path.into(), text: text.into(), code, comments }
    }

    /// A file of another kind: all of it counts as comment.
    pub fn other(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into(), code: String::new(), comments: text.into() }
    }

    /// A finding at a byte of the text.
    pub fn finding(&self, at: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line: self.line_at(at), what: what.into() }
    }

    /// The line, from 1, that a byte of the text is on.
    pub fn line_at(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
    }

    /// The room of a file below src: its first folder, or the file's name where it has none.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
    }

    /// Where in the text the `#[cfg(test)]` modules are.
    pub fn test_ranges(&self) -> Vec<std::ops::Range<usize>> {
        let mut ranges = Vec::new();
        let mut from = 0;
        while let Some(found) = self.code[from..].find("#[cfg(test)]") {
            let start = from + found;
            let end = self.code[start..].find('{').and_then(|open| closing(&self.code, start + open));
            let end = end.map_or(self.code.len(), |end| end + 1);
            ranges.push(start..end);
            from = end;
        }
        ranges
    }

    /// Words of the code (identifiers and keywords), with where they begin.
    pub fn words(&self) -> Vec<(usize, &str)> {
        words(&self.code)
    }
}

/// Identifiers and keywords of a text, with where they begin.
pub fn words(text: &str) -> Vec<(usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (is_word(c), start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                found.push((begin, &text[begin..at]));
                start = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
    if let Some(begin) = start {
        found.push((begin, &text[begin..]));
    }
    found
}

/// Where the bracket that opens at `open` closes.
pub fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// What a character of a Rust file belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// The text with all but code blanked out, and with all but comments.
fn blank(text: &str) -> (String, String) {
    let characters: Vec<char> = text.chars().collect();
    let mut kinds = vec![Kind::Code; characters.len()];
    let mut at = 0;
    while at < characters.len() {
        let (kind, end) = token(&characters, at);
        kinds[at..end].fill(kind);
        at = end;
    }
    let only = |wanted: Kind| {
        let keep = |(c, kind): (&char, &Kind)| -> String {
            // A blank is as many bytes as what it stands for, so that positions stay.
            if *c == '\n' || *kind == wanted { c.to_string() } else { " ".repeat(c.len_utf8()) }
        };
        characters.iter().zip(&kinds).map(keep).collect()
    };
    (only(Kind::Code), only(Kind::Comment))
}

/// What begins at `at`, and where it ends. Code goes one character at a time, but for whole words.
fn token(text: &[char], at: usize) -> (Kind, usize) {
    let next = |offset: usize| text.get(at + offset).copied().unwrap_or('\0');
    match (text[at], next(1)) {
        ('/', '/') => (Kind::Comment, find(text, at, '\n')),
        ('/', '*') => (Kind::Comment, block_comment_end(text, at)),
        ('"', _) => (Kind::Literal, string_end(text, at + 1)),
        ('\'', '\\') => (Kind::Literal, (find(text, at + 3, '\'') + 1).min(text.len())),
        ('\'', _) if next(2) == '\'' => (Kind::Literal, at + 3),
        (c, _) if c.is_alphanumeric() || c == '_' => word_or_prefixed_string(text, at),
        _ => (Kind::Code, at + 1),
    }
}

fn find(text: &[char], from: usize, wanted: char) -> usize {
    (from..text.len()).find(|at| text[*at] == wanted).unwrap_or(text.len())
}

fn block_comment_end(text: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn string_end(text: &[char], start: usize) -> usize {
    let mut at = start;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// A word; or `b"..."`, `r"..."`, `r#"..."#` and the like, which begin as one.
fn word_or_prefixed_string(text: &[char], at: usize) -> (Kind, usize) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let end = (at..text.len()).find(|at| !is_word(text[*at])).unwrap_or(text.len());
    let word: String = text[at..end].iter().collect();
    let hashes = text[end..].iter().take_while(|c| **c == '#').count();
    let has_quote = text.get(end + hashes) == Some(&'"');
    match (word.as_str(), hashes) {
        ("b" | "c", 0) if has_quote => (Kind::Literal, string_end(text, end + 1)),
        ("r" | "br" | "cr", _) if has_quote => {
            let mut from = end + hashes + 1;
            loop {
                let quote = find(text, from, '"');
                let closed = text[(quote + 1).min(text.len())..].iter().take_while(|c| **c == '#').count() >= hashes;
                if quote == text.len() || closed {
                    return (Kind::Literal, (quote + 1 + hashes).min(text.len()));
                }
                from = quote + 1;
            }
        }
        _ => (Kind::Code, end),
    }
}

/// The top of the project.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project, which must be there.
pub fn text_of(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![top().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a folder of the project is readable").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

fn relative(path: &Path) -> String {
    path.strip_prefix(top()).expect("a path below the top").to_string_lossy().into_owned()
}

/// Every Rust file of ours.
pub fn rust_sources() -> Vec<Source> {
    let files = ["src", "tests", "bench", "xdp"].into_iter().flat_map(files_below);
    let rust = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| Source::rust(&relative(&path), &text_of(&relative(&path)))).collect()
}

/// Every other text of ours that is read line by line: scripts, documents, configuration.
pub fn other_texts() -> Vec<Source> {
    let mut files = vec!["README.md".to_string(), "Cargo.toml".to_string(), ".ci/run".to_string()];
    let below = ["tests", "bench", "xdp", "pcap"].into_iter().flat_map(files_below);
    let is_text = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| ["seg", "sh", "md", "py", "toml", "c"].iter().any(|known| extension == *known))
    };
    files.extend(below.filter(is_text).map(|path| relative(&path)));
    files.iter().map(|path| Source::other(path, &text_of(path))).collect()
}

/// Names at the top of the project, without what git ignores.
pub fn top_level() -> Vec<String> {
    let entries = std::fs::read_dir(top()).expect("the project is readable");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the project is readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.retain(|name| name != "target" && name != ".git");
    names.sort();
    names
}

/// Folders that the folder map of README.md must list: those at the top, and those in src.
pub fn folders() -> Vec<String> {
    let is_folder = |path: &str| top().join(path).is_dir();
    let mut folders: Vec<String> =
        top_level().into_iter().filter(|name| !name.starts_with('.') && is_folder(name)).collect();
    let inside = std::fs::read_dir(top().join("src")).expect("src is readable");
    for entry in inside {
        let path = format!("src/{}", entry.expect("src is readable").file_name().to_string_lossy());
        if is_folder(&path) {
            folders.push(path);
        }
    }
    folders.sort();
    folders
}
