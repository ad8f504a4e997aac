//! Application: what the shard serves, as unruly as it may be.
//!
//! It remembers what it queued and closed in the operation under way, for the books.

use holdline::shard::{CloseHow, CloseReason, Context, FlowId, Keepalive, Service, Ticket, UserTimeout};

use super::book::{Pushed, server_bytes};

/// What the application does with what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Behaviour {
    /// Consumes everything; closes when the peer has closed.
    #[default]
    Hold,
    /// Consumes everything and never closes.
    Keep,
    /// Consumes nothing.
    Stall,
    /// Consumes half of what it is offered.
    Half,
    /// Pushes as much as it was offered.
    Answer,
    /// Pushes when a connection opens, and again whenever something was delivered.
    Pump,
    /// Closes at the first byte.
    CloseOnData,
    /// Aborts at the first byte.
    AbortOnData,
    /// Aborts when a connection opens.
    AbortOnOpen,
    /// Attaches a name, and a word that counts the bytes.
    Attach,
    /// Does to every connection that ends what can be done to one that lives.
    Meddle,
    /// Asks for something else than the configuration says, for each connection otherwise.
    Tune,
    /// Pushes urgent bytes when it is told of some, or of any bytes.
    Shout,
    /// Closes at the first byte, and reads on.
    HalfClose,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Application {
    pub behaviour: Behaviour,
    /// What was queued in this operation.
    pub pushed: Vec<(FlowId, Pushed)>,
    /// What was closed in this operation.
    pub closed: Vec<FlowId>,
    /// Differs between pushes that follow each other.
    pub salt: u8,
}

const ANSWER_BYTES_MAX: usize = 3_000;

impl Application {
    fn tune(context: &mut Context<'_>, flow: FlowId) {
        let choice = flow.slot() as usize + flow.generation() as usize;
        let timeouts = [UserTimeout::Never, UserTimeout::Seconds(16), UserTimeout::Default];
        let keepalives = [Keepalive::On, Keepalive::Off];
        let results = [
            context.set_nagle(flow, choice & 1 == 0),
            context.set_dscp(flow, choice as u8),
            context.set_keepalive(flow, keepalives[choice % keepalives.len()]),
            context.set_user_timeout(flow, timeouts[choice % timeouts.len()]),
        ];
        assert_eq!(results, [Ok(()); 4], "an open connection can be tuned");
    }

    fn push(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: usize) -> usize {
        let room = context.push_room(flow).min(bytes).min(ANSWER_BYTES_MAX);
        if room == 0 {
            return 0;
        }
        self.salt = self.salt.wrapping_add(1);
        let content = server_bytes(self.salt, room);
        let pushed = match self.behaviour {
            Behaviour::Shout => context.push_urgent(flow, content),
            _ => context.push(flow, content),
        };
        let ticket = pushed.unwrap_or_else(|error| panic!("no more was pushed than there is room for: {error}"));
        self.pushed.push((flow, Pushed::new(ticket, room as u32, self.salt)));
        room
    }

    fn close(&mut self, context: &mut Context<'_>, flow: FlowId, how: CloseHow) {
        if context.close(flow, how).is_ok() {
            self.closed.push(flow);
        }
    }
}

impl Service for Application {
    fn opened(&mut self, context: &mut Context<'_>, flow: FlowId) {
        match self.behaviour {
            Behaviour::Pump => _ = self.push(context, flow, 700),
            Behaviour::Tune => Application::tune(context, flow),
            Behaviour::AbortOnOpen => self.close(context, flow, CloseHow::Reset),
            Behaviour::Attach => {
                let name = [b'n', b'0' + (flow.slot() & 7) as u8, b'x'];
                context.set_name(flow, &name).expect("an open connection takes a name");
            }
            _ => {}
        }
    }

    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        match self.behaviour {
            Behaviour::Stall => return 0,
            Behaviour::Half => return bytes.len() / 2,
            Behaviour::Answer => return self.push(context, flow, bytes.len()),
            Behaviour::Shout => _ = self.push(context, flow, 1),
            Behaviour::HalfClose => self.close(context, flow, CloseHow::Half),
            Behaviour::CloseOnData => self.close(context, flow, CloseHow::Fin),
            Behaviour::AbortOnData => self.close(context, flow, CloseHow::Reset),
            Behaviour::Attach => {
                let word = context.word(flow).expect("a connection that receives is there");
                context.set_word(flow, word + bytes.len() as u64);
            }
            _ => {}
        }
        bytes.len()
    }

    fn delivered(&mut self, context: &mut Context<'_>, flow: FlowId, _ticket: Ticket) {
        if self.behaviour == Behaviour::Pump {
            self.push(context, flow, 300);
        }
    }

    fn urgent(&mut self, context: &mut Context<'_>, flow: FlowId, _end: u32) {
        if self.behaviour == Behaviour::Shout {
            self.push(context, flow, 3);
        }
    }

    fn peer_closed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        if !matches!(self.behaviour, Behaviour::Keep | Behaviour::Stall) {
            self.close(context, flow, CloseHow::Fin);
        }
    }

    fn closed(&mut self, context: &mut Context<'_>, flow: FlowId, _reason: CloseReason) {
        if self.behaviour == Behaviour::Meddle {
            // None of it has an effect, and nothing of it may stay behind.
            let _ = context.push(flow, b"too late");
            let _ = context.close(flow, CloseHow::Fin);
            let _ = context.close(flow, CloseHow::Reset);
            let _ = context.set_name(flow, b"late");
            context.set_word(flow, 7);
        }
    }
}
