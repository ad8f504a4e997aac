//! `holdline demo`, end to end and when things go wrong.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::support::{HOLDLINE, PATIENCE, in_namespace, wait_within};

/// Whether the demo could not begin for a reason that lies in this machine; says so then.
fn is_skipped(name: &str, stderr: &str) -> bool {
    let is_reason = |line: &&str| line.contains("/dev/net/tun") || line.contains("network namespace");
    // What does not begin with the program's name is told in passing: the demo went on, over another link.
    let reason = stderr.lines().filter_map(|line| line.strip_prefix("holdline: ")).find(is_reason);
    if let Some(reason) = reason {
        eprintln!("{name} skipped: needs root, or a machine that is more open: {reason}");
    }
    reason.is_some()
}

/// Runs a demo with 200 clients, as another user where one is given, and holds it to all that it promises. Returns what
/// it said on standard error; `None` where it was skipped.
fn pushes_to_200_clients(name: &str, program: &Path, arguments: &[&str], user: Option<u32>) -> Option<String> {
    let folder = tempfile::tempdir().expect("there is room");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("it is ours");
    let file = folder.path().join("figures.json");
    let mut command = Command::new(program);
    command.args(["demo", "--clients", "200", "--rounds", "3", "--payload", "1000"]).args(arguments);
    command.arg("--json").arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut demo = command.spawn().expect("the demo starts");
    let status = wait_within(&mut demo, PATIENCE).expect("the demo ends in time");
    let (mut stdout, mut stderr) = (String::new(), String::new());
    demo.stdout.take().expect("piped").read_to_string(&mut stdout).expect("text");
    demo.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    if is_skipped(name, &stderr) {
        return None;
    }
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    assert!(stdout.contains("200 of 200") && stdout.contains("600 acknowledged, 0 wrong bytes"), "{stdout}");
    assert!(stderr.contains("round 3 of 3"), "progress is shown: {stderr}");
    let json = fs::read_to_string(&file).expect("the JSON was written");
    let promised =
        "{\"clients\":200,\"connected\":200,\"failed\":0,\"pushes\":600,\"delivered\":600,\"wrong_bytes\":0,";
    assert!(json.starts_with(promised), "{json}");
    Some(stderr)
}

#[test]
fn demo_pushes_to_200_clients_and_checks_every_byte() {
    let name = "demo_pushes_to_200_clients_and_checks_every_byte";
    pushes_to_200_clients(name, Path::new(HOLDLINE), &[], None);
}

#[test]
fn demo_pushes_over_a_veth_pair() {
    let name = "demo_pushes_over_a_veth_pair";
    pushes_to_200_clients(name, Path::new(HOLDLINE), &["--link", "veth-raw"], None);
}

#[test]
fn demo_needs_no_root() {
    let name = "demo_needs_no_root";
    if !geteuid().is_root() {
        return eprintln!("{name} skipped: this user is a plain one already, and the other tests are run by it");
    }
    // Where the program stands may be closed to others.
    let folder = tempfile::tempdir().expect("there is room");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let program = folder.path().join("holdline");
    fs::copy(HOLDLINE, &program).expect("there is room");
    pushes_to_200_clients(name, &program, &["--link", "veth-raw"], Some(NOBODY));
    let is_open = fs::metadata("/dev/net/tun").is_ok_and(|device| device.permissions().mode() & 0o006 == 0o006);
    if let Some(said) = pushes_to_200_clients(name, &program, &[], Some(NOBODY)) {
        let takes_veth = said.lines().any(|line| line.starts_with("the demo takes a raw socket on a veth pair"));
        assert_eq!(takes_veth, !is_open, "{said}");
    }
}

#[test]
fn demo_tells_which_client_process_was_killed() {
    let mut demo = Command::new(HOLDLINE)
        .args(["demo", "--clients", "40", "--rounds", "1000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demo starts");
    let mut lines = BufReader::new(demo.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.starts_with("round 1")) {
        match lines.next() {
            Some(line) => said.push(line),
            None => break,
        }
    }
    if is_skipped("demo_tells_which_client_process_was_killed", &said.join("\n")) {
        wait_within(&mut demo, PATIENCE);
        return;
    }
    let id = demo.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("the demo runs");
    let victim: i32 = children.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("client processes");
    kill(Pid::from_raw(victim), Signal::SIGKILL).expect("the process runs");
    let said: Vec<String> = lines.collect();
    let status = wait_within(&mut demo, PATIENCE).expect("the demo ends in time");
    assert_eq!(status.code(), Some(1));
    let sentence = format!(
        "client process 2 of 4 (process id {victim}) was killed by SIGKILL (signal 9) while it held 10 connections"
    );
    assert!(said.contains(&sentence), "{sentence:?} is missing in {:?}", &said[said.len().saturating_sub(10)..]);
}

#[test]
fn demo_client_tells_that_local_ports_are_used_up() {
    in_namespace("demo_client_tells_that_local_ports_are_used_up", || {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20099").expect("root may set it");
        let listener = TcpListener::bind("127.0.0.1:7000").expect("the namespace is new");
        let mut client = Command::new(HOLDLINE)
            .args(["demo-client", "--server", "127.0.0.1:7000", "--clients", "130", "--rounds", "1", "--payload", "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = client.stdin.take().expect("piped");
        stdin.write_all(b"go\n").expect("it listens");
        let accepted: Vec<_> = (0..100).map(|_| listener.accept().expect("it connects")).collect();
        let mut lines = BufReader::new(client.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let trouble = lines.find(|line| line.starts_with("trouble")).expect("there is trouble");
        assert!(trouble.contains("every local port for this server port is taken"), "{trouble}");
        assert!(lines.any(|line| line == "tally 100 30 0 0 0"), "100 connected, 30 failed");
        drop(stdin);
        assert!(wait_within(&mut client, Duration::from_secs(10)).expect("it ends").success());
        drop(accepted);
    });
}

/// The user that owns nothing.
const NOBODY: u32 = 65_534;
