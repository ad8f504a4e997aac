//! The stream of events: kinds, cursors, gaps, and readers that do not read.

use serde_json::{Value, json};

use crate::http::{self, Lines};
use crate::stage::{Setting, Stage};

fn kinds_of(lines: &mut Lines, count: usize) -> Vec<Value> {
    (0..count).map(|_| lines.next_line().expect("an event")["kind"].clone()).collect()
}

#[test]
fn a_connection_is_told_from_its_opening_to_its_end() {
    let mut stage = Stage::new();
    let mut live = Lines::get(&stage.socket(), "/events");
    assert_eq!(live.status, 200);
    let (index, id) = stage.connect("alice");
    assert_eq!(stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"hello").status, 200);
    stage.peer.send(index, &[b'z'; 100]);
    stage.turn_until_at_least("/rules/PayloadAccepted", 2);
    stage.peer.close(index);
    stage.turn_until_at_least("/closed/both-closed", 1);
    let wanted = ["opened", "received", "delivered", "received", "peer-closed", "closed"];
    let mut events: Vec<Value> = (0..wanted.len()).map(|_| live.next_line().expect("an event")).collect();
    let kinds: Vec<&Value> = events.iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, wanted);
    assert!(events.iter().all(|event| event["id"] == id.as_str() && event["time_ms"].is_u64()));
    assert_eq!((&events[1]["offset"], &events[1]["base64"]), (&json!(0), &json!("YWxpY2UK")));
    assert_eq!(events[3]["offset"], 6);
    assert_eq!(events[3]["base64"].as_str().map(str::len), Some(88), "64 of the 100 bytes");
    assert_eq!(events[5]["reason"], "both-closed");
    // The same from the ring, as far as wanted.
    let cursor = events.remove(1)["cursor"].as_str().expect("a cursor").to_owned();
    let again = stage.call("GET", &format!("/events?after={cursor}&kinds=received,closed&limit=2"), b"");
    let kinds: Vec<Value> = again.lines().into_iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["received", "closed"]);
}

#[test]
fn numbers_go_on_over_restarts_and_what_lies_between_is_a_gap() {
    let mut stage = Stage::set(Setting { is_kept: true, ..Setting::default() });
    stage.connect("alice");
    let before = stage.get("/stats")["events"]["cursor"].as_str().expect("a cursor").to_owned();
    let (socket, mut live) = (stage.socket(), Lines::get(&stage.socket(), "/events?after=0"));
    assert_eq!(kinds_of(&mut live, 2), ["opened", "received"]);
    stage.restart();
    assert!(live.next_line().is_none(), "a stream ends with its server");
    let after = stage.get("/stats")["events"]["cursor"].as_str().expect("a cursor").to_owned();
    assert!(before < after, "{before} {after}");
    stage.connect("bob");
    let mut lines = Lines::get(&socket, &format!("/events?after={before}&limit=2"));
    let gap = lines.next_line().expect("a gap");
    assert_eq!((&gap["kind"], &gap["lost"], &gap["cursor"]), (&json!("gap"), &Value::Null, &json!(after)));
    assert_eq!(kinds_of(&mut lines, 1), ["opened"]);
    assert!(lines.next_line().is_none(), "two were wanted");
}

#[test]
fn what_the_control_thread_had_no_room_for_is_a_gap_that_counts() {
    let mut stage = Stage::set(Setting { events_max: 1, ..Setting::default() });
    let indices: Vec<usize> = (0..50).map(|_| stage.try_connect()).collect();
    stage.peer.run_until("handshakes", |peer| indices.iter().all(|index| peer.is_established(*index)));
    stage.turn_until_at_least("/connections/ESTABLISHED", 50);
    let (mut opened, mut lost) = (0, 0);
    let mut lines = Lines::get(&stage.socket(), "/events?after=0&kinds=opened");
    while opened + lost < 50 {
        let event = lines.next_line().expect("an event or a gap");
        match event["kind"].as_str() {
            Some("opened") => opened += 1,
            Some("gap") => lost += event["lost"].as_u64().expect("a count"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened + lost, 50);
    assert_eq!(stage.get("/stats")["events"]["lost"], lost);
}

#[test]
fn readers_that_never_read_disturb_nobody_and_are_bounded() {
    let mut stage = Stage::new();
    let asleep: Vec<_> = (0..64)
        .map(|_| {
            use std::io::Write;
            let mut stream = http::connect(&stage.socket());
            stream.write_all(b"GET /events?after=0 HTTP/1.1\r\nhost: test\r\n\r\n").expect("the server reads");
            stream
        })
        .collect();
    let (index, id) = stage.connect("alice");
    let refused = stage.call("GET", "/events", b"");
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("64 readers of events"), "{refused:?}");
    let target = format!("/flows/{id}/push");
    for _ in 0..500 {
        assert_eq!(stage.call_turning("POST", &target, &[], &[1; 1_000]).status, 202);
    }
    stage.peer.run_until("all pushes", |peer| peer.received(index).len() == 500_000);
    drop(asleep);
    let socket = stage.socket();
    stage.peer.run_until("a place", |_| http::call(&socket, "GET", "/events?after=0&limit=1", &[], b"").status == 200);
}

#[test]
fn what_is_wrong_with_a_stream_is_named() {
    let stage = Stage::new();
    for (target, named) in [
        ("/events?after=now", "after=now is no cursor"),
        ("/events?after=00000000000000001", "is no cursor"),
        ("/events?kinds=opened,born", "`born` is none of: opened, received, delivered"),
        ("/events?kinds=", "`` is none of"),
        ("/events?limit=0", "limit=0"),
        ("/events?since=1", "`since` is no parameter of /events"),
    ] {
        let answer = stage.call("GET", target, b"");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.error().contains(named), "{answer:?}");
    }
}
