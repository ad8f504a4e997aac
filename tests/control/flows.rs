//! Calls on connections: list, look at, close, abort, pause, resume, drain.

use serde_json::json;

use crate::http::Lines;
use crate::stage::{Setting, Stage, id_of};

#[test]
fn a_listing_is_paged_and_filtered() {
    let mut stage = Stage::new();
    let mut ids: Vec<String> = ["a", "b", "a", "c"].iter().map(|name| stage.connect(name).1).collect();
    ids.sort_by_key(|id| id[8..].to_owned());
    assert_eq!(stage.ids(), ids);
    let list = |query: &str| {
        let answer = stage.call("GET", &format!("/flows{query}"), b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.lines().iter().map(id_of).collect::<Vec<String>>()
    };
    assert_eq!(list("?limit=3"), ids[..3]);
    assert_eq!(list(&format!("?limit=3&after={}", ids[2])), ids[3..]);
    assert_eq!(list(&format!("?after={}", ids[3])), [""; 0]);
    assert_eq!(list("?name=a").len(), 2);
    assert_eq!(list("?name=a&limit=1").len(), 1);
    assert_eq!(list("?name=nobody").len(), 0);
    assert_eq!(list("?state=established").len(), 4);
    assert_eq!(list("?state=TIME-WAIT").len(), 0);
    assert_eq!(list("?name=a&state=TIME-WAIT").len(), 0);
}

#[test]
fn a_connection_says_what_it_is() {
    let mut stage = Stage::new();
    let (_, id) = stage.connect("alice");
    let lines = stage.call("GET", "/flows", b"").lines();
    let flow = lines[0].as_object().expect("an object");
    let keys: Vec<&str> = flow.keys().map(String::as_str).collect();
    let wanted = ["id", "local", "remote", "state", "name", "opened_ms_ago", "idle_ms", "srtt_us", "unacked"];
    assert_eq!(keys, wanted);
    assert_eq!((&flow["local"], &flow["remote"]), (&json!("10.0.0.2:7"), &json!("10.0.0.1:40000")));
    assert_eq!(flow["name"], "alice");
    assert_eq!(stage.call("POST", &format!("/flows/{id}/push"), b"12345").status, 202);
    let whole = stage.get(&format!("/flows/{id}"));
    assert_eq!((&whole["unacked"], &whole["paused"]), (&json!(5), &json!(false)));
}

#[test]
fn a_listing_of_many_comes_page_by_page() {
    let mut stage = Stage::new();
    for _ in 0..200 {
        stage.try_connect();
    }
    stage.turn_until_at_least("/connections/ESTABLISHED", 200);
    let mut ids = stage.ids();
    assert_eq!(ids.len(), 200);
    ids.dedup();
    assert_eq!(ids.len(), 200);
    assert_eq!(stage.call("GET", "/flows?limit=150", b"").lines().len(), 150);
}

#[test]
fn a_close_comes_after_what_is_queued_and_an_abort_at_once() {
    let mut stage = Stage::new();
    let (closed, id) = stage.connect("alice");
    assert_eq!(stage.call("POST", &format!("/flows/{id}/push"), b"last words").status, 202);
    let answer = stage.call("DELETE", &format!("/flows/{id}"), b"");
    assert_eq!((answer.status, &answer.json()["how"]), (200, &json!("close")));
    stage.peer.run_until("a FIN", |peer| peer.is_closed_by_server(closed) && !peer.is_over(closed));
    assert_eq!(stage.peer.received(closed), b"last words");
    let again = stage.call("DELETE", &format!("/flows/{id}?how=close"), b"");
    assert_eq!(again.status, 410, "it closes already");
    assert_eq!(stage.call("DELETE", &format!("/flows/{id}?how=abort"), b"").status, 200, "that is still possible");

    let (aborted, id) = stage.connect("bob");
    assert_eq!(stage.call("DELETE", &format!("/flows/{id}?how=abort"), b"").status, 200);
    stage.peer.run_until("an RST", |peer| peer.is_over(aborted));
    let event = Lines::get(&stage.socket(), "/events?after=0&kinds=closed").next_line().expect("an event");
    assert_eq!(event["reason"], "aborted");
    assert_eq!(stage.call("DELETE", &format!("/flows/{id}?how=abort"), b"").status, 410);
}

#[test]
fn a_paused_connection_closes_its_window_until_it_is_resumed() {
    let mut stage = Stage::set(Setting { window_bytes: 4_096, ..Setting::default() });
    let (index, id) = stage.connect("alice");
    let answer = stage.call("POST", &format!("/flows/{id}/pause"), b"");
    assert_eq!((answer.status, &answer.json()["paused"]), (200, &json!(true)));
    assert_eq!(stage.get(&format!("/flows/{id}"))["paused"], true);
    // What the peer's buffer and the window take, and no more.
    let bytes = vec![b'x'; 200_000];
    let mut sent = stage.peer.send(index, &bytes);
    for _ in 0..200 {
        stage.peer.turn();
        sent += stage.peer.send(index, &bytes[sent..]);
    }
    assert!(sent <= 65_535 + 4_096, "{sent} bytes went away");
    // Pushes go on.
    let pushed = stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"you are paused");
    assert_eq!(pushed.status, 200);
    let answer = stage.call("POST", &format!("/flows/{id}/resume"), b"");
    assert_eq!((answer.status, &answer.json()["paused"]), (200, &json!(false)));
    stage.peer.run_until("the rest", |peer| {
        sent += peer.send(index, &bytes[sent..]);
        sent == bytes.len()
    });
}

