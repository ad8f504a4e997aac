//! `holdline serve --capture`, with kernel sockets as clients and tshark as the reader where there is one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use holdline::link::pcap::read_capture;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::support::{PATIENCE, Served, in_namespace, make_tap};

/// Sends `count` bytes and reads until the echo of them has closed.
fn echo(count: usize) {
    let stream = TcpStream::connect(("10.77.0.2", 7)).expect("holdline listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&vec![7; count]).expect("the echo reads");
            stream.shutdown(Shutdown::Write).expect("connected");
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).expect("the echo writes and closes");
        assert!(received == vec![7; count]);
    });
}

fn serve(capture: &Path) -> Served {
    let capture = capture.to_str().expect("a plain name");
    let arguments = ["--link", "tap:captured", "--address", "10.77.0.2/24", "--listen", "7", "--service", "echo"];
    Served::start(&[&arguments[..], &["--max-connections", "1000", "--capture", capture]].concat(), &[])
        .expect("it starts")
}

/// What tshark finds wrong, with all checksums checked; `None` where there is no tshark.
fn tshark(capture: &Path, arguments: &[&str]) -> Option<String> {
    let checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    let outcome = Command::new("tshark").arg("-r").arg(capture).args(checks).args(arguments).output().ok()?;
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    Some(String::from_utf8_lossy(&outcome.stdout).into_owned())
}

#[test]
fn a_capture_holds_every_frame_with_its_rules() {
    in_namespace("a_capture_holds_every_frame_with_its_rules", || {
        if !make_tap("captured", "10.77.0.1") {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("it.pcapng");
        let mut served = serve(&path);
        echo(5);
        echo(100_000);
        served.signal(Signal::SIGTERM);
        assert!(served.wait().success());
        assert_eq!(served.said_until_end(), [""; 0], "a capture without losses is not spoken of");

        let frames = read_capture(&path).expect("it is a capture");
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        assert!(bytes > 200_000, "there and back again: {bytes} bytes");
        assert!(frames.is_sorted_by_key(|frame| frame.at_ns));
        let Some(comments) = tshark(&path, &["-T", "fields", "-e", "tcp.flags.str", "-e", "frame.comment"]) else {
            return eprintln!("what tshark says of it was skipped: there is no tshark");
        };
        for line in
            ["··········S·\tListenAcceptsSyn", "·······A··S·\tListenAcceptsSyn", "·······A····\tHandshakeCompleted"]
        {
            assert!(comments.contains(line), "no line {line} in\n{comments}");
        }
        let lines = comments.lines().filter(|line| line.split('\t').nth(1).is_some_and(|comment| !comment.is_empty()));
        assert_eq!(lines.count(), frames.len(), "every frame has a comment");
        let findings = tshark(&path, &["-q", "-z", "expert,error"]).unwrap_or_default();
        assert_eq!(findings.trim(), "", "tshark finds no error");
        let incomplete =
            tshark(&path, &["-Y", "tcp.checksum.status == 0 || ip.checksum.status == 0 || tcp.analysis.lost_segment"]);
        assert_eq!(incomplete.unwrap_or_default().trim(), "", "no checksum is wrong and no frame is missing");
    });
}

#[test]
fn a_full_disk_stops_no_server() {
    in_namespace("a_full_disk_stops_no_server", || {
        if !make_tap("captured", "10.77.0.1") {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).expect("root may");
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("root may");
        mount(nothing, folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=128k")).expect("root may");
        let path = folder.path().join("it.pcapng");
        let mut served = serve(&path);
        for _ in 0..3 {
            echo(300_000);
        }
        served.signal(Signal::SIGTERM);
        assert!(served.wait().success());
        let said = served.said_until_end().join("\n");
        assert_eq!(said.matches("the capture cannot be written: No space left on device").count(), 1, "{said}");
        assert_eq!(said.matches("frames are missing in the capture").count(), 1, "{said}");
        let frames = read_capture(&path).expect("what found room is a capture");
        assert!(frames.len() > 10, "{} frames found room", frames.len());
    });
}
