//! A server with its control API over a cable in memory, a peer at the other end, and who turns it while a call waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;

use holdline::link::{Link, MemoryLink, memory_pair};
use holdline::server::{ControlOptions, Options, Server};
use holdline::service::{Names, Service};
use holdline::shard::{Capacity, Config, Storage};
use serde_json::Value;

use crate::http::{self, Answer};
use crate::peer::Peer;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// How a stage is set.
pub struct Setting {
    pub capacity: Capacity,
    pub push_queue_bytes: u32,
    pub window_bytes: u32,
    pub service: fn() -> Box<dyn Service + Send>,
    pub events_max: usize,
    pub is_kept: bool,
    pub workers: usize,
    pub shards: u8,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            capacity: Capacity { flows: 256, actives: 256, spans: 4_096, blocks: 4_096 },
            push_queue_bytes: 64 << 10,
            window_bytes: 64 << 10,
            service: || Box::new(Names::default()),
            events_max: 65_536,
            is_kept: false,
            workers: 1,
            shards: 1,
        }
    }
}

/// See the module.
pub struct Stage {
    pub server: Option<Server>,
    pub peer: Peer,
    links: Vec<MemoryLink>,
    setting: Setting,
    directory: tempfile::TempDir,
}

impl Stage {
    /// As it is usually set.
    pub fn new() -> Stage {
        Stage::set(Setting::default())
    }

    /// Set in another way.
    pub fn set(setting: Setting) -> Stage {
        let cables = (0..setting.workers).map(|_| memory_pair(1500, 1_024).expect("two eventfds"));
        let (links, theirs) = cables.unzip();
        let directory = tempfile::tempdir().expect("a directory");
        let peer = Peer::over(theirs);
        let mut stage = Stage { server: None, peer, links, setting, directory };
        stage.start();
        stage
    }

    /// Stops the server and starts another on the same state.
    pub fn restart(&mut self) {
        self.server.take().expect("it runs").stop().expect("it stops");
        self.start();
    }

    fn start(&mut self) {
        let setting = &self.setting;
        let mut config = Config::new(SERVER, 24, &[7]);
        config.send_queue_bytes = setting.push_queue_bytes;
        config.window_bytes = setting.window_bytes;
        config.report_received_bytes = 64;
        let storages = match setting.is_kept {
            true => Storage::all_in_directory(&self.directory.path().join("state"), setting.shards, setting.capacity),
            false => (0..setting.shards).map(|_| Storage::in_memory(setting.capacity)).collect(),
        };
        let control = ControlOptions {
            socket: Some(self.socket()),
            metrics: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            ..ControlOptions::default()
        };
        let options = Options { control, events_max: setting.events_max, ..Options::default() };
        let links = self.links.iter().map(|link| Box::new(link.clone()) as Box<dyn Link>).collect();
        let server = Server::start_all(config, storages.expect("a state"), links, setting.service, options);
        self.server = Some(server.expect("it starts"));
    }

    /// The path of the control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// Asks, while the peer does nothing.
    pub fn call(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        http::call(&self.socket(), method, target, &[], body)
    }

    /// Asks for something that must be there.
    pub fn get(&self, target: &str) -> Value {
        let answer = self.call("GET", target, b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Asks for something that is refused, with these words in its sentence.
    pub fn is_refused(&self, method: &str, target: &str, status: u16, words: &str) {
        let answer = self.call(method, target, b"");
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
        assert!(answer.error().contains(words), "{method} {target}: {answer:?}");
    }

    /// Does something in another thread while the peer answers what comes.
    pub fn turning<T: Send>(&mut self, act: impl FnOnce(&Path) -> T + Send) -> T {
        let socket = self.socket();
        thread::scope(|scope| {
            let acting = scope.spawn(move || act(&socket));
            self.peer.run_until("an answer", |_| acting.is_finished());
            acting.join().expect("it did not fail")
        })
    }

    /// Asks, while the peer answers what comes.
    pub fn call_turning(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.turning(|socket| http::call(socket, method, target, headers, body))
    }

    /// Connects, says a name, and returns the index of the socket and the id of the connection.
    pub fn connect(&mut self, name: &str) -> (usize, String) {
        let known = self.ids();
        let index = self.peer.connect(SERVER, 7);
        self.peer.run_until("a handshake", |peer| peer.is_established(index));
        let line = format!("{name}\n");
        if !name.is_empty() {
            assert_eq!(self.peer.send(index, line.as_bytes()), line.len());
        }
        loop {
            self.peer.turn();
            let lines = self.call("GET", "/flows", b"").lines();
            let wanted = if name.is_empty() { Value::Null } else { Value::from(name) };
            let is_it = |flow: &&Value| {
                flow["state"] == "ESTABLISHED" && flow["name"] == wanted && !known.contains(&id_of(flow))
            };
            if let Some(flow) = lines.iter().find(is_it) {
                return (index, id_of(flow));
            }
        }
    }

    /// Begins a connection that may not come about.
    pub fn try_connect(&mut self) -> usize {
        self.peer.connect(SERVER, 7)
    }

    /// The ids of all connections.
    pub fn ids(&self) -> Vec<String> {
        self.call("GET", "/flows", b"").lines().iter().map(id_of).collect()
    }

    /// Turns the peer until a figure of `/stats`, named by a JSON pointer, is at least so much.
    pub fn turn_until_at_least(&mut self, pointer: &str, wanted: u64) {
        let socket = self.socket();
        self.peer.run_until(pointer, |_| {
            let stats = http::call(&socket, "GET", "/stats", &[], b"").json();
            stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer}: {stats}")) >= wanted
        });
    }
}

/// The id of a connection in a listing.
pub fn id_of(flow: &Value) -> String {
    flow["id"].as_str().expect("a connection has an id").to_owned()
}
