//! One control side over several shards, which two workers drive: listing, names, broadcast, events, figures, moves.

use std::collections::BTreeSet;

use holdline::shard::Capacity;
use serde_json::{Value, json};

use crate::stage::{Setting, Stage, id_of};

const SHARDS: u8 = 3;

fn several() -> Stage {
    Stage::set(Setting { workers: 2, shards: SHARDS, is_kept: true, ..Setting::default() })
}

/// Connects until every shard has some; returns the ids in the order of a listing.
fn connected(stage: &mut Stage, count: usize) -> Vec<String> {
    let mut ids: Vec<String> = (0..count).map(|index| stage.connect(&format!("client {}", index % 4)).1).collect();
    ids.sort();
    let shards: BTreeSet<&str> = ids.iter().map(|id| &id[..2]).collect();
    assert_eq!(shards.into_iter().collect::<Vec<&str>>(), ["00", "01", "02"]);
    ids
}

/// An id without its generation: listings are in the order of shards and slots.
fn place(id: &str) -> (String, String) {
    (id[..2].to_owned(), id[8..].to_owned())
}

#[test]
fn a_listing_goes_through_all_shards_in_order() {
    let mut stage = several();
    let mut ids = connected(&mut stage, 20);
    ids.sort_by_key(|id| place(id));
    assert_eq!(stage.ids(), ids);
    let list = |query: &str| -> Vec<String> {
        let answer = stage.call("GET", &format!("/flows{query}"), b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.lines().iter().map(id_of).collect()
    };
    for at in 0..20 {
        assert_eq!(
            list(&format!("?limit=4&after={}", ids[at])),
            ids[at + 1..].iter().take(4).cloned().collect::<Vec<_>>()
        );
    }
    let named = list("?name=client%201");
    assert_eq!(named.len(), 5);
    assert_eq!(list(&format!("?name=client%201&after={}", named[2])), named[3..]);
    assert_eq!(list("?after=ff00000000000000"), [""; 0]);
}

#[test]
fn an_id_leads_to_its_shard() {
    let mut stage = several();
    let ids = connected(&mut stage, 12);
    for (index, id) in ids.iter().enumerate() {
        assert_eq!(stage.get(&format!("/flows/{id}"))["id"], id.as_str());
        let answer = stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"to you");
        assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("delivered")), "{index}");
    }
    assert_eq!(stage.call("GET", "/flows/0300000000000000", b"").status, 404);
    assert_eq!(stage.call("POST", "/flows/0300000000000000/push", b"x").status, 404);
}

#[test]
fn a_name_reaches_its_connections_in_every_shard_once() {
    let mut stage = several();
    let sockets: Vec<usize> = (0..16).map(|_| stage.connect("alice").0).collect();
    for _ in 0..2 {
        let headers = ["Idempotency-Key: order 17"];
        let answer = stage.call_turning("POST", "/names/alice/push?wait=delivered", &headers, b"once ");
        assert_eq!(answer.status, 200, "{answer:?}");
        let pushes = answer.json()["pushes"].as_array().expect("a list").clone();
        assert_eq!(pushes.len(), 16);
        let shards: BTreeSet<String> = pushes.iter().map(|push| id_of(push)[..2].to_owned()).collect();
        assert_eq!(shards.len(), usize::from(SHARDS));
        // Over a restart, the second time.
        stage.restart();
    }
    assert!(sockets.iter().all(|&socket| stage.peer.received(socket) == b"once "));
}

#[test]
fn a_broadcast_is_one_job_over_all_shards() {
    let mut stage = several();
    let sockets: Vec<usize> = (0..18).map(|_| stage.connect("all").0).collect();
    for job in 1..=3 {
        let answer = stage.call("POST", "/broadcast?name-prefix=al", b"news ");
        assert_eq!((answer.status, &answer.json()["job"]), (202, &json!(job)), "{answer:?}");
    }
    stage.peer.run_until("the news", |peer| sockets.iter().all(|&socket| peer.received(socket) == b"news news news "));
    let socket = stage.socket();
    stage.peer.run_until("the receipts", |_| {
        let view = crate::http::call(&socket, "GET", "/jobs/2", &[], b"").json();
        assert_eq!(view["pushed"], 18, "{view}");
        view["delivered"] == 18 && view["state"] == "done"
    });
    let slow = stage.call("POST", "/broadcast?pace=3", b"slow").json()["job"].clone();
    let cancelled = stage.call("DELETE", &format!("/jobs/{slow}"), b"").json();
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["pushed"].as_u64().is_some_and(|pushed| pushed < 18), "{cancelled}");
    assert_eq!(stage.call("GET", "/jobs/99", b"").status, 404);
}

