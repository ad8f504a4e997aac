//! Pushes by id, by name and to all: tickets, receipts, keys, expiry, and every refusal.

use holdline::shard::Capacity;
use serde_json::{Value, json};

use crate::http::{self, Lines};
use crate::stage::{Setting, Stage};

/// Turns the peer until a job is over, and returns how it stands then.
fn finished(stage: &mut Stage, job: &Value) -> Value {
    let (socket, target) = (stage.socket(), format!("/jobs/{job}"));
    let mut view = Value::Null;
    stage.peer.run_until("the end of the broadcast", |_| {
        view = http::call(&socket, "GET", &target, &[], b"").json();
        view["state"] != "running"
    });
    view
}

#[test]
fn a_push_is_queued_then_delivered_and_its_receipt_is_an_event() {
    let mut stage = Stage::new();
    let (index, id) = stage.connect("alice");
    let answer = stage.call("POST", &format!("/flows/{id}/push"), b"hello ");
    assert_eq!(answer.status, 202);
    let first = answer.json()["ticket"].clone();
    assert_eq!(first.as_str().map(str::len), Some(16));
    let answer = stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered&timeout=20"), &[], b"world");
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("delivered")));
    assert_eq!(stage.peer.received(index), b"hello world");
    let mut events = Lines::get(&stage.socket(), "/events?after=0&kinds=delivered");
    for ticket in [first, answer.json()["ticket"].clone()] {
        let event = events.next_line().expect("an event");
        assert_eq!((&event["kind"], &event["id"], &event["ticket"]), (&json!("delivered"), &json!(id), &ticket));
    }
}

#[test]
fn a_wait_that_takes_too_long_leaves_the_push_queued() {
    let mut stage = Stage::new();
    let (index, id) = stage.connect("alice");
    let answer = stage.call("POST", &format!("/flows/{id}/push?wait=delivered&timeout=1"), b"late");
    assert_eq!((answer.status, &answer.json()["outcome"]), (504, &json!("queued")));
    assert!(answer.error().contains("stays queued"));
    stage.peer.run_until("the push", |peer| peer.received(index) == b"late");
}

#[test]
fn a_full_queue_is_429_and_has_room_again_after_a_delivery() {
    let mut stage = Stage::new();
    let (index, id) = stage.connect("alice");
    let target = format!("/flows/{id}/push");
    assert_eq!(stage.call("POST", &target, &vec![1; 64 << 10]).status, 202);
    let answer = stage.call("POST", &target, b"x");
    assert_eq!(answer.status, 429);
    assert!(answer.error().contains("queue is full") && answer.head.contains("retry-after: 1"), "{answer:?}");
    stage.peer.run_until("the push", |peer| peer.received(index).len() == 64 << 10);
    stage.turn_until_at_least("/pushes/delivered", 1);
    assert_eq!(stage.call("POST", &target, b"x").status, 202);
}

#[test]
fn a_shard_without_room_is_503_and_nobody_is_harmed() {
    let capacity = Capacity { flows: 256, actives: 256, spans: 64, blocks: 16 };
    let mut stage = Stage::set(Setting { capacity, ..Setting::default() });
    let (index, id) = stage.connect("alice");
    let target = format!("/flows/{id}/push");
    let mut taken = 0;
    let refused = loop {
        let answer = stage.call("POST", &target, &[7; 4_000]);
        match answer.status {
            202 => taken += 4_000,
            _ => break answer,
        }
        assert!(taken < 64 << 10, "16 blocks of 2 KB do not hold that");
    };
    assert_eq!(refused.status, 503);
    assert!(refused.error().contains("try again later") && refused.head.contains("retry-after: 1"), "{refused:?}");
    stage.peer.run_until("what was taken", |peer| peer.received(index).len() == taken);
    stage.turn_until_at_least("/pushes/delivered", 1);
    assert_eq!(stage.call("POST", &target, b"x").status, 202);
}

