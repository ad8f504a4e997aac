//! World: one shard, its peers, and an oracle that looks at everything after each step.

use holdline::shard::{Config, FlowId, JobId, JobState, Notice, Rule, RuleSet, Shard, Storage, Ticket, Time};
use holdline::tcp::Flow;
use strum::IntoEnumIterator;

use super::application::Application;
use super::book::{Book, Pushed};
use super::cut::Cut;
use super::death::Death;
use super::frame::{self, Came, Ends, RST};
use super::heal::Heard;
use super::look::ends_of;
use super::profile::Profile;
use super::translate::{self, Family};
use super::wire::Wire;

pub(super) const SECRET: [u8; 32] = [7; 32];
const _: () = assert!(size_of::<Flow>() == 64, "a flow stays one cache line");

/// A broadcast that was started.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    pub id: JobId,
    pub pushed: Pushed,
    cursor: u32,
    is_over: bool,
}

/// See the module.
pub struct World {
    pub(super) shard: Option<Shard<Application>>,
    pub(super) config: Config,
    pub family: Family,
    pub start: Time,
    pub now: Time,
    /// How many operations were begun.
    pub steps: u32,
    pub wires: Vec<Wire>,
    pub books: Vec<Book>,
    pub jobs: Vec<Running>,
    /// Connections that the stack was asked to open, until they are.
    pub calling: Vec<FlowId>,
    /// The wire of the last of them, and where its peer is.
    pub called: Option<(usize, [u8; 6])>,
    /// The stack picks a port, so that what comes out may have ends that nobody knows yet.
    pub is_calling_from_any: bool,
    /// Pushes that are on their way in.
    pub offered: Vec<(FlowId, Pushed)>,
    /// Frames that go in together.
    pub(super) going: Vec<u8>,
    pub(super) going_ends: Vec<usize>,
    /// The same as they are on the wire, where that is IPv6.
    translated: Vec<u8>,
    pub(super) is_all_resets: bool,
    pub(super) macs: Vec<[u8; 6]>,
    pub(super) came: Vec<u8>,
    pub(super) came_ends: Vec<usize>,
    notices: Vec<Notice>,
    pub death: Option<Death>,
    last_ticket: u64,
    /// What peers have heard since they began to acknowledge nothing else.
    pub heard: Option<Vec<Heard>>,
    /// Peers send what `peer_bytes` says.
    pub is_true: bool,
    /// The next frame that goes in alone goes in as fragments.
    pub cut: Option<Cut>,
    /// Rules that were counted by processes that died.
    rules: RuleSet,
}

impl World {
    /// A world that has not begun.
    pub fn new(profile: &Profile, family: Family, storage: Storage, start: Time) -> World {
        let config = profile.config(family);
        let shard = Shard::new(config.clone(), storage, Application::default(), SECRET, start);
        World {
            shard: Some(shard.unwrap_or_else(|error| panic!("an empty shard starts: {error}"))),
            config,
            family,
            start,
            now: start,
            steps: 0,
            wires: Vec::with_capacity(16),
            books: Vec::with_capacity(16),
            jobs: Vec::new(),
            calling: Vec::new(),
            called: None,
            is_calling_from_any: false,
            offered: Vec::new(),
            going: Vec::with_capacity(4_096),
            going_ends: Vec::with_capacity(16),
            translated: Vec::new(),
            is_all_resets: true,
            macs: Vec::with_capacity(16),
            came: Vec::with_capacity(8_192),
            came_ends: Vec::with_capacity(16),
            notices: Vec::with_capacity(16),
            death: None,
            last_ticket: 0,
            heard: None,
            is_true: true,
            cut: None,
            rules: RuleSet::default(),
        }
    }

    pub fn shard(&mut self) -> &mut Shard<Application> {
        self.shard.as_mut().expect("there is a shard between deaths")
    }

    /// A ticket that was not used before.
    pub fn new_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// A salt that the last pushes did not have.
    pub fn new_salt(&mut self) -> u8 {
        let application = self.shard().service_mut();
        application.salt = application.salt.wrapping_add(1);
        application.salt
    }

    /// The number of the wire with these ends.
    pub fn wire_of(&mut self, ends: &Ends) -> usize {
        let ends = Ends { mac: [0; 6], ..*ends };
        let found = self.wires.iter().position(|wire| wire.ends == ends);
        found.unwrap_or_else(|| {
            let mut wire = Wire::new(ends);
            wire.is_over_ipv6 = self.family == Family::Ipv6;
            self.wires.push(wire);
            self.wires.len() - 1
        })
    }

    /// The open connection of a wire.
    pub fn book_of(&mut self, wire: usize) -> Option<&mut Book> {
        self.books.iter_mut().find(|book| book.peer == wire)
    }

