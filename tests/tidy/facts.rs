//! Facts that are stated in two places: the manifest and its reasons, README.md and the code.

use super::rooms;
use super::source::Finding;

fn finding(path: &str, line: usize, what: impl Into<String>) -> Finding {
    Finding { path: path.into(), line, what: what.into() }
}

/// Dependencies of a manifest without a reason directly above, or without a door.
pub fn dependencies(manifest: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_dependencies = false;
    let mut above = "";
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            is_dependencies = line.contains("dependencies]");
        } else if is_dependencies
            && let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with([' ', '#']))
        {
            let name = name.trim();
            if !above.starts_with("# ") {
                findings.push(finding("Cargo.toml", index + 1, format!("`{name}` has no reason on the line above")));
            }
            if !rooms::has_door(&name.replace('-', "_")) {
                findings.push(finding("Cargo.toml", index + 1, format!("`{name}` has no door")));
            }
        }
        above = line;
    }
    findings
}

/// What the top level consists of, beside dotfiles.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "clippy.toml",
    "pcap",
    "rustfmt.toml",
    "src",
    "tests",
    "xdp",
];

/// What stands at the top and should not, and what should and does not.
pub fn top_level(names: &[String]) -> Vec<Finding> {
    let visible: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.starts_with('.')).collect();
    let strange = visible.iter().filter(|name| !TOP_LEVEL.contains(name));
    let missing = TOP_LEVEL.iter().filter(|name| !visible.contains(name) && **name != "clippy.toml");
    let mut findings: Vec<Finding> = strange.map(|name| finding(name, 1, "does not belong at the top")).collect();
    findings.extend(missing.map(|name| finding(name, 1, "is missing at the top")));
    findings
}

/// Lines of the section of README.md with this heading, each with its number.
fn section<'a>(readme: &'a str, heading: &str) -> Vec<(usize, &'a str)> {
    let lines = readme.lines().enumerate().map(|(index, line)| (index + 1, line));
    let behind = lines.skip_while(|(_, line)| *line != format!("## {heading}")).skip(1);
    behind.take_while(|(_, line)| !line.starts_with("## ")).collect()
}

/// The first cell of a table's row, without its backquotes.
fn first_cell(line: &str) -> Option<&str> {
    let cell = line.strip_prefix('|')?.split('|').next()?.trim().trim_matches('`');
    (!cell.is_empty() && !cell.starts_with("--")).then_some(cell)
}

/// Folders that the map lists and that do not exist, and the other way round.
pub fn folder_map(readme: &str, folders: &[String]) -> Vec<Finding> {
    let rows = section(readme, "Folders");
    let listed: Vec<(usize, &str)> = rows
        .iter()
        .filter_map(|(line, text)| Some((*line, first_cell(text)?)))
        .filter(|(_, cell)| *cell != "folder")
        .collect();
    let mut findings = Vec::new();
    for (line, path) in &listed {
        if !folders.iter().any(|folder| folder == path) {
            findings.push(finding("README.md", *line, format!("there is no folder `{path}`")));
        }
    }
    for folder in folders {
        if !listed.iter().any(|(_, path)| path == folder) {
            findings.push(finding("README.md", 1, format!("the folder map does not list `{folder}`")));
        }
    }
    findings
}

/// Functions that the walks of `src/lib.rs` name, and that are nowhere in the code. What they link is held by rustdoc.
pub fn walks(tour: &str, code: &[String]) -> Vec<Finding> {
    let lines = tour.lines().enumerate().skip_while(|(_, line)| !line.starts_with("//! # One "));
    let spans = lines.flat_map(|(index, line)| line.split('`').skip(1).step_by(2).map(move |span| (index + 1, span)));
    let mut findings = Vec::new();
    for (line, span) in spans {
        let name = span.rsplit("::").next().unwrap_or_default();
        let is_function = name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
        let is_there =
            || code.iter().any(|text| text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<")));
        if is_function && !is_there() {
            findings.push(finding("src/lib.rs", line, format!("there is no function `{span}`")));
        }
    }
    findings
}

/// Sizes that README.md states, as the code has them.
fn known_sizes() -> Vec<(&'static str, usize)> {
    let config = holdline::shard::Config::default();
    vec![
        ("a connection's record, in bytes", size_of::<holdline::tcp::Flow>()),
        ("an active block, in bytes", size_of::<holdline::tcp::Active>()),
        ("a repair block, in bytes", size_of::<holdline::tcp::Repair>()),
        ("frames in a batch, at most", holdline::link::Received::MAX),
        ("receive window of a connection, in bytes", config.window_bytes as usize),
        ("send queue of a connection, in bytes", config.send_queue_bytes as usize),
        ("half-open connections, at most", config.half_open_max as usize),
        ("shards of a state, at most", holdline::shard::SHARDS_MAX.into()),
        ("frames on their way to another worker, for each shard, at most", holdline::server::HANDED_OVER_MAX),
        ("user timeout, in seconds", config.user_timeout_s as usize),
        ("TIME-WAIT, in seconds", config.time_wait_s as usize),
        ("FIN-WAIT-2, in seconds", config.fin_wait_2_s as usize),
    ]
}

/// Rows of the table of sizes that say something else than the code, or are missing.
pub fn sizes(readme: &str) -> Vec<Finding> {
    sizes_against(readme, &known_sizes())
}

/// The same against given facts.
pub fn sizes_against(readme: &str, known: &[(&str, usize)]) -> Vec<Finding> {
    let rows = section(readme, "Sizes");
    let mut findings = Vec::new();
    for (name, value) in known {
        let row = rows.iter().find(|(_, line)| first_cell(line) == Some(name));
        let Some((line, text)) = row else {
            findings.push(finding("README.md", 1, format!("the table of sizes has no row `{name}`")));
            continue;
        };
        let stated = text.split('|').nth(2).unwrap_or("").trim().replace(',', "");
        if stated != value.to_string() {
            findings.push(finding("README.md", *line, format!("`{name}` is {value}, not {stated}")));
        }
    }
    for (line, text) in rows {
        let is_fact =
            first_cell(text).is_some_and(|cell| cell != "what" && known.iter().all(|(name, _)| *name != cell));
        if is_fact {
            findings.push(finding("README.md", line, "no test knows this row"));
        }
    }
    findings
}

/// Rows of the table of numbers whose last cell is no command.
pub fn numbers(readme: &str) -> Vec<Finding> {
    let rows = section(readme, "Numbers");
    let is_row = |line: &str| first_cell(line).is_some_and(|cell| cell != "what");
    let has_command = |line: &str| line.trim_end_matches('|').trim_end().ends_with('`');
    let without = rows.iter().filter(|(_, line)| is_row(line) && !has_command(line));
    without.map(|(line, _)| finding("README.md", *line, "a number without its command")).collect()
}