#[test]
fn what_cannot_be_pushed_is_refused_by_its_status() {
    let mut stage = Stage::new();
    let (_, id) = stage.connect("alice");
    let target = format!("/flows/{id}/push");
    let refused = |target: &str, headers: &[&str], body: &[u8], status: u16, named: &str| {
        let answer = http::call(&stage.socket(), "POST", target, headers, body);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.error().contains(named), "{answer:?}");
    };
    let long_key = format!("idempotency-key: {}", "k".repeat(256));
    refused(&target, &[], b"", 400, "at least one byte");
    refused(&target, &[], &vec![0; (64 << 10) + 1], 413, "65536 bytes");
    refused(&format!("{target}?expires=0"), &[], b"x", 400, "expires=0");
    refused(&format!("{target}?expires=soon"), &[], b"x", 400, "expires=soon");
    refused(&format!("{target}?wait=sent"), &[], b"x", 400, "wait=sent is none of: delivered");
    refused(&format!("{target}?timeout=3"), &[], b"x", 400, "wait=delivered");
    refused(&format!("{target}?wait=delivered&timeout=3601"), &[], b"x", 400, "timeout=3601");
    refused(&format!("{target}?weight=3"), &[], b"x", 400, "`weight` is no parameter");
    refused(&target, &["idempotency-key:"], b"x", 400, "Idempotency-Key has 1 to 255 bytes");
    refused(&target, &[&long_key], b"x", 400, "not 256");
    refused(&target, &["idempotency-key: a", "idempotency-key: b"], b"x", 400, "more than one Idempotency-Key");
    refused("/flows/xyz/push", &[], b"x", 400, "`xyz` is no id");
    refused("/flows/0000000000000099/push", &[], b"x", 404, "no connection ever had");
    refused("/flows/0000000900000000/push", &[], b"x", 404, "no connection ever had");
    refused("/flows/0100000000000000/push", &[], b"x", 404, "no connection ever had");
    refused("/names/bob/push", &[], b"x", 404, "no connection has the name `bob`");
    refused("/names/a%0ab/push", &[], b"x", 400, "is no name");
    refused(&format!("/names/{}/push", "n".repeat(65)), &[], b"x", 400, "is no name");
    refused("/names/%ff/push", &[], b"x", 400, "/names/%ff/push cannot be read");
    refused("/broadcast?pace=0", &[], b"x", 400, "pace=0");
    refused("/broadcast?prefix=a", &[], b"x", 400, "`prefix` is no parameter");
    refused(&format!("/broadcast?name-prefix={}", "n".repeat(65)), &[], b"x", 400, "is no name");
    refused("/broadcast", &[], b"", 400, "at least one byte");
    refused("/broadcast", &[], &vec![0; (64 << 10) + 1], 413, "65536 bytes");
    refused("/broadcast", &["idempotency-key: a"], b"x", 400, "takes no Idempotency-Key");
    let refusals = stage.get("/stats")["pushes"]["refused"].as_u64();
    assert_eq!(refusals, Some(3), "the other ones never came to the worker");
}

#[test]
fn a_stale_id_is_410_and_never_another_connection() {
    let mut stage = Stage::new();
    let (_, stale) = stage.connect("alice");
    assert_eq!(stage.call("DELETE", &format!("/flows/{stale}?how=abort"), b"").status, 200);
    let (index, fresh) = stage.connect("bob");
    assert_eq!(stale[8..], fresh[8..], "the slot is used again");
    let answer = stage.call("POST", &format!("/flows/{stale}/push"), b"for alice");
    assert_eq!((answer.status, &answer.json()["acked_bytes"]), (410, &json!(0)));
    assert!(answer.error().contains(&stale));
    let answer = stage.call_turning("POST", &format!("/flows/{fresh}/push?wait=delivered"), &[], b"for bob");
    assert_eq!(answer.status, 200);
    assert_eq!(stage.peer.received(index), b"for bob");
}

#[test]
fn a_connection_that_ends_first_is_410_with_what_was_acknowledged() {
    let mut stage = Stage::new();
    let (_, id) = stage.connect("alice");
    let target = format!("/flows/{id}/push?wait=delivered");
    let whole = stage.call_turning("POST", &target, &[], &[1; 10_000]);
    assert_eq!(whole.status, 200);
    let socket = stage.socket();
    // The peer does nothing from here on.
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| http::call(&socket, "POST", &target, &[], &[1; 10_000]));
        let queued = || stage.get(&format!("/flows/{id}"))["unacked"] == 10_000;
        while !queued() {
            std::thread::yield_now();
        }
        assert_eq!(stage.call("DELETE", &format!("/flows/{id}?how=abort"), b"").status, 200);
        waiting.join().expect("it did not fail")
    });
    assert_eq!(answer.status, 410);
    assert_eq!((&answer.json()["outcome"], &answer.json()["acked_bytes"]), (&json!("undelivered"), &json!(0)));
    let event = Lines::get(&socket, "/events?after=0&kinds=undelivered").next_line().expect("an event");
    assert_eq!(event["ticket"], answer.json()["ticket"]);
}

