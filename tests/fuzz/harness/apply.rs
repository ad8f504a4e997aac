//! Operations as calls of a shard.

use holdline::shard::{Broadcast, CloseHow, FlowId, JobId, Push, PushError, Ticket, Time};

use super::book::{Pushed, peer_bytes, server_bytes};
use super::death::Death;
use super::frame::{self, ACK, Ends, FIN, SYN, Segment};
use super::operation::{Aim, Operation, PEERS, Shot, Target};
use super::profile::{GATEWAY, LOCALS, PORTS};
use super::world::World;

/// A gateway that never answers and a peer beside it, whose port nobody listens on.
const CLOSED_PORT: u16 = 9;
const PREFIXES: [&[u8]; 3] = [b"", b"n", b"n1"];
/// Deadlines that one walk ticks at.
const WALK_STEPS: u32 = 24;

/// The ends of a peer.
pub fn ends_of_peer(peer: u8) -> Ends {
    let peer = peer % PEERS as u8;
    let remote = match peer {
        6 => [10, 0, 0, 7],
        7 => [198, 51, 100, 7],
        _ => [10, 0, 0, 2 + peer],
    };
    Ends {
        mac: [2, 0, 0, 0, 1, peer],
        remote,
        remote_port: 40_000 + u16::from(peer),
        local: LOCALS[usize::from(peer == 3)],
        local_port: if peer == 4 { PORTS[1] } else { PORTS[0] },
    }
}

/// The options of a SYN, and of others.
fn options(kind: u8) -> &'static [u8] {
    const MSS_1460: &[u8] = &[2, 4, 0x05, 0xb4];
    match kind % 16 {
        0 => MSS_1460,
        1 => &[2, 4, 0x05, 0xb4, 1, 3, 3, 7],
        2 => &[],
        3 => &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 2],
        4 => &[2, 4, 0, 100],
        5 => &[2, 4, 0, 1],
        6 => &[1, 3, 3, 14, 2, 4, 0xff, 0xff],
        7 => &[3, 3, 255, 2, 4, 2, 0x18],
        8 => &[3, 3, 0],
        9 => &[2, 0, 5, 0xb4],
        10 => &[254, 6, 1, 2, 3, 4, 2, 4, 2, 0],
        11 => &[1; 40],
        12 => &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9],
        13 => &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        14 => &[2, 4, 0x05, 0xb4, 3, 3, 1],
        _ => &[0, 2, 4, 0x05, 0xb4],
    }
}

impl World {
    /// Does it, and looks at what became of it.
    pub fn apply(&mut self, operation: &Operation) {
        self.steps += 1;
        match *operation {
            Operation::Shoot(shot) => self.shoot(&shot),
            Operation::Connect { peer, options, window } => self.connect(peer, options, window),
            Operation::Say { peer, bytes, window } => self.say(peer, bytes, ACK, window),
            Operation::Acknowledge { peer, window } => self.say(peer, 0, ACK, window),
            Operation::Finish { peer } => self.say(peer, 0, ACK | FIN, 65_535),
            Operation::Push { target, bytes, expires_in_s, key } => self.push(target, bytes, expires_in_s, key),
            Operation::PushAll { bytes } => self.push_all(bytes),
            Operation::Broadcast { bytes, pace_per_s, expires_in_s, prefix } => {
                self.broadcast(bytes, pace_per_s, expires_in_s, PREFIXES[usize::from(prefix) % PREFIXES.len()]);
            }
            Operation::Cancel { job } => self.cancel(job),
            Operation::Jump { ms } => {
                self.now = self.now.plus_ms(u64::from(ms));
                self.tick();
            }
            Operation::Walk { ms } => self.walk(ms),
            Operation::Close(target) => self.close(target, CloseHow::Fin),
            Operation::Abort(target) => self.close(target, CloseHow::Reset),
            Operation::Pause(target) => self.set_paused(target, true),
            Operation::Resume(target) => self.set_paused(target, false),
            Operation::Offer(target) => {
                let id = self.id_of(target);
                self.perform(|shard, now| shard.offer(now, id));
            }
            Operation::Behave(behaviour) => self.shard().service_mut().behaviour = behaviour,
            Operation::Die => self.die(),
            Operation::DieWithin { point, commit } => self.death = Some(Death { point, commit }),
            Operation::Drain => self.shard().refuse_new(),
            Operation::Junk { peer, kind, byte } => self.throw(peer, kind, byte),
        }
    }

