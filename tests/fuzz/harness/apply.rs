//! Operations as calls of a shard.

use std::net::SocketAddr;

use holdline::shard::{Broadcast, CloseHow, FlowId, JobId, Push, PushError, Ticket, Time};

use super::book::{Pushed, server_bytes};
use super::death::Death;
use super::frame::{self, ACK, FIN};
use super::look;
use super::operation::{Operation, Target};
use super::peers::ends_of_peer;
use super::world::World;

const PREFIXES: [&[u8]; 3] = [b"", b"n", b"n1"];
/// Deadlines that one walk ticks at.
const WALK_STEPS: u32 = 24;

impl World {
    /// Does it, and looks at what became of it.
    pub fn apply(&mut self, operation: &Operation) {
        self.steps += 1;
        match *operation {
            Operation::Shoot(shot) => self.shoot(&shot),
            Operation::Connect { peer, options, window } => self.connect(peer, options, window),
            Operation::Say { peer, bytes, window } => self.say(peer, bytes, ACK, window),
            Operation::Acknowledge { peer, window } => self.say(peer, 0, ACK, window),
            Operation::Select { peer, ack, count, ref blocks, window } => {
                self.select(peer, ack, &blocks[..usize::from(count)], window);
            }
            Operation::Skip { peer, is_held, has_fin, has_ack, gap_bytes, bytes, window } => {
                let control = if has_fin { ACK | FIN } else { ACK };
                self.skip(peer, control, has_ack, gap_bytes, (bytes, window));
                if !is_held || self.going_count() >= 16 {
                    self.deliver();
                }
            }
            Operation::Finish { peer } => self.say(peer, 0, ACK | FIN, 65_535),
            Operation::Push { target, bytes, expires_in_s, key, is_urgent } => {
                self.push(target, bytes, expires_in_s, key, is_urgent);
            }
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
            Operation::Call { peer, has_any_port, is_silent } => self.call(peer, has_any_port, is_silent),
            Operation::Answer { is_simultaneous, options } => self.answer(is_simultaneous, options),
            Operation::Close(target) => self.close(target, CloseHow::Fin),
            Operation::CloseHalf(target) => self.close(target, CloseHow::Half),
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
            Operation::Trouble { peer, kind, code, mtu, ack } => self.trouble(peer, (kind, code, mtu), ack),
            Operation::Junk { peer, kind, byte } => self.throw(peer, kind, byte),
        }
    }

    /// The stack opens a connection. The peer says where it is, unless it is silent.
    fn call(&mut self, peer: u8, has_any_port: bool, is_silent: bool) {
        let ends = ends_of_peer(peer);
        let remote = SocketAddr::new(self.family.on_wire(ends.remote), ends.remote_port);
        let (local, port) =
            if has_any_port { (None, 0) } else { (Some(self.family.on_wire(ends.local)), ends.local_port) };
        if !has_any_port {
            // Before the SYN leaves with the call.
            let wire = self.wire_of(&ends);
            self.wires[wire].is_called = true;
        }
        self.is_calling_from_any = has_any_port;
        let result = self.perform(|shard, now| shard.connect(now, local, port, remote));
        self.is_calling_from_any = false;
        let Some(Ok(id)) = result else { return };
        let now = self.now;
        let Some(view) = self.shard().flow(now, id) else { self.fail("a connection is begun and is not there") };
        let wire = self.wire_of(&look::ends_of(view.local, view.remote));
        self.wires[wire].is_called = true;
        self.called = Some((wire, ends.mac));
        self.calling.push(id);
        if !is_silent {
            let local = ends.local;
            self.write(|out| frame::write_arp(out, &ends, false, local));
            self.deliver();
        }
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

    fn push(&mut self, target: Target, bytes: u16, expires_in_s: u32, key: u8, is_urgent: bool) {
        let flow = self.id_of(target);
        let (salt, ticket) = (self.new_salt(), if key == 7 { Ticket::NONE } else { self.new_ticket() });
        let content = server_bytes(salt, usize::from(bytes));
        // Nothing is told of a push that expires and has no ticket.
        let is_uncertain = ticket == Ticket::NONE && expires_in_s > 0;
        self.offered.push((flow, Pushed { is_uncertain, ..Pushed::new(ticket, u32::from(bytes), salt) }));
        let key = (1..7).contains(&key).then_some([key; 16]);
        let push = Push { flow, ticket, bytes: content, key, expires_in_s, is_urgent };
        self.perform(|shard, now| shard.push(now, &[push]));
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
            book.is_close_asked |= how != CloseHow::Reset;
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

    /// Moves the clock on and lets the shard see it.
    pub fn wait(&mut self, now: Time) {
        self.now = now;
        self.tick();
    }
}