#[test]
fn a_push_that_is_not_begun_in_time_is_dropped_and_the_one_before_is_not() {
    let mut stage = Stage::new();
    let (index, id) = stage.connect("alice");
    let first = vec![1; 60_000];
    assert_eq!(stage.call("POST", &format!("/flows/{id}/push"), &first).status, 202);
    // The peer does nothing for two seconds, so what does not fit into the initial window is not begun.
    let answer = stage.call("POST", &format!("/flows/{id}/push?expires=1&wait=delivered&timeout=2"), b"too old");
    assert_eq!(answer.status, 504, "what is in flight before it keeps its place: {answer:?}");
    let event = stage.turning(|socket| Lines::get(socket, "/events?after=0&kinds=expired").next_line());
    assert_eq!(event.expect("an event")["ticket"], answer.json()["ticket"]);
    let answer = stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"new");
    assert_eq!(answer.status, 200);
    assert_eq!(stage.peer.received(index), [first, b"new".to_vec()].concat());
    let key = ["idempotency-key: twice"];
    let (target, full) = (format!("/flows/{id}/push"), vec![2; 60_000]);
    assert_eq!(stage.call("POST", &target, &full).status, 202);
    let again = format!("{target}?expires=1&wait=delivered&timeout=2");
    let expired = http::call(&stage.socket(), "POST", &again, &key, b"too old");
    assert_eq!(expired.status, 504);
    stage.turn_until_at_least("/pushes/expired", 2);
    let repeat = http::call(&stage.socket(), "POST", &again, &key, b"too old");
    assert_eq!((repeat.status, &repeat.json()["outcome"]), (410, &json!("expired")), "{repeat:?}");
}