#[test]
fn a_drain_closes_all_and_refuses_new_ones_and_the_server_goes_on() {
    let mut stage = Stage::new();
    let indices: Vec<usize> = ["a", "b", "c"].iter().map(|name| stage.connect(name).0).collect();
    let answer = stage.call("POST", "/drain?rate=100", b"");
    assert_eq!((answer.status, &answer.json()["connections"]), (202, &json!(3)));
    for index in indices {
        stage.peer.run_until("a FIN", |peer| peer.is_closed_by_server(index));
        stage.peer.close(index);
    }
    let refused = stage.try_connect();
    stage.peer.run_until("an RST", |peer| peer.is_over(refused));
    let stats = stage.get("/stats");
    assert_eq!((&stats["draining"], &stats["connections"]["ESTABLISHED"]), (&json!(true), &json!(0)));
    assert!(stats["rules"]["ListenDraining"].as_u64() >= Some(1));
}

#[test]
fn what_is_wrong_with_a_call_is_named() {
    let mut stage = Stage::new();
    let (_, id) = stage.connect("alice");
    for (method, target, status, named) in [
        ("GET", "/flows?limit=0", 400, "limit=0"),
        ("GET", "/flows?limit=many", 400, "limit=many"),
        ("GET", "/flows?after=12", 400, "`12` is no id"),
        ("GET", "/flows?state=LISTEN", 400, "state=LISTEN is none of: SYN-RECEIVED, ESTABLISHED"),
        ("GET", "/flows?state=FREE", 400, "state=FREE is none of"),
        ("GET", "/flows?name=", 400, "is no name"),
        ("GET", "/flows?name=a&name=b", 400, "`name` is given twice"),
        ("GET", "/flows?colour=red", 400, "`colour` is no parameter of /flows"),
        ("GET", "/flows/zz", 400, "`zz` is no id"),
        ("GET", "/flows/0000000000000077", 404, "no connection ever had"),
        ("DELETE", "/flows/0000000000000077", 404, "no connection ever had"),
        ("POST", "/flows/0000000000000077/pause", 404, "no connection ever had"),
        ("POST", "/flows/zz/resume", 400, "`zz` is no id"),
        ("POST", "/drain?rate=0", 400, "rate=0"),
        ("POST", "/drain?rate=fast", 400, "rate=fast"),
        ("POST", "/drain?speed=9", 400, "`speed` is no parameter"),
        ("GET", "/stats?x=1", 400, "`x` is no parameter of /stats; there is: it has none"),
        ("PUT", "/flows", 405, "/flows does not take PUT"),
        ("GET", "/drain", 405, "/drain does not take GET"),
        ("GET", "/", 404, "there is no /"),
        ("GET", "/flows/", 404, "there is no /flows/"),
    ] {
        stage.is_refused(method, target, status, named);
    }
    for target in [format!("/flows/{id}?how=gently"), format!("/flows/{id}?who=me")] {
        let answer = stage.call("DELETE", &target, b"");
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert_eq!(stage.get(&format!("/flows/{id}"))["state"], "ESTABLISHED", "nothing was done to it");
}