#[test]
fn a_broadcast_that_one_shard_refuses_pushes_to_nobody() {
    let capacity = Capacity { flows: 256, actives: 256, spans: 256, blocks: 64 };
    let mut stage = Stage::set(Setting { workers: 2, shards: SHARDS, capacity, ..Setting::default() });
    let sockets: Vec<usize> = (0..12).map(|_| stage.connect("all").0).collect();
    // A push that fills the last shard's payload: its peer takes nothing of it while it does not turn.
    let last = stage.ids().into_iter().filter(|id| id.starts_with("02")).collect::<Vec<_>>();
    let mut is_full = false;
    for _ in 0..400 {
        let statuses: Vec<u16> =
            last.iter().map(|id| stage.call("POST", &format!("/flows/{id}/push"), &[9; 65_536]).status).collect();
        is_full |= statuses.contains(&503);
        if statuses.iter().all(|status| *status != 202) {
            break;
        }
    }
    let before: u64 = stage.get("/stats")["pushes"]["queued"].as_u64().expect("a count");
    let answer = stage.call("POST", "/broadcast", &[7; 65_536]);
    // Where there was room for all of it after all, the test says nothing; it must not pass so.
    assert_eq!((is_full, answer.status), (true, 503), "{answer:?}");
    assert_eq!(stage.get("/stats")["pushes"]["queued"], before);
    assert!(sockets.iter().all(|&socket| stage.peer.received(socket).is_empty()));
}

#[test]
fn events_of_all_shards_have_one_numbering() {
    let mut stage = several();
    connected(&mut stage, 20);
    let lines = stage.call("GET", "/events?after=0&kinds=opened&limit=20", b"").lines();
    let mut cursors: Vec<String> = lines.iter().map(|line| line["cursor"].as_str().expect("a cursor").into()).collect();
    let shards: BTreeSet<String> = lines.iter().map(|line| id_of(line)[..2].to_owned()).collect();
    assert_eq!((lines.len(), shards.len()), (20, usize::from(SHARDS)));
    let told = cursors.clone();
    cursors.sort();
    cursors.dedup();
    assert_eq!(told, cursors);
}

#[test]
fn a_shard_moves_and_the_figures_say_who_drives_it() {
    let mut stage = several();
    let ids = connected(&mut stage, 12);
    let seats = |stage: &Stage| -> Vec<(Value, Value)> {
        let stats = stage.get("/stats");
        let connections: u64 =
            stats["shards"].as_array().expect("a list").iter().map(|it| it["connections"].as_u64().unwrap()).sum();
        assert_eq!((connections, &stats["connections"]["total"]), (12, &json!(12)));
        assert_eq!(stats["workers"].as_array().map(Vec::len), Some(2));
        assert!(stats["frames"]["handed_over"].as_u64() > Some(0), "{stats}");
        assert_eq!(stats["frames"]["handed_over_lost"], 0);
        stats["shards"].as_array().unwrap().iter().map(|it| (it["shard"].clone(), it["worker"].clone())).collect()
    };
    let pairs = |workers: [u8; 3]| (0..3_u8).map(|at| (json!(at), json!(workers[usize::from(at)]))).collect::<Vec<_>>();
    assert_eq!(seats(&stage), pairs([0, 1, 0]));
    for (shard, worker, then) in [(0, 1, [1, 1, 0]), (2, 1, [1, 1, 1]), (2, 1, [1, 1, 1]), (1, 0, [1, 0, 1])] {
        let answer = stage.call("POST", &format!("/shards/{shard}/move?worker={worker}"), b"");
        assert_eq!((answer.status, answer.json()), (200, json!({ "shard": shard, "worker": worker })));
        assert_eq!(seats(&stage), pairs(then));
        for id in &ids {
            let answer = stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"still here");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    let metrics = String::from_utf8(stage.call("GET", "/metrics", b"").body).expect("text");
    assert!(metrics.contains("holdline_shard_worker{shard=\"2\"} 1"), "{metrics}");
    for (target, status, named) in [
        ("/shards/3/move?worker=0", 404, "`3` is no shard; there are 0 to 2"),
        ("/shards/x/move?worker=0", 404, "`x` is no shard"),
        ("/shards/0/move?worker=2", 400, "worker=2 is not a whole number from 0 to 1"),
        ("/shards/0/move", 400, "`worker` says where to"),
    ] {
        let answer = stage.call("POST", target, b"");
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.error().contains(named), "{answer:?}");
    }
}

#[test]
fn a_drain_closes_the_connections_of_all_shards() {
    let mut stage = several();
    let sockets: Vec<usize> = (0..12).map(|_| stage.connect("all").0).collect();
    let answer = stage.call("POST", "/drain?rate=1000", b"");
    assert_eq!((answer.status, &answer.json()["connections"]), (202, &json!(12)));
    stage.peer.run_until("a FIN to all", |peer| sockets.iter().all(|&socket| peer.is_closed_by_server(socket)));
    let refused = stage.try_connect();
    stage.peer.run_until("a refusal", |peer| peer.is_over(refused));
    assert_eq!(stage.get("/stats")["draining"], true);
}
