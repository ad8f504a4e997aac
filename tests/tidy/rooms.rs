//! Rooms and doors: which room may use which, and which crate comes in where (DESIGN's layout and crate table).

use super::source::{Finding, Source, closing, words};

/// What a room may use.
enum May {
    Everything,
    Only(&'static [&'static str]),
}

/// The "may use" column. Agreed deviation: the trait `Service` is defined in `shard`, which calls it, and `service`
/// hands it on. `lib` names the rooms, `main` starts `cli`.
const ROOMS: &[(&str, May)] = &[
    ("lib", May::Everything),
    ("main", May::Everything),
    ("cli", May::Everything),
    ("tcp", May::Only(&[])),
    ("wire", May::Only(&["tcp"])),
    ("flows", May::Only(&["tcp"])),
    ("shard", May::Only(&["tcp", "wire", "flows"])),
    ("link", May::Only(&["wire"])),
    ("service", May::Only(&["shard"])),
    ("sim", May::Only(&["shard", "service", "link"])),
    ("server", May::Only(&["shard", "link", "service"])),
];

/// Where a crate may be named. Tests and benchmarks may use whatever is there.
enum Door {
    Anywhere,
    AnywhereBut(&'static [&'static str]),
    Only(&'static [&'static str]),
}

/// The doors. Every dependency of Cargo.toml has one.
const DOORS: &[(&str, Door)] = &[
    ("aya", Door::Only(&["link"])),
    ("axum", Door::Only(&["server"])),
    ("base64", Door::Only(&["server", "cli"])),
    ("bytemuck", Door::Only(&["tcp", "flows", "shard"])),
    ("clap", Door::Only(&["cli", "main"])),
    // cli waits for what a server tells on the channels that server gives it (agreed deviation).
    ("crossbeam", Door::Only(&["server", "shard", "cli"])),
    ("getrandom", Door::Only(&["server", "cli", "flows"])),
    ("http_body_util", Door::Only(&["server", "cli"])),
    // cli is the client of the control API that server serves.
    ("hyper", Door::Only(&["server", "cli"])),
    ("hyper_util", Door::Only(&["server", "cli"])),
    ("libc", Door::Only(&["link"])),
    ("memmap2", Door::Only(&["flows"])),
    ("netlink_packet_core", Door::Only(&["link"])),
    ("netlink_packet_route", Door::Only(&["link"])),
    ("netlink_sys", Door::Only(&["link"])),
    ("nix", Door::Only(&["link", "server", "cli"])),
    ("pcap_parser", Door::Only(&["link"])),
    ("prometheus_client", Door::Only(&["server"])),
    ("rand", Door::Only(&["sim"])),
    ("rand_xoshiro", Door::Only(&["sim"])),
    ("ratatui", Door::Only(&["cli"])),
    ("serde", Door::Only(&["cli", "server"])),
    ("serde_json", Door::Only(&["cli", "server"])),
    ("signal_hook", Door::Only(&["server", "cli"])),
    // In sim it is the hash of a run that does not change with the compiler.
    ("siphasher", Door::Only(&["flows", "shard", "sim"])),
    // In sim it is the independent peer (agreed deviation), in wire the packet views.
    ("smoltcp", Door::Only(&["wire", "sim"])),
    ("strum", Door::Anywhere),
    ("tempfile", Door::Anywhere),
    ("thiserror", Door::AnywhereBut(&["tcp", "wire"])),
    ("tokio", Door::Only(&["server", "cli"])),
    ("toml", Door::Only(&["cli"])),
    ("tracing", Door::AnywhereBut(&["tcp"])),
    ("tracing_subscriber", Door::Only(&["cli", "main"])),
];

/// Whether a crate, by its name in code, has a door.
pub fn has_door(name: &str) -> bool {
    DOORS.iter().any(|(known, _)| *known == name)
}

fn is_room(name: &str) -> bool {
    ROOMS.iter().any(|(room, _)| *room == name && !["lib", "main"].contains(&name))
}

/// Paths into rooms that the file's room may not use. A file of tests beside its room may use what it needs.
pub fn forbidden_uses(source: &Source) -> Vec<Finding> {
    let Some(room) = source.room().filter(|_| !source.path.ends_with("/tests.rs")) else { return Vec::new() };
    let Some((_, may)) = ROOMS.iter().find(|(known, _)| *known == room) else {
        return vec![source.finding(0, format!("`{room}` is no room of the layout"))];
    };
    let May::Only(allowed) = may else { return Vec::new() };
    let used = room_paths(source).into_iter();
    let forbidden = used.filter(|(_, name)| name != room && !allowed.contains(&name.as_str()));
    forbidden.map(|(at, name)| source.finding(at, format!("`{room}` may not use `{name}`"))).collect()
}

