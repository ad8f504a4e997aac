//! A stage: one shard in memory on which one script is played.
//!
//! Lines go in, a failure by line comes out, or which rules the script has named.
//!
//! Sequence numbers of the stack's side are spoken of as the script's `iss` has them. The stack draws its own initial
//! sequence number, but from a clock (MUST-8): a first run learns it, and a second begins at the time at which it is
//! the script's. So what a script says of the wrap of the stack's side is true, not a translation; where a later
//! connection has another number, `iss` names it anew and the stage translates.
//!
//! Invariant: what comes out and is not expected is a failure.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use holdline::flows::{FlowId, Storage};
use holdline::shard::{Config, FlowView, Notice, Push, Shard, Ticket};
use holdline::tcp::{Rule, Time};
use strum::IntoEnumIterator;

use super::application::{Application, client_byte, server_byte};
use super::client::{Client, Offered};
use super::frame::{Ends, build, parse};
use super::packet::{Fault, Packet};
use super::script::{Act, Family, Listen};
use super::together::Together;

/// A frame that came out.
pub(super) struct Came {
    pub(super) packet: Packet,
    pub(super) payload: Vec<u8>,
    pub(super) to: IpAddr,
}

/// The stage.
pub struct Stage {
    pub(super) shard: Shard<Application>,
    pub(super) ends: Ends,
    pub(super) listen: Listen,
    pub(super) start: Time,
    pub(super) now: Time,
    pub(super) is_draining: bool,
    /// Frames that go in with the next one.
    pub(super) held: Vec<Vec<u8>>,
    pub(super) came: VecDeque<Came>,
    pub(super) clients: HashMap<u16, Client>,
    /// The connection that a client port last opened.
    pub(super) opened: HashMap<u16, FlowId>,
    /// What the application was told and no `app` line has named yet.
    pub(super) notices: Vec<(u16, String)>,
    /// Counts by rule before the last thing that happened, and whether its rules were looked at.
    pub(super) counts_before: Vec<(Rule, u64)>,
    pub(super) rules_left: Option<Vec<&'static str>>,
    /// Rules that a `!!` line named, rightly.
    pub(super) named: BTreeSet<&'static str>,
}

pub(super) fn config(listen: &Listen, ends: &Ends) -> Config {
    let mut config = listen.config.clone();
    config.addresses = vec![(ends.server, if ends.server.is_ipv4() { 24 } else { 120 })];
    config.ports = vec![listen.port];
    config.mac = ends.server_mac;
    config.gateways.iter_mut().for_each(|gateway| *gateway = ends.on_wire(*gateway));
    if listen.family == Family::Ipv4AsIpv6 {
        // So that segments are as long as the script has them.
        config.mtu += MORE_OF_IPV6;
    }
    config
}

/// A shard that starts on a storage.
pub(super) fn start_shard(
    listen: &Listen,
    ends: &Ends,
    storage: Storage,
    application: Application,
    secret: [u8; 32],
    now: Time,
) -> Result<Shard<Application>, String> {
    let shard = Shard::new(config(listen, ends), storage, application, secret, now);
    let mut shard = shard.map_err(|error| error.to_string())?;
    if listen.family == Family::Ipv4AsIpv6 {
        // A script that knows nothing of routers does not wait for questions for them.
        let lasting = Packet::Router { lifetime_s: u16::MAX, network: None, has_link: true, faults: Vec::new() };
        shard.receive(now, &[&build(&lasting, ends, &[])]);
    }
    Ok(shard)
}

/// How much longer the header of IPv6 is.
const MORE_OF_IPV6: u16 = 20;

impl Stage {
    pub(super) fn new(listen: &Listen, start: Time) -> Result<Stage, String> {
        let ends = Ends::new(listen.family, listen.port);
        let storage = Storage::in_memory_logged(listen.capacity).map_err(|error| error.to_string())?;
        let application = Application::new(listen.behaviour);
        let shard = start_shard(listen, &ends, storage, application, [7; 32], start)?;
        Ok(Stage {
            shard,
            ends,
            listen: listen.clone(),
            start,
            now: start,
            is_draining: false,
            held: Vec::new(),
            came: VecDeque::new(),
            clients: HashMap::new(),
            opened: HashMap::new(),
            notices: Vec::new(),
            counts_before: Vec::new(),
            rules_left: None,
            named: BTreeSet::new(),
        })
    }