#[test]
fn a_name_reaches_all_its_connections_and_says_who_failed() {
    let mut stage = Stage::new();
    let (first, id) = stage.connect("alice");
    let (second, _) = stage.connect("alice");
    let (other, _) = stage.connect("alicia");
    let answer = stage.call_turning("POST", "/names/alice/push?wait=delivered", &[], b"hello");
    assert_eq!((answer.status, answer.json()["pushes"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!((stage.peer.received(first), stage.peer.received(second)), (&b"hello"[..], &b"hello"[..]));
    assert_eq!(stage.peer.received(other), b"");
    let answer = stage.call("POST", "/names/alice/push", b"again");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["ticket"], answer.json()["pushes"][0]["ticket"]);
    stage.peer.run_until("both", |peer| peer.received(first).len() == 10 && peer.received(second).len() == 10);

    stage.turn_until_at_least("/pushes/delivered", 4);
    assert_eq!(stage.call("POST", &format!("/flows/{id}/push"), &vec![0; 64 << 10]).status, 202);
    let mixed = stage.call("POST", "/names/alice/push", b"!");
    let pushes = mixed.json()["pushes"].as_array().expect("a list").clone();
    assert_eq!(mixed.status, 202, "one of them took it");
    let failed: Vec<&Value> = pushes.iter().filter(|push| push["error"].is_string()).collect();
    assert_eq!((failed.len(), &failed[0]["id"]), (1, &json!(id)));
}

#[test]
fn a_name_with_characters_of_a_path_is_encoded() {
    let mut stage = Stage::new();
    let (index, _) = stage.connect("a/b c?Zoë%");
    let answer = stage.call_turning("POST", "/names/a%2Fb%20c%3FZo%C3%AB%25/push?wait=delivered", &[], b"hello");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stage.peer.received(index), b"hello");
}

#[test]
fn a_key_is_delivered_once_to_each_connection_and_over_restarts() {
    let mut stage = Stage::set(Setting { is_kept: true, ..Setting::default() });
    let (first, id) = stage.connect("alice");
    let (second, other) = stage.connect("alice");
    let (by_id, by_name) = (format!("/flows/{id}/push?wait=delivered"), "/names/alice/push?wait=delivered");
    let key = ["idempotency-key: order 17"];
    let once = stage.call_turning("POST", &by_id, &key, b"once");
    let again = stage.call_turning("POST", &by_id, &key, b"once");
    assert_eq!((once.status, again.status), (200, 200));
    assert_eq!(once.json()["ticket"], again.json()["ticket"]);
    let named = stage.call_turning("POST", by_name, &key, b"once");
    assert_eq!(named.status, 200, "{named:?}");
    assert_eq!((stage.peer.received(first), stage.peer.received(second)), (&b"once"[..], &b"once"[..]));
    stage.restart();
    let later = stage.call_turning("POST", &by_id, &key, b"once");
    assert_eq!((later.status, &later.json()["ticket"]), (200, &once.json()["ticket"]));
    let different = stage.call_turning("POST", &by_id, &["idempotency-key: order 18"], b"!");
    assert_eq!(different.status, 200);
    assert_eq!((stage.peer.received(first), stage.peer.received(second)), (&b"once!"[..], &b"once"[..]));
    assert_eq!(stage.call("DELETE", &format!("/flows/{other}?how=abort"), b"").status, 200);
    let gone = stage.call("POST", &format!("/flows/{other}/push?wait=delivered"), b"");
    assert_eq!(gone.status, 400, "even a repeat has bytes");
    let gone = http::call(&stage.socket(), "POST", &format!("/flows/{other}/push?wait=delivered"), &key, b"once");
    assert_eq!((gone.status, &gone.json()["outcome"]), (410, &json!("unknown")), "{gone:?}");
}

#[test]
fn a_broadcast_reaches_those_it_is_for_and_tells_how_it_stands() {
    let mut stage = Stage::new();
    let names = ["beta-1", "beta-2", "alpha-1"];
    let indices: Vec<usize> = names.iter().map(|name| stage.connect(name).0).collect();
    let answer = stage.call("POST", "/broadcast?name-prefix=beta-", b"beta");
    assert_eq!(answer.status, 202);
    let view = finished(&mut stage, &answer.json()["job"]);
    assert_eq!((&view["state"], &view["pushed"]), (&json!("done"), &json!(2)));
    let answer = stage.call("POST", "/broadcast?pace=1000", b" all");
    let job = answer.json()["job"].clone();
    finished(&mut stage, &job);
    stage.peer.run_until("all", |peer| indices.iter().all(|index| peer.received(*index).ends_with(b" all")));
    let received: Vec<&[u8]> = indices.iter().map(|index| stage.peer.received(*index)).collect();
    assert_eq!(received, [&b"beta all"[..], b"beta all", b" all"]);
    let (socket, target) = (stage.socket(), format!("/jobs/{job}"));
    stage.peer.run_until("receipts", |_| http::call(&socket, "GET", &target, &[], b"").json()["delivered"] == 3);
}

#[test]
fn a_broadcast_is_cancelled_and_unknown_ones_are_404() {
    let mut stage = Stage::new();
    for name in ["a", "b", "c", "d", "e"] {
        stage.connect(name);
    }
    let job = stage.call("POST", "/broadcast?pace=1", b"slowly").json()["job"].clone();
    let cancelled = stage.call("DELETE", &format!("/jobs/{job}"), b"");
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    assert!(cancelled.json()["pushed"].as_u64() < Some(5));
    assert_eq!(stage.get(&format!("/jobs/{job}"))["state"], "cancelled");
    for (method, target, status, named) in [
        ("GET", "/jobs/999", 404, "there is no job 999"),
        ("DELETE", "/jobs/999", 404, "there is no job 999"),
        ("GET", "/jobs/first", 400, "`first` is no job"),
        ("GET", "/jobs/-1", 400, "`-1` is no job"),
        ("GET", "/jobs/99999999999999999999", 400, "is no job"),
        ("GET", "/jobs/1?verbose=1", 400, "`verbose` is no parameter"),
    ] {
        stage.is_refused(method, target, status, named);
    }
}