    fn aimed_seq(&self, wire: usize, aim: Aim) -> u32 {
        let talk = self.wires[wire].talk;
        let near = match (talk, aim.near) {
            (None, 0) => 1_000,
            (None, 1) => 0xffff_fff0,
            (None, 2) => 0x7fff_ffff,
            (None, _) => 0,
            (Some(talk), 0) => talk.peer_nxt,
            (Some(talk), 1) => talk.rcv_nxt,
            (Some(talk), 2) => talk.edge,
            (Some(talk), 3) => talk.irs,
            (Some(talk), 4) => talk.irs.wrapping_add(1),
            (Some(talk), 5) => talk.rcv_nxt.wrapping_add(talk.edge.wrapping_sub(talk.rcv_nxt) / 2),
            (Some(_), _) => 0,
        };
        near.wrapping_add(aim.beside as u32)
    }

    fn aimed_ack(&self, wire: usize, aim: Aim) -> u32 {
        let Some(talk) = self.wires[wire].talk else { return aim.beside as u32 };
        let near = match aim.near {
            0 => talk.snd_nxt,
            1 => talk.snd_una,
            2 => talk.iss,
            3 => talk.iss.wrapping_add(1),
            4 => talk.snd_una.wrapping_add(talk.snd_nxt.wrapping_sub(talk.snd_una) / 2),
            5 => talk.snd_una.wrapping_add(536),
            _ => 0,
        };
        near.wrapping_add(aim.beside as u32)
    }

    /// Writes a segment with the bytes that a peer sends under its number.
    fn write_segment(&mut self, ends: &Ends, segment: Segment<'_>, bytes: u16) {
        let first = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        let payload = peer_bytes(first, usize::from(bytes));
        self.write(|out| frame::write_segment(out, ends, &Segment { payload, ..segment }));
    }

    fn shoot(&mut self, shot: &Shot) {
        let mut ends = ends_of_peer(shot.peer);
        let wire = self.wire_of(&ends);
        ends.mac[4] += u8::from(shot.has_other_mac);
        let segment = Segment {
            seq: self.aimed_seq(wire, shot.seq),
            ack: self.aimed_ack(wire, shot.ack),
            control: shot.control,
            window: shot.window,
            options: if shot.options == 0 && shot.control & SYN == 0 { &[] } else { options(shot.options) },
            payload: &[],
        };
        self.write_segment(&ends, segment, shot.bytes);
        if !shot.is_held || self.going_count() >= 16 {
            self.deliver();
        }
    }

