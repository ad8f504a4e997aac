//! The server as a whole: figures, metrics, limits, the socket, many requests at once, bytes that are no HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use holdline::shard::Capacity;
use serde_json::json;

use crate::http;
use crate::peer::PATIENCE;
use crate::stage::{Setting, Stage};

#[test]
fn figures_tell_connections_memory_rules_and_times() {
    let mut stage = Stage::new();
    let (_, id) = stage.connect("alice");
    assert_eq!(stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"hello").status, 200);
    let stats = stage.get("/stats");
    assert_eq!(
        stats["connections"],
        json!({
            "total": 1, "SYN-RECEIVED": 0, "ESTABLISHED": 1, "FIN-WAIT-1": 0, "FIN-WAIT-2": 0, "CLOSE-WAIT": 0,
            "CLOSING": 0, "LAST-ACK": 0, "TIME-WAIT": 0, "SYN-SENT": 0,
        })
    );
    assert_eq!(stats["memory"]["flows"], json!({ "used": 1, "capacity": 256, "record_bytes": 64, "used_bytes": 64 }));
    assert_eq!(stats["memory"]["actives"]["used"], 0, "it is idle again");
    assert_eq!((&stats["rules"]["PushQueued"], &stats["pushes"]["delivered"]), (&json!(1), &json!(1)));
    assert_eq!(stats["delivery_us"]["count"], 1);
    assert!(stats["worker"]["step_us"]["p99"].as_f64() > Some(0.0));
    assert!(stats["rates"]["pushes_per_s"].as_f64() > Some(0.0));
}

#[test]
fn metrics_are_on_the_socket_and_on_tcp() {
    let mut stage = Stage::new();
    let (_, id) = stage.connect("alice");
    assert_eq!(stage.call_turning("POST", &format!("/flows/{id}/push?wait=delivered"), &[], b"hello").status, 200);
    let here = stage.call("GET", "/metrics", b"");
    assert!(here.head.contains("text/plain; version=0.0.4"), "{}", here.head);
    let address = stage.server.as_ref().and_then(holdline::server::Server::metrics_address).expect("it was asked for");
    let ask = |target: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let request = format!("GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        text
    };
    for text in [String::from_utf8(here.body).expect("text"), ask("/metrics")] {
        for line in [
            "holdline_connections{state=\"ESTABLISHED\"} 1",
            "holdline_pushes_total{outcome=\"delivered\"} 1",
            "holdline_decisions_total{rule=\"PushQueued\"} 1",
            "holdline_memory_used_bytes{arena=\"flows\"} 64",
            "holdline_push_delivery_seconds_count 1",
            "# TYPE holdline_worker_step_seconds histogram",
        ] {
            assert!(text.lines().any(|it| it.trim_end() == line), "no {line} in {text}");
        }
        assert!(text.contains("holdline_push_delivery_seconds_bucket{le=\"+Inf\"} 1"), "{text}");
    }
    let other = ask("/stats");
    assert!(other.starts_with("HTTP/1.1 404") && other.contains("this port has /metrics only"), "{other}");
}

#[test]
fn at_its_limit_new_connections_are_dropped_and_counted_and_the_others_go_on() {
    let capacity = Capacity { flows: 3, actives: 64, spans: 256, blocks: 256 };
    let mut stage = Stage::set(Setting { capacity, ..Setting::default() });
    let mut indices: Vec<usize> = ["a", "b", "c"].iter().map(|name| stage.connect(name).0).collect();
    let waiting = stage.try_connect();
    stage.turn_until_at_least("/rules/ListenNoRoom", 1);
    assert!(!stage.peer.is_established(waiting) && !stage.peer.is_over(waiting), "its SYN is dropped, not answered");
    assert_eq!(stage.call("POST", "/broadcast", b"still here").status, 202);
    stage.peer.run_until("all", |peer| indices.iter().all(|index| peer.received(*index) == b"still here"));
    // The peer repeats its SYN, and comes in when there is room.
    stage.peer.close(indices.remove(0));
    let id = stage.ids()[0].clone();
    stage.call("DELETE", &format!("/flows/{id}?how=abort"), b"");
    stage.peer.run_until("the one that waits", |peer| peer.is_established(waiting));
}

#[test]
fn the_socket_is_for_its_owner_and_ends_with_the_server() {
    let mut stage = Stage::new();
    let mode = std::fs::metadata(stage.socket()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (_, id) = stage.connect("alice");
    let socket = stage.socket();
    let target = format!("/flows/{id}/push?wait=delivered&timeout=100");
    let server = stage.server.take();
    let answer = thread::scope(|scope| {
        let waiting = scope.spawn(|| http::call(&socket, "POST", &target, &[], b"hello"));
        while http::call(&socket, "GET", "/stats", &[], b"").json()["pushes"]["queued"] != 1 {
            thread::yield_now();
        }
        drop(server);
        waiting.join().expect("it was answered")
    });
    assert_eq!((answer.status, &answer.json()["outcome"]), (503, &json!("queued")));
    assert!(!socket.exists());
}

#[test]
fn a_thousand_requests_at_once_are_all_answered() {
    let mut stage = Stage::new();
    let (index, id) = stage.connect("alice");
    let target = format!("/flows/{id}/push");
    let answers = stage.turning(|socket| {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        let call = |_| http::call(socket, "POST", &target, &[], b"0123456789").status;
                        (0..50).map(call).collect::<Vec<u16>>()
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().expect("it is answered")).collect::<Vec<u16>>()
        })
    });
    assert!(answers.iter().all(|status| *status == 202), "{answers:?}");
    stage.peer.run_until("all bytes", |peer| peer.received(index).len() == 10_000);
}

#[test]
fn requests_of_one_connection_are_answered_in_order() {
    let stage = Stage::new();
    let mut stream = http::connect(&stage.socket());
    let one = "GET /flows/zz HTTP/1.1\r\nhost: test\r\n\r\n";
    let last = "GET /nowhere HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{one}{one}{last}").as_bytes()).expect("the server reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    let statuses: Vec<&str> = text.lines().filter(|line| line.contains("HTTP/1.1 ")).collect();
    assert_eq!(text.matches("400 Bad Request").count(), 2, "{statuses:?}");
    assert!(text.rfind("400 Bad Request") < text.find("404 Not Found"), "{text}");
}

#[test]
fn bytes_that_are_no_http_are_refused_and_harm_nobody() {
    let stage = Stage::new();
    for garbage in [
        &b"\0\x01\x02\x03\xff\xfe\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /flows HTTP/9.9\r\n\r\n",
        b"POST /broadcast HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /broadcast HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n",
    ] {
        let mut stream = http::connect(&stage.socket());
        stream.write_all(garbage).expect("the server reads");
        let mut answer = Vec::new();
        // It may close without a word.
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4"), "{garbage:?}: {text}");
    }
    let mut huge = http::connect(&stage.socket());
    let _ = huge.write_all(format!("GET /flows?{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).as_bytes());
    let mut answer = Vec::new();
    let _ = huge.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(stage.get("/stats")["connections"]["total"], 0);
}