    /// Does what a line says, and takes up everything that it leads to.
    pub(super) fn act(&mut self, act: &Act) -> Result<(), String> {
        self.counts_before = Rule::iter().map(|rule| (rule, self.shard.rule_count(rule))).collect();
        self.rules_left = None;
        match act {
            Act::Into(packet) => {
                let frame = self.frame_of(packet);
                self.held.push(frame);
                let frames: Vec<&[u8]> = self.held.iter().map(Vec::as_slice).collect();
                self.shard.receive(self.now, &frames);
                self.held.clear();
            }
            Act::Held(packet) => {
                let frame = self.frame_of(packet);
                self.held.push(frame);
            }
            Act::At(time_us) => self.move_clock(*time_us)?,
            Act::Push { port, bytes, key, expires_in_s, is_urgent } => {
                let flow = self.flow_of(*port)?;
                let push = Push {
                    key: key.map(|key| [key; 16]),
                    expires_in_s: *expires_in_s,
                    is_urgent: *is_urgent,
                    ..Push::new(flow, Ticket::NONE, &[])
                };
                self.push(*bytes, push)?;
            }
            Act::Connect { port, to } => {
                let remote = SocketAddr::new(to.unwrap_or(self.ends.client), *port);
                self.clients.insert(*port, Client { address: *to, ..Client::default() });
                let id =
                    self.shard.connect(self.now, None, self.listen.port, remote).map_err(|error| error.to_string())?;
                self.opened.insert(*port, id);
            }
            Act::Pause { port } => {
                let flow = self.flow_of(*port)?;
                self.shard.pause(self.now, flow).map_err(|error| error.to_string())?;
            }
            Act::Resume { port } => {
                let flow = self.flow_of(*port)?;
                self.shard.resume(self.now, flow).map_err(|error| error.to_string())?;
            }
            Act::Close { port, how } => {
                let flow = self.flow_of(*port)?;
                self.shard.close(self.now, flow, *how).map_err(|error| error.to_string())?;
            }
            Act::Behave(behaviour) => self.shard.service_mut().behaviour = *behaviour,
            Act::Ask(wish) => self.shard.service_mut().wishes.push(*wish),
            Act::Tick => self.shard.tick(self.now),
            Act::Drain => {
                self.is_draining = true;
                self.shard.refuse_new();
            }
        }
        self.take_up()
    }

    /// The frame that carries a packet from the client.
    fn frame_of(&mut self, packet: &Packet) -> Vec<u8> {
        let mut packet = packet.clone();
        let mut payload = Vec::new();
        match &mut packet {
            Packet::Tcp(tcp) => {
                let client = self.clients.entry(tcp.port).or_default();
                let elsewhere = tcp.faults.iter().find_map(|fault| match fault {
                    Fault::FromIp(address) => Some(self.ends.on_wire(*address)),
                    _ => None,
                });
                client.address = elsewhere;
                let seq = tcp.seq.expect("a segment that goes in has a sequence number");
                let mut offset = seq.wrapping_sub(client.irs.wrapping_add(1));
                if tcp.syn {
                    client.offered = Offered {
                        mss: tcp.mss,
                        mss_default: if self.ends.server.is_ipv4() { 536 } else { 1_220 },
                        has_option_bytes: !tcp.option_bytes.is_empty(),
                        has_window_scale: tcp.window_scale.is_some(),
                    };
                    offset = 0;
                    client.answer(seq);
                }
                tcp.ack = tcp.ack.map(|ack| client.real(ack));
                for (start, end) in &mut tcp.sack {
                    (*start, *end) = (client.real(*start), client.real(*end));
                }
                tcp.timestamps = tcp.timestamps.map(|(value, echo)| (value, echo.wrapping_add(client.ts_start)));
                payload.extend((0..tcp.bytes).map(|at| client_byte(offset.wrapping_add(at))));
            }
            Packet::Icmp { quotes, port, mtu, of_bytes, .. } => {
                if self.listen.family == Family::Ipv4AsIpv6 && *mtu > 0 {
                    (*mtu, *of_bytes) = (mtu.saturating_add(MORE_OF_IPV6), *of_bytes + MORE_OF_IPV6);
                }
                *quotes = self.clients.entry(*port).or_default().real(*quotes);
            }
            Packet::Arp { .. }
            | Packet::Neighbor(_)
            | Packet::Router { .. }
            | Packet::RouterQuestion
            | Packet::Problem { .. }
            | Packet::Echo { .. }
            | Packet::Bytes(_) => {}
        }
        build(&packet, &self.ends, &payload)
    }