    fn connect(&mut self, peer: u8, kind: u8, window: u16) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let irs = match self.wires[wire].talk {
            Some(talk) => talk.peer_nxt.wrapping_add(100_000),
            None => [1_000, 0xffff_ff00, 0x7fff_fff0, 0][usize::from(peer & 3)],
        };
        let none = Segment { seq: irs, ack: 0, control: SYN, window, options: options(kind), payload: &[] };
        self.write_segment(&ends, none, 0);
        self.deliver();
        if self.wires[wire].talk.is_some_and(|talk| talk.irs == irs) {
            self.say(peer, 0, ACK, window);
        }
    }

    /// What comes next in the peer's stream, with an acknowledgment of everything.
    fn say(&mut self, peer: u8, bytes: u16, control: u8, window: u16) {
        let ends = ends_of_peer(peer);
        let wire = self.wire_of(&ends);
        let Some(talk) = self.wires[wire].talk else { return };
        let segment = Segment { seq: talk.rcv_nxt, ack: talk.snd_nxt, control, window, options: &[], payload: &[] };
        self.write_segment(&ends, segment, bytes);
        self.deliver();
    }

    fn id_of(&mut self, target: Target) -> FlowId {
        let wire = self.wire_of(&ends_of_peer(target.peer));
        let id = self.book_of(wire).map_or(FlowId::new(0, 0, u32::from(target.peer)), |book| book.id);
        match target.kind {
            0 => id,
            1 => FlowId::new(id.shard(), id.generation().wrapping_sub(1), id.slot()),
            2 => FlowId::new(id.shard(), id.generation() + 1, id.slot()),
            _ => FlowId::new(9, id.generation(), u32::MAX - id.slot()),
        }
    }

    fn push(&mut self, target: Target, bytes: u16, expires_in_s: u32, key: u8) {
        let flow = self.id_of(target);
        let (salt, ticket) = (self.new_salt(), if key == 7 { Ticket::NONE } else { self.new_ticket() });
        let content = server_bytes(salt, usize::from(bytes));
        // Nothing is told of a push that expires and has no ticket.
        let is_uncertain = ticket == Ticket::NONE && expires_in_s > 0;
        self.offered.push((flow, Pushed { is_uncertain, ..Pushed::new(ticket, u32::from(bytes), salt) }));
        let key = (1..7).contains(&key).then_some([key; 16]);
        self.perform(|shard, now| shard.push(now, &[Push { flow, ticket, bytes: content, key, expires_in_s }]));
    }

    fn push_all(&mut self, bytes: u16) {
        let mut ids: Vec<FlowId> = self.books.iter().map(|book| book.id).collect();
        ids.extend(ids.first().copied());
        // The first one is pushed to twice, and must not take one push for the other.
        let (salt, other_salt) = (self.new_salt(), self.new_salt());
        let mut pushes = Vec::new();
        for (at, &flow) in ids.iter().enumerate() {
            let is_other = at > 0 && at + 1 == ids.len();
            let ticket = self.new_ticket();
            let salt = if is_other { other_salt } else { salt };
            self.offered.push((flow, Pushed::new(ticket, u32::from(bytes), salt)));
            pushes.push(Push::new(flow, ticket, server_bytes(salt, usize::from(bytes))));
        }
        self.perform(|shard, now| shard.push(now, &pushes));
    }

    fn broadcast(&mut self, bytes: u16, pace_per_s: u32, expires_in_s: u32, prefix: &[u8]) {
        // So many jobs are remembered; with more, their order is not that of their numbers.
        if self.jobs.len() == 16 {
            return;
        }
        let (salt, ticket) = (self.new_salt(), self.new_ticket());
        let content = server_bytes(salt, usize::from(bytes));
        let broadcast = Broadcast { ticket, bytes: content, pace_per_s, prefix, expires_in_s };
        let id = match self.perform(|shard, now| shard.broadcast(now, &broadcast)) {
            Some(result) => result.ok(),
            // The process has died and could not say; jobs are numbered from 1.
            None => Some(JobId(self.jobs.len() as u64 + 1)).filter(|&id| self.shard().job(id).is_some()),
        };
        if let Some(id) = id {
            self.add_job(id, Pushed::new(ticket, u32::from(bytes), salt));
        }
    }

    fn cancel(&mut self, job: u8) {
        let Some(id) = self.jobs.get(usize::from(job) % self.jobs.len().max(1)).map(|job| job.id) else { return };
        self.perform(|shard, now| shard.cancel_job(now, id));
    }

    pub fn tick(&mut self) {
        self.perform(|shard, now| shard.tick(now));
    }

    fn walk(&mut self, ms: u32) {
        let until = self.now.plus_ms(u64::from(ms));
        let mut is_again = 0;
        for _ in 0..WALK_STEPS {
            let Some(due) = self.shard().next_deadline().filter(|due| *due <= until) else { break };
            is_again = if due <= self.now { is_again + 1 } else { 0 };
            if is_again > 20 {
                self.fail("the shard wants to be ticked again and again");
            }
            self.now = self.now.max(due);
            self.tick();
        }
        self.now = until;
        self.tick();
    }

    pub fn close(&mut self, target: Target, how: CloseHow) {
        let id = self.id_of(target);
        self.close_id(id, how);
    }

    /// Closes by id, and checks what is answered.
    pub fn close_id(&mut self, id: FlowId, how: CloseHow) -> Option<Result<(), PushError>> {
        // Noted before what is told of it is read.
        let was_asked = self.books.iter_mut().find(|book| book.id == id).map(|book| {
            let was_asked = book.is_close_asked;
            book.is_close_asked |= how == CloseHow::Fin;
            (was_asked, book.is_blurred)
        });
        let result = self.perform(|shard, now| shard.close(now, id, how));
        match (result, was_asked) {
            (Some(Err(error)), Some((false, false))) => self.fail(&format!("a close is refused: {error:?}")),
            (Some(Err(error)), Some(_)) if how == CloseHow::Reset => self.fail(&format!("not aborted: {error:?}")),
            (result, _) => result,
        }
    }

    fn set_paused(&mut self, target: Target, is_paused: bool) {
        let id = self.id_of(target);
        let book = self.books.iter_mut().find(|book| book.id == id);
        let is_open = book.map(|book| book.is_paused = is_paused).is_some();
        let result = match is_paused {
            true => self.perform(|shard, now| shard.pause(now, id)),
            false => self.perform(|shard, now| shard.resume(now, id)),
        };
        if is_open && matches!(result, Some(Err(_))) {
            self.fail("an open connection is not to be paused or resumed");
        }
    }

    /// Something that is no good segment.
    fn throw(&mut self, peer: u8, kind: u8, byte: u8) {
        let ends = ends_of_peer(peer);
        match kind % 8 {
            0 => self.write(|out| frame::write_arp(out, &ends, byte & 1 == 0, LOCALS[usize::from(byte >> 1 & 1)])),
            1 => self.write(|out| frame::write_arp(out, &ends, true, [10, 0, 0, byte])),
            2 => {
                let gateway = Ends { remote: GATEWAY, ..ends };
                self.write(|out| frame::write_arp(out, &gateway, false, LOCALS[0]));
            }
            3 => {
                let local = if byte & 0x80 == 0 { ends.local } else { [10, 0, 0, 77] };
                let remote = if byte & 0x40 == 0 { ends.remote } else { LOCALS[0] };
                self.ping(&Ends { local, remote, ..ends }, if byte & 0x20 == 0 { 8 } else { byte & 0x0f });
            }
            4 => {
                let ends = Ends { local_port: CLOSED_PORT, ..ends };
                let wire = self.wire_of(&ends);
                let aim = Aim { near: 6, beside: 5 };
                let seq = self.aimed_seq(wire, aim);
                let segment = Segment { seq, ack: 77, control: byte & 0x3f, window: 9, options: &[], payload: b"x" };
                self.write(|out| frame::write_segment(out, &ends, &segment));
            }
            _ => self.throw_broken(&ends, kind, byte),
        }
        self.deliver();
    }

    fn ping(&mut self, ends: &Ends, kind: u8) {
        self.write(|out| {
            let start = out.len();
            frame::write_headers(out, ends, 1, 12);
            out.extend_from_slice(&[kind, 0, 0, 0, 0, 1, 0, 1, 9, 9, 9, 9]);
            frame::repair_checksums(&mut out[start..]);
        });
    }

    /// A segment that would be taken, but for one bit of its headers or its length. It carries nothing: under another
    /// number it would be something else than the peer's bytes.
    fn throw_broken(&mut self, ends: &Ends, kind: u8, byte: u8) {
        let wire = self.wire_of(ends);
        let talk = self.wires[wire].talk;
        let (seq, ack) = talk.map_or((1, 1), |talk| (talk.rcv_nxt, talk.snd_nxt));
        let segment = Segment { seq, ack, control: ACK, window: 500, options: &[], payload: &[] };
        self.write(|out| {
            let start = out.len();
            frame::write_segment(out, ends, &segment);
            let bytes = out.len() - start;
            let at = start + usize::from(byte) % bytes;
            match kind % 8 {
                5 => out.truncate(at),
                6 => out[at] ^= 1 << (kind >> 5),
                _ => {
                    out[at] ^= 1 << (kind >> 5);
                    frame::repair_checksums(&mut out[start..]);
                }
            }
        });
    }

    /// Moves the clock on and lets the shard see it.
    pub fn wait(&mut self, now: Time) {
        self.now = now;
        self.tick();
    }
}
