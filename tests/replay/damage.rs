//! Damaged captures: each is one clear sentence or a full replay, and never a panic.

use std::fs::{self, File};
use std::path::Path;

use holdline::link::pcap::{CaptureFile, Direction, Packet, read_capture};

use crate::{CAPTURES, fixture, replay, text};

/// Plays a capture that cannot be played, and returns the one sentence.
fn refusal(capture: &Path, address: &str) -> String {
    let played = replay(&[capture], address, &[]);
    let said = text(&played.stderr);
    assert_eq!(played.status.code(), Some(1), "{}: {said}", capture.display());
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    assert!(said.contains(capture.to_str().expect("a plain name")), "it names the file: {said}");
    said
}

#[test]
fn what_is_no_capture_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("there is room");
        path
    };
    let whole = fs::read(fixture("holdline.pcapng")).expect("it is there");
    let classic = fs::read(fixture("echo.pcap")).expect("it is there");
    let mut unknown_link = classic.clone();
    unknown_link[20] = 195;
    let last_of = |name| {
        let frames = read_capture(&fixture(name)).expect("our own are whole");
        format!("is cut off: what begins at byte {}", frames.last().expect("it has frames").offset)
    };
    let address = "10.5.0.2";
    for (name, bytes, expected) in [
        ("empty.pcap", &[][..], "is no capture"),
        ("text.pcap", b"seq 100 ack 77", "is no capture"),
        ("short.pcap", &classic[..20], "is cut off: what begins at byte 0"),
        ("cut.pcap", &classic[..classic.len() - 1], last_of("echo.pcap").as_str()),
        ("cut.pcapng", &whole[..whole.len() - 1], last_of("holdline.pcapng").as_str()),
        ("link.pcap", &unknown_link, "is damaged at byte 20: packets of link type 195"),
    ] {
        let said = refusal(&write(name, bytes), address);
        assert!(said.contains(expected), "{said}");
    }
    assert!(refusal(Path::new("/nowhere/at.pcap"), address).contains("cannot be read"));
    assert!(refusal(folder.path(), address).contains("cannot be read"));
    let large = folder.path().join("large.pcap");
    File::create(&large).and_then(|file| file.set_len((1 << 30) + 1)).expect("a hole needs no room");
    assert!(refusal(&large, address).contains("has more than 1073741824 bytes"));
}

#[test]
fn a_capture_without_the_server_says_whom_it_has() {
    let said = refusal(&fixture("echo.pcap"), "10.5.0.9");
    assert!(said.ends_with("has no conversation with 10.5.0.9 port 7000: asked for a connection are 10.5.0.2:7000\n"));
}

/// Numbers that look drawn, the same ones in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// One change of the kind that broken captures and hostile peers bring.
fn damage(frame: &mut Vec<u8>, draw: &mut Draw) {
    match draw.below(4) {
        0 => frame.truncate(draw.below(frame.len() + 1)),
        1 => frame.extend(std::iter::repeat_n(0xee, draw.below(70))),
        _ => {
            for _ in 0..=draw.below(3) {
                // Headers are what matters.
                let at = draw.below(frame.len().clamp(1, 80));
                if let Some(byte) = frame.get_mut(at) {
                    *byte = draw.below(256) as u8;
                }
            }
        }
    }
}

#[test]
fn no_packet_makes_a_replay_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut draw = Draw(1);
    for (name, address) in CAPTURES {
        let recorded = read_capture(&fixture(name)).expect("our own are whole");
        let path = folder.path().join(format!("{name}.damaged.pcapng"));
        let mut file = CaptureFile::create(&path, "damaged").expect("there is room");
        for round in 0..40 {
            for captured in &recorded {
                let mut frame = captured.bytes.clone();
                if draw.below(3) == 0 {
                    damage(&mut frame, &mut draw);
                }
                let strange_ns = if draw.below(50) == 0 { u64::MAX / (1 + draw.below(9) as u64) } else { 0 };
                let at_ns = (captured.at_ns + round * 10_000_000_000).max(strange_ns);
                let direction = Direction::Received;
                file.write([Packet { at_ns, direction, frame: &frame, comment: "", lost_before: 0 }].into_iter())
                    .expect("there is room");
            }
        }
        for more in [&[][..], &["--fix-checksums"], &["--service", "echo"], &["--fix-checksums", "--service", "hold"]] {
            let played = replay(&[&path], address, more);
            assert!(played.status.success(), "{name} {more:?}: {}", text(&played.stderr));
        }
    }
}
