//! Ours: holdline's shards in memory, sans-I/O, with the simplest of applications.
//!
//! Its clock stands still while a segment is dealt with and goes on by more than a second before the next, so that no
//! answer is throttled; nothing here looks at timers, as the kernel's do not expire either while a case lasts.

use std::collections::{HashMap, HashSet};

use holdline::shard::{
    Capacity, CloseHow, Config, Context, FlowId, Push, Service, Shard, State, Storage, Ticket, Time,
};

use super::crafted::Ends;
use super::stack::{CLIENT, PORT, PORT_SMALL, PREFIX, SERVER, Stack};
use super::translate::{Family, off_wire};

/// The receive window of the others: as large as the kernel's, but for its rounding to whole segments.
const WINDOW_BYTES: u32 = 65_535;
/// The receive window of connections to `PORT_SMALL`.
const SMALL_WINDOW_BYTES: u32 = 4_096;

/// Reads what comes, or, with a small window, lets it wait.
#[derive(Default)]
struct Application {
    reads: bool,
    received: HashMap<FlowId, Vec<u8>>,
}

impl Service for Application {
    fn received(&mut self, _context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        if !self.reads {
            return 0;
        }
        self.received.entry(flow).or_default().extend(bytes);
        bytes.len()
    }

    fn peer_closed(&mut self, _context: &mut Context<'_>, _flow: FlowId) {}
}

/// See the module.
pub struct Ours {
    family: Family,
    now: Time,
    usual: Shard<Application>,
    small: Shard<Application>,
    came: Vec<Vec<u8>>,
    /// Flows that were seen, by the client's port.
    flows: HashMap<u16, FlowId>,
    /// Flows that the application has closed for good: nothing of them can be read.
    left: HashSet<FlowId>,
}

const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

impl Ours {
    pub fn start(family: Family) -> Ours {
        let now = Time::from_ms(1_000_000);
        let usual = shard(family, PORT, None, now);
        let small = shard(family, PORT_SMALL, Some(SMALL_WINDOW_BYTES), now);
        Ours { family, now, usual, small, came: Vec::new(), flows: HashMap::new(), left: HashSet::new() }
    }

    fn shards(&mut self) -> [&mut Shard<Application>; 2] {
        [&mut self.usual, &mut self.small]
    }

    fn close_how(&mut self, client_port: u16, how: CloseHow) {
        let now = self.now;
        if let Some((shard, id)) = self.flow(client_port) {
            // It fails for a connection that is closed already.
            let _ = shard.close(now, id, how);
        }
    }

    /// The shard that a flow is in, and its id.
    fn flow(&mut self, client_port: u16) -> Option<(&mut Shard<Application>, FlowId)> {
        let now = self.now;
        for shard in self.shards() {
            let mut found = None;
            shard.flows(now, 0, |view| {
                found = (view.remote.port() == client_port).then_some(view.id);
                found.is_none()
            });
            if let Some(id) = found {
                return Some((shard, id));
            }
        }
        None
    }
}

fn shard(family: Family, port: u16, window_bytes: Option<u32>, now: Time) -> Shard<Application> {
    let mut config = Config::new(family.on_wire(SERVER.octets()), PREFIX, &[port]);
    config.window_bytes = window_bytes.unwrap_or(WINDOW_BYTES);
    // The kernel is told to acknowledge at once, too.
    config.delayed_ack_ms = 0;
    config.shard = u8::from(window_bytes.is_some());
    let storage = Storage::in_memory(Capacity::for_connections(2_000)).expect("memory");
    let application = Application { reads: window_bytes.is_none(), ..Application::default() };
    Shard::new(config, storage, application, [7; 32], now).expect("it starts")
}

impl Stack for Ours {
    fn ends(&self, client_port: u16, server_port: u16) -> Ends {
        let server_mac = Config::new(SERVER, PREFIX, &[PORT]).mac;
        Ends { client_mac: CLIENT_MAC, server_mac, client: CLIENT, server: SERVER, client_port, server_port }
    }

    fn inject(&mut self, frame: &[u8]) {
        let now = self.now;
        // Which shard a frame belongs to is seen by its destination port, where one can be read.
        let port_at = 16 + usize::from(frame.get(14).map_or(0, |first| first & 15)) * 4;
        let is_small = frame.get(port_at..port_at + 2) == Some(&PORT_SMALL.to_be_bytes()[..]);
        let family = self.family;
        let shard = if is_small { &mut self.small } else { &mut self.usual };
        shard.receive(now, &[&family.going(frame)]);
    }

    fn settle(&mut self) -> Vec<Vec<u8>> {
        let mut came = std::mem::take(&mut self.came);
        let (now, family) = (self.now, self.family);
        for shard in self.shards() {
            shard.transmit(|frame| {
                came.extend(family.coming(frame));
                true
            });
        }
        let mut seen = Vec::new();
        for shard in self.shards() {
            shard.flows(now, 0, |view| {
                // As with the kernel, only what is accepted can be read.
                if view.state != State::SynReceived {
                    seen.push((view.remote.port(), view.id));
                }
                true
            });
        }
        self.flows.extend(seen.into_iter().filter(|(_, id)| !self.left.contains(id)));
        self.now = self.now.plus_ms(1_100);
        came
    }

    fn close(&mut self, client_port: u16) {
        self.close_how(client_port, CloseHow::Half);
    }

    fn close_both(&mut self, client_port: u16) {
        self.close_how(client_port, CloseHow::Fin);
        self.left.extend(self.flows.remove(&client_port));
    }

    fn push(&mut self, client_port: u16, bytes: u16) {
        let now = self.now;
        if let Some((shard, id)) = self.flow(client_port) {
            // A push that is refused is not sent, and so compared.
            shard.push(now, &[Push::new(id, Ticket::NONE, &vec![b'x'; usize::from(bytes)])]);
        }
    }

    fn states(&mut self) -> Vec<(u16, String)> {
        let mut states = Vec::new();
        let now = self.now;
        for shard in self.shards() {
            shard.flows(now, 0, |view| {
                if off_wire(view.remote.ip()) == CLIENT.octets() {
                    states.push((view.remote.port(), view.state.to_string()));
                }
                true
            });
        }
        states
    }

    fn read(&mut self, client_port: u16) -> Vec<u8> {
        let Some(id) = self.flows.get(&client_port) else { return Vec::new() };
        let now = self.now;
        let id = *id;
        self.small.service_mut().reads = true;
        self.small.offer(now, id);
        self.small.service_mut().reads = false;
        let mut bytes = self.usual.service().received.get(&id).cloned().unwrap_or_default();
        bytes.extend(self.small.service().received.get(&id).into_iter().flatten());
        bytes
    }

    fn forget(&mut self) {
        *self = Ours { now: self.now, ..Ours::start(self.family) };
    }
}