    fn move_clock(&mut self, time_us: u64) -> Result<(), String> {
        let target = Time(self.start.0 + time_us);
        if target < self.now {
            return Err("the clock does not go back".into());
        }
        let mut calls = 0;
        while calls < 10_000 {
            match self.shard.next_deadline() {
                Some(deadline) if deadline <= target => {
                    calls = if deadline > self.now { 0 } else { calls + 1 };
                    self.now = self.now.max(deadline);
                    self.shard.tick(self.now);
                    self.take_up()?;
                }
                _ => {
                    self.now = target;
                    self.shard.tick(self.now);
                    return Ok(());
                }
            }
        }
        Err("a deadline stays due however often the shard is called".into())
    }

    fn push(&mut self, bytes: u32, push: Push<'_>) -> Result<(), String> {
        let flow = push.flow;
        let sent = self.shard.service().streams.get(&flow).map_or(0, |streams| streams.sent.len() as u32);
        let bytes: Vec<u8> = (sent..sent + bytes).map(server_byte).collect();
        let ticket = Ticket(u64::from(sent) + 1);
        let not_queued = self.refusals() + self.shard.rule_count(Rule::PushRepeated) as usize;
        self.shard.push(self.now, &[Push { ticket, bytes: &bytes, ..push }]);
        self.take_up()?;
        if self.refusals() + self.shard.rule_count(Rule::PushRepeated) as usize == not_queued
            && let Some(streams) = self.shard.service_mut().streams.get_mut(&flow)
        {
            streams.sent.extend(bytes);
        }
        Ok(())
    }

    fn refusals(&self) -> usize {
        self.notices.iter().filter(|(_, notice)| notice.starts_with("refused")).count()
    }

    /// The connection of a client port, or the one that it had.
    pub(super) fn flow_of(&mut self, port: u16) -> Result<FlowId, String> {
        match self.view(port) {
            Some(view) => Ok(view.id),
            None => self.opened.get(&port).copied().ok_or(format!("port {port} never had a connection")),
        }
    }

    pub(super) fn view(&mut self, port: u16) -> Option<FlowView> {
        let mut found = None;
        self.shard.flows(self.now, 0, |view| {
            if view.remote.port() == port {
                found = Some(view);
            }
            true
        });
        found
    }

    /// Takes frames and notices out of the shard.
    pub(super) fn take_up(&mut self) -> Result<(), String> {
        let mut frames = Vec::new();
        self.shard.transmit(|frame| {
            frames.push(frame.to_vec());
            true
        });
        let mut together = Together::default();
        for frame in frames {
            let mtu = usize::from(config(&self.listen, &self.ends).mtu);
            let Some(frame) = together.take(frame, mtu)? else { continue };
            let came = parse(&frame, &self.ends).map_err(|what| format!("out came {what}: {frame:02x?}"))?;
            if came.0 == Packet::RouterQuestion && self.listen.family == Family::Ipv4AsIpv6 {
                continue;
            }
            self.came.push_back(Came { packet: came.0, payload: came.1, to: came.2 });
        }
        let (notices, opened) = (&mut self.notices, &mut self.opened);
        let mut expired = Vec::new();
        self.shard.drain_notices(|notice| {
            let port_of = |flow: FlowId| opened.iter().find(|(_, id)| **id == flow).map_or(0, |(port, _)| *port);
            let (port, name) = match notice {
                Notice::Opened { flow, remote, .. } => {
                    opened.insert(remote.port(), flow);
                    (remote.port(), "opened".into())
                }
                Notice::Queued { .. } | Notice::Received { .. } => return,
                Notice::Expired { flow, ticket } => {
                    expired.push((flow, ticket.0 - 1));
                    (port_of(flow), "expired".into())
                }
                Notice::Undelivered { flow, acked_bytes, .. } => (port_of(flow), format!("undelivered {acked_bytes}")),
                Notice::Refused { flow, error, .. } => (port_of(flow), format!("refused {error:?}")),
                Notice::Delivered { flow, .. } => (port_of(flow), "delivered".into()),
                Notice::Urgent { flow, end } => (port_of(flow), format!("urgent {end}")),
                Notice::SoftError { flow, error } => (port_of(flow), format!("soft-error {error:?}")),
                Notice::PeerClosed { flow } => (port_of(flow), "peer-closed".into()),
                Notice::Closed { flow, reason } => (port_of(flow), format!("closed {reason:?}")),
            };
            notices.push((port, name));
        });
        for (flow, begin) in expired {
            // A script lets only its last push expire: nothing that was sent lies behind it.
            if let Some(streams) = self.shard.service_mut().streams.get_mut(&flow) {
                streams.sent.truncate(begin as usize);
            }
        }
        match self.shard.service_mut().wrong.pop() {
            Some(wrong) => Err(wrong),
            None => Ok(()),
        }
    }
}
