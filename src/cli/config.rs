//! The configuration file of `serve`: its flags, as the keys of a TOML file.
//!
//! Comes in: the command line. Goes out: the same command line with the flags that the file named by `--config` has and
//! the command line has not. The flags' own parser then reads all of them, so a file can say whatever flags can, and a
//! value that is wrong is refused in the same words.
//!
//! ```toml
//! link = "tap:hold0"
//! address = ["10.99.0.2/24"]
//! listen = [7000, "8000-8010"]
//! control = "/run/holdline.sock"
//! keepalive = 300
//! ```
//!
//! Invariant: nothing is ignored. A key that is no flag is an error that names it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;
use toml::{Table, Value};

/// The command line with what its configuration file adds; unchanged where it names none. `program` is the whole
/// program's command. The error is one sentence.
pub fn expanded(arguments: Vec<OsString>, program: &Command) -> Result<Vec<OsString>, String> {
    let Some(serve) = program.find_subcommand("serve").filter(|_| arguments.get(1).is_some_and(|it| it == "serve"))
    else {
        return Ok(arguments);
    };
    let Some(path) = config_path(&arguments) else { return Ok(arguments) };
    let shown = path.display();
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read the configuration {shown}: {error}"))?;
    let table: Table = text.parse().map_err(|error| {
        let what = one_line(&error);
        format!("the configuration {shown} is no TOML: {what}")
    })?;
    let mut expanded = arguments.clone();
    for (key, value) in &table {
        let added = flags(key, value, serve).map_err(|what| format!("{shown}: {what}"))?;
        if !is_given(&arguments, key) {
            try_alone(key, &added, serve, &path)?;
            expanded.extend(added);
        }
    }
    Ok(expanded)
}

/// What the parser of the flags says to one key's value, with the file's name before it.
fn try_alone(key: &str, added: &[OsString], serve: &Command, path: &Path) -> Result<(), String> {
    let program = [OsString::from("serve")];
    // Everything but this flag is optional here: what is missing is told when all is together.
    let alone = serve.clone().mut_args(|argument| argument.required(false));
    match alone.try_get_matches_from(program.iter().chain(added)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Err(format!("{}: the key `{key}`: {what}", path.display()))
        }
    }
}

fn one_line(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// The path behind `--config`.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(2);
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

fn is_given(arguments: &[OsString], key: &str) -> bool {
    let flag = format!("--{key}");
    let is_it = |text: &str| text.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    arguments.iter().skip(2).any(|argument| argument.to_str().is_some_and(is_it))
}

/// One key as flags.
fn flags(key: &str, value: &Value, serve: &Command) -> Result<Vec<OsString>, String> {
    let known: Vec<&str> =
        serve.get_arguments().filter_map(|argument| argument.get_long()).filter(may_be_key).collect();
    if !known.contains(&key) {
        return Err(format!("`{key}` is no key; there are: {}", known.join(", ")));
    }
    let argument = serve.get_arguments().find(|argument| argument.get_long() == Some(key));
    let takes_many = argument.is_some_and(|argument| matches!(argument.get_action(), clap::ArgAction::Append));
    let takes_value = argument.is_some_and(|argument| argument.get_action().takes_values());
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        other => Err(format!("the key `{key}` is a {}; it takes a text or a whole number", other.type_str())),
    };
    let texts = match value {
        Value::Boolean(is_on) if !takes_value => {
            return Ok(if *is_on { vec![OsString::from(format!("--{key}"))] } else { Vec::new() });
        }
        Value::Array(values) if takes_many => values.iter().map(one).collect::<Result<Vec<String>, String>>()?,
        Value::Array(_) => return Err(format!("the key `{key}` is an array; it takes one value")),
        value => vec![one(value)?],
    };
    Ok(texts.into_iter().map(|text| OsString::from(format!("--{key}={text}"))).collect())
}

/// Whether a flag may stand in a file: all but those that are about the command line itself.
fn may_be_key(long: &&str) -> bool {
    !["config", "help", "version"].contains(long)
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn program() -> Command {
        let many = Arg::new("listen").long("listen").action(ArgAction::Append).required(true);
        let number = Arg::new("keepalive").long("keepalive").value_parser(clap::value_parser!(u32));
        let serve = Command::new("serve")
            .arg(many)
            .arg(number)
            .arg(Arg::new("quiet").long("quiet").action(ArgAction::SetTrue))
            .arg(Arg::new("config").long("config"));
        Command::new("holdline").subcommand(serve).subcommand(Command::new("sim"))
    }

    fn expand(file: &str, flags: &[&str]) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("c.toml");
        std::fs::write(&path, file).expect("there is room");
        let config = format!("--config={}", path.display());
        let arguments = ["holdline", "serve", config.as_str()].iter().chain(flags).map(OsString::from).collect();
        let expanded = expanded(arguments, &program())?;
        Ok(expanded.into_iter().skip(3).map(|text| text.into_string().expect("text")).collect())
    }

    #[test]
    fn keys_are_flags_and_flags_override_them() {
        let file = "listen = [7000, \"8000-8010\"]\nkeepalive = 5\nquiet = true";
        let mut all = expand(file, &[]).expect("all are flags");
        all.sort();
        assert_eq!(all, ["--keepalive=5", "--listen=7000", "--listen=8000-8010", "--quiet"]);
        let mut some = expand(file, &["--keepalive", "9", "--listen=1"]).expect("all are flags");
        some.sort();
        assert_eq!(some, ["--keepalive", "--listen=1", "--quiet", "9"]);
        assert!(expand("quiet = false", &[]).expect("it is a flag").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (file, named) in [
            ("keepalife = 5", "`keepalife` is no key; there are: listen, keepalive, quiet"),
            ("config = \"x\"", "`config` is no key"),
            ("keepalive = \"soon\"", "the key `keepalive`: invalid value 'soon'"),
            ("keepalive = [1]", "the key `keepalive` is an array"),
            ("keepalive = 1.5", "the key `keepalive` is a float"),
            ("quiet = 1", "the key `quiet`"),
            ("[serve]\nkeepalive = 1", "`serve` is no key"),
            ("keepalive = 1\nkeepalive = 2", "is no TOML"),
            ("keepalive", "is no TOML"),
        ] {
            let error = expand(file, &[]).expect_err(file);
            assert!(error.contains(named) && error.contains("c.toml") && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn other_subcommands_and_no_file_change_nothing() {
        let arguments: Vec<OsString> = ["holdline", "sim", "--config=nowhere"].map(OsString::from).into();
        assert_eq!(expanded(arguments.clone(), &program()), Ok(arguments));
        let arguments: Vec<OsString> = ["holdline", "serve", "--config", "/nowhere/c.toml"].map(OsString::from).into();
        let error = expanded(arguments, &program()).expect_err("there is no such file");
        assert!(error.contains("cannot read the configuration /nowhere/c.toml"), "{error}");
    }
}
