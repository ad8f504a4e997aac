//! The application of a script: it does what the script says with what it is told, and checks every byte.

use std::collections::HashMap;

use holdline::flows::FlowId;
use holdline::shard::{CloseHow, Context, Service};

use super::script::{Behaviour, Wish};

/// Both directions of one connection, from their beginnings.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// How many bytes of the peer's stream were consumed.
    pub received_bytes: u32,
    /// What was queued for the peer.
    pub sent: Vec<u8>,
}

/// The application.
#[derive(Clone)]
pub struct Application {
    /// What it does with what it is told.
    pub behaviour: Behaviour,
    /// What it asks for a connection whenever it is told of one or of bytes.
    pub wishes: Vec<Wish>,
    /// Connections by their id; those that are over stay.
    pub streams: HashMap<FlowId, Streams>,
    /// What it was told and must not have been told.
    pub wrong: Vec<String>,
}

impl Application {
    /// An application that has been told nothing yet.
    pub fn new(behaviour: Behaviour) -> Application {
        Application { behaviour, wishes: Vec::new(), streams: HashMap::new(), wrong: Vec::new() }
    }

    /// The application with all that it remembers, taken out of here.
    pub fn taken(&mut self) -> Application {
        std::mem::replace(self, Application::new(Behaviour::Keep))
    }

    fn ask(&mut self, context: &mut Context<'_>, flow: FlowId) {
        for wish in &self.wishes {
            let result = match *wish {
                Wish::Nagle(has) => context.set_nagle(flow, has),
                Wish::Dscp(dscp) => context.set_dscp(flow, dscp),
                Wish::Keepalive(keepalive) => context.set_keepalive(flow, keepalive),
                Wish::UserTimeout(timeout) => context.set_user_timeout(flow, timeout),
            };
            if let Err(error) = result {
                self.wrong.push(format!("{wish:?} is not granted: {error}"));
            }
        }
    }
}

impl Service for Application {
    fn opened(&mut self, context: &mut Context<'_>, flow: FlowId) {
        self.ask(context, flow);
        if self.streams.insert(flow, Streams::default()).is_some() {
            self.wrong.push(format!("connection {flow} was opened twice"));
        }
    }

    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        self.ask(context, flow);
        let Some(streams) = self.streams.get_mut(&flow) else {
            self.wrong.push(format!("bytes arrived on connection {flow} that was never opened"));
            return 0;
        };
        let offset = streams.received_bytes;
        if let Some(at) = (0..bytes.len()).find(|at| bytes[*at] != client_byte(offset + *at as u32)) {
            self.wrong.push(format!("byte {} of the peer's stream is wrong", offset + at as u32));
        }
        let consumed = match self.behaviour {
            Behaviour::Hold | Behaviour::Keep => bytes.len(),
            Behaviour::Stall => 0,
            Behaviour::Echo => match context.push_room(flow).min(bytes.len()) {
                0 => 0,
                room if context.push(flow, &bytes[..room]).is_ok() => {
                    streams.sent.extend(&bytes[..room]);
                    room
                }
                _ => 0,
            },
        };
        streams.received_bytes += consumed as u32;
        consumed
    }

    fn peer_closed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        match self.behaviour {
            Behaviour::Keep | Behaviour::Stall => {}
            Behaviour::Hold | Behaviour::Echo => {
                if let Err(error) = context.close(flow, CloseHow::Fin) {
                    self.wrong.push(format!("a connection whose peer has closed cannot be closed: {error}"));
                }
            }
        }
    }
}

/// The byte at an offset of every client's stream.
pub fn client_byte(offset: u32) -> u8 {
    (offset.wrapping_mul(7).wrapping_add(3) % 251) as u8
}

/// The byte at an offset of what scripts push.
pub fn server_byte(offset: u32) -> u8 {
    (offset.wrapping_mul(11).wrapping_add(5) % 241) as u8
}