/// Names of rooms that the file's paths lead to, with where: `crate::X`, `holdline::X`, `super::..::X`, in groups too.
fn room_paths(source: &Source) -> Vec<(usize, String)> {
    let code = source.code.as_str();
    let all = source.words();
    let mut found = Vec::new();
    let mut index = 0;
    while index < all.len() {
        let (at, word) = all[index];
        let (mut end, mut last) = (at + word.len(), index);
        let is_root = match word {
            "crate" | "holdline" => true,
            "super" => {
                let mut climbed = 1;
                while follows(code, end) && all.get(last + 1).is_some_and(|(_, next)| *next == "super") {
                    last += 1;
                    end = all[last].0 + "super".len();
                    climbed += 1;
                }
                climbed == depth(source, at)
            }
            _ => false,
        };
        if is_root && let Some(rest) = after_colons(code, end) {
            found.extend(first_names(code, rest).into_iter().filter(|(_, name)| is_room(name)));
        }
        index = last + 1;
    }
    found
}

fn after_colons(code: &str, at: usize) -> Option<usize> {
    let rest = code[at..].trim_start();
    let behind = rest.strip_prefix("::")?.trim_start();
    Some(code.len() - behind.len())
}

fn follows(code: &str, at: usize) -> bool {
    after_colons(code, at).is_some_and(|rest| code[rest..].starts_with("super"))
}

/// The name that a path goes on with, or the names if it goes on with a group.
fn first_names(code: &str, at: usize) -> Vec<(usize, String)> {
    let name_at = |at: usize| words(&code[at..]).first().map(|(start, word)| (at + start, word.to_string()));
    if !code[at..].starts_with('{') {
        return name_at(at).into_iter().collect();
    }
    let end = closing(code, at).unwrap_or(code.len());
    let mut names = Vec::new();
    let (mut depth, mut is_first) = (0, true);
    for (offset, byte) in code.bytes().enumerate().take(end).skip(at + 1) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => is_first = true,
            byte if is_first && (byte.is_ascii_alphabetic() || byte == b'_') => {
                names.extend(name_at(offset));
                is_first = false;
            }
            _ => {}
        }
    }
    names
}

/// How many modules deep a byte of the file is: `super` that often is the crate.
fn depth(source: &Source, at: usize) -> usize {
    let inside = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let in_files = inside.split('/').count();
    let all = source.words();
    let inline = all.windows(2).filter(|pair| {
        let ((keyword_at, keyword), (name_at, name)) = (pair[0], pair[1]);
        let behind = name_at + name.len();
        let open = source.code[behind..].find(|c: char| !c.is_whitespace()).map(|skip| behind + skip);
        let is_inline = keyword == "mod" && open.is_some_and(|open| source.code[open..].starts_with('{'));
        is_inline && keyword_at < at && open.and_then(|open| closing(&source.code, open)).is_none_or(|end| at < end)
    });
    in_files + inline.count()
}

/// Crates that are named where they have no door.
pub fn forbidden_crates(source: &Source) -> Vec<Finding> {
    let Some(room) = source.room().filter(|_| !source.path.ends_with("/tests.rs")) else { return Vec::new() };
    let has_nix_libc = source.code.contains("use nix::libc;");
    let mut findings = Vec::new();
    for (at, word) in source.words() {
        let Some((_, door)) = DOORS.iter().find(|(name, _)| *name == word) else { continue };
        let is_begun = after_colons(&source.code, at + word.len()).is_some() && !is_inside_path(&source.code, at);
        let is_path = is_begun || is_brought_in(&source.code, at);
        let is_allowed = match door {
            Door::Anywhere => true,
            Door::AnywhereBut(rooms) => !rooms.contains(&room),
            Door::Only(rooms) => rooms.contains(&room),
        };
        if is_path && !is_allowed && !(word == "libc" && has_nix_libc) {
            findings.push(source.finding(at, format!("`{word}` has no door in `{room}`")));
        }
    }
    findings
}

/// Whether a word is what a `use` or an `extern crate` brings in.
fn is_brought_in(code: &str, at: usize) -> bool {
    let before = code[..at].trim_end();
    before.ends_with("use") || before.ends_with("crate")
}

/// Whether a word is not the first of its path: `nix::libc` is nix.
fn is_inside_path(code: &str, at: usize) -> bool {
    let before = code[..at].trim_end();
    before.ends_with("::")
        && before.trim_end_matches(':').trim_end().ends_with(|c: char| c.is_alphanumeric() || c == '_')
}