    /// Writes a frame that goes in with the next `deliver`.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.going.len();
        write(&mut self.going);
        self.going_ends.push(self.going.len());
        let written = &self.going[start..];
        if let Some(mac) = written.get(6..12).and_then(|mac| <[u8; 6]>::try_from(mac).ok())
            && !self.macs.contains(&mac)
        {
            self.macs.push(mac);
        }
        let read = frame::read_going(written);
        self.is_all_resets &= read.is_some_and(|(_, segment)| segment.has(RST));
    }

    /// Gives the written frames to the shard in one batch.
    pub fn deliver(&mut self) {
        let going = std::mem::take(&mut self.going);
        let ends = std::mem::take(&mut self.going_ends);
        let mut frames: [&[u8]; 64] = [&[]; 64];
        let mut start = 0;
        for (place, &end) in frames.iter_mut().zip(&ends) {
            *place = &going[start..end];
            start = end;
            if let Some((ends, segment)) = frame::read_going(place) {
                let wire = self.wire_of(&ends);
                self.wires[wire].on_going(&segment);
            }
        }
        let count = ends.len().min(frames.len());
        let mut translated = std::mem::take(&mut self.translated);
        if self.family == Family::Ipv6 {
            translated.clear();
            let go = |frame: &&[u8]| {
                translate::going(frame, &mut translated);
                translated.len()
            };
            let ends: Vec<usize> = frames[..count].iter().map(go).collect();
            let mut start = 0;
            for (place, end) in frames.iter_mut().zip(ends) {
                *place = &translated[start..end];
                start = end;
            }
        }
        let has_only_resets = self.is_all_resets && count > 0;
        let mut pieces = Vec::new();
        let count = self.cut.take_if(|_| count == 1).map_or(count, |cut| cut.replace(&mut frames, &mut pieces));
        self.perform(|shard, now| shard.receive(now, &frames[..count]));
        let is_reset = |frame: &&[u8]| {
            matches!(frame::read_coming(frame, u16::MAX),
            Ok(Came::Tcp(_, segment)) if segment.has(RST))
        };
        if let Some(frame) = self.coming().find(|frame| has_only_resets && is_reset(frame)) {
            self.fail(&format!("an RST answers an RST: {frame:02x?}"));
        }
        (self.going, self.going_ends, self.translated) = (going, ends, translated);
        self.going.clear();
        self.going_ends.clear();
        self.is_all_resets = true;
    }

    /// The frames that came out of the last operation.
    fn coming(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.came_ends.iter().copied());
        starts.zip(&self.came_ends).map(|(start, &end)| &self.came[start..end])
    }

    /// Calls the shard, in which the process may die, and looks at what became of it. `None`: it died.
    pub fn perform<R>(&mut self, call: impl FnOnce(&mut Shard<Application>, Time) -> R) -> Option<R> {
        let now = self.now;
        let result = match self.death.take() {
            None => Some(call(self.shard(), now)),
            Some(death) => self.perform_dying(death, call),
        };
        self.settle();
        result
    }

    /// Takes up everything that an operation has led to, and checks it.
    pub(super) fn settle(&mut self) {
        let mut notices = std::mem::take(&mut self.notices);
        let (mut came, mut came_ends) = (std::mem::take(&mut self.came), std::mem::take(&mut self.came_ends));
        came.clear();
        came_ends.clear();
        let family = self.family;
        let shard = self.shard();
        shard.drain_notices(|notice| notices.push(notice));
        let mut wrong = None;
        shard.transmit(|frame| {
            let is_kept = match family {
                Family::Ipv4 => {
                    came.extend_from_slice(frame);
                    true
                }
                Family::Ipv6 => match translate::coming(frame, &mut came) {
                    Ok(translated) => translated.is_some(),
                    Err(what) => {
                        wrong = Some(format!("{what}: {frame:02x?}"));
                        false
                    }
                },
            };
            if is_kept {
                came_ends.push(came.len());
            }
            true
        });
        if let Some(wrong) = wrong {
            self.fail(&wrong);
        }
        (self.came, self.came_ends) = (came, came_ends);
        notices.iter().for_each(|notice| self.on_opened(notice));
        self.take_application();
        self.follow_jobs();
        for notice in notices.drain(..) {
            if let Err(what) = self.on_notice(&notice) {
                self.fail(&format!("{what}: {notice:?}"));
            }
        }
        self.notices = notices;
        self.offered.clear();
        self.read_coming();
        self.look();
    }

    fn on_opened(&mut self, notice: &Notice) {
        let Notice::Opened { flow, local, remote } = *notice else { return };
        let wire = self.wire_of(&ends_of(local, remote));
        let irs = self.wires[wire].on_opened();
        self.calling.retain(|&calling| calling != flow);
        if self.books.iter().any(|book| book.id == flow) {
            self.fail("a connection is opened twice");
        }
        let now = self.now;
        let mut book = Book::new(flow, wire, irs);
        // Whoever guesses the id of a half-open connection may pause it.
        book.is_paused = self.shard().flow(now, flow).is_some_and(|view| view.is_paused);
        if self.wires[wire].is_blurred {
            book.blur();
        }
        self.books.push(book);
    }

    /// What the application has done meanwhile.
    fn take_application(&mut self) {
        let application = self.shard.as_mut().expect("there is a shard between deaths").service_mut();
        for (id, pushed) in application.pushed.drain(..) {
            // A push to a connection that ended in the same batch has no book any more, and is told of all the same.
            if let Some(book) = self.books.iter_mut().find(|book| book.id == id) {
                book.pushes.push_back(pushed);
            }
        }
        for id in application.closed.drain(..) {
            if let Some(book) = self.books.iter_mut().find(|book| book.id == id) {
                book.is_close_asked = true;
            }
        }
    }

    /// Connections that broadcasts have passed meanwhile may have got a push.
    fn follow_jobs(&mut self) {
        for index in 0..self.jobs.len() {
            let job = self.jobs[index];
            if job.is_over {
                continue;
            }
            let Some(view) = self.shard().job(job.id) else { continue };
            if view.cursor < job.cursor {
                self.fail("a broadcast goes back");
            }
            let passed = job.cursor..view.cursor;
            self.jobs[index].cursor = view.cursor;
            self.jobs[index].is_over = view.state != JobState::Running;
            for book in self.books.iter_mut().filter(|book| passed.contains(&book.id.slot())) {
                book.pushes.push_back(Pushed { is_uncertain: true, ..job.pushed });
            }
        }
    }

    /// A broadcast was started.
    pub fn add_job(&mut self, id: JobId, pushed: Pushed) {
        self.jobs.push(Running { id, pushed, cursor: 0, is_over: false });
    }

    fn on_notice(&mut self, notice: &Notice) -> Result<(), &'static str> {
        let flow = match *notice {
            Notice::Opened { .. } => return Ok(()),
            Notice::Refused { .. } => return self.on_refused(notice),
            Notice::Queued { flow, .. }
            | Notice::Delivered { flow, .. }
            | Notice::Expired { flow, .. }
            | Notice::Undelivered { flow, .. }
            | Notice::Received { flow, .. }
            | Notice::Urgent { flow, .. }
            | Notice::SoftError { flow, .. }
            | Notice::PeerClosed { flow }
            | Notice::Closed { flow, .. } => flow,
        };
        let is_true = self.is_true;
        let position = self.books.iter().position(|book| book.id == flow);
        let Some(position) = position else {
            if let (Notice::SoftError { .. } | Notice::Closed { .. }, true) = (notice, self.calling.contains(&flow)) {
                self.calling.retain(|&calling| calling != flow || matches!(notice, Notice::SoftError { .. }));
                return Ok(());
            }
            // A push with a key that is known is answered whatever became of the connection.
            let is_repeated = matches!(notice, Notice::Queued { ticket, .. }
                if !self.offered.iter().any(|(_, pushed)| pushed.ticket == *ticket));
            return if is_repeated { Ok(()) } else { Err("something is told of a connection that is not open") };
        };
        let book = &mut self.books[position];
        match *notice {
            Notice::Opened { .. } | Notice::Refused { .. } | Notice::SoftError { .. } => Ok(()),
            Notice::Urgent { end, .. } => book.on_urgent(end),
            Notice::Queued { ticket, .. } => {
                // Not one of these: a push whose key is known, which is answered by the first one's ticket.
                let offered = self.offered.iter().find(|(id, pushed)| *id == flow && pushed.ticket == ticket);
                book.pushes.extend(offered.map(|&(_, pushed)| pushed));
                Ok(())
            }
            Notice::Delivered { ticket, .. } => {
                let talk = self.wires[book.peer].talk.filter(|_| !self.wires[book.peer].is_blurred);
                let acked_bytes = talk.map(|talk| talk.snd_una.wrapping_sub(talk.iss).wrapping_sub(1));
                book.on_delivered(ticket, acked_bytes)
            }
            Notice::Expired { ticket, .. } => book.on_expired(ticket),
            Notice::Undelivered { ticket, acked_bytes, .. } => book.on_undelivered(ticket, acked_bytes),
            Notice::Received { offset, ref bytes, .. } => book.on_received(offset, bytes, is_true),
            Notice::PeerClosed { .. } => book.on_peer_closed(),
            Notice::Closed { .. } => {
                let held = book.on_closed();
                self.books.remove(position);
                held
            }
        }
    }

    pub(super) fn note_rules(&mut self) {
        let shard = self.shard.as_ref().expect("there is a shard between deaths");
        for rule in Rule::iter().filter(|&rule| shard.rule_count(rule) > 0) {
            self.rules.insert(rule);
        }
    }

    /// The rules that have decided something.
    pub fn rules(&mut self) -> RuleSet {
        self.note_rules();
        self.rules
    }

    /// The shard's storage, to be used again.
    pub fn into_storage(self) -> Storage {
        self.shard.expect("there is a shard between deaths").into_storage()
    }

    pub fn fail(&self, what: &str) -> ! {
        panic!("{what} (in step {} at {} us)", self.steps, self.now.0);
    }
}
