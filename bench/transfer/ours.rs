//! Holdline's end: a server with a service that sends or receives one stream.

use std::sync::Arc;

use holdline::link::{MemoryLink, memory_pair};
use holdline::server::{Options, Server};
use holdline::service::{Context, Service};
use holdline::shard::{Capacity, CloseHow, Config, FlowId, Storage, Ticket};

use super::{CHUNK_BYTES, Course, Direction, PORT, Progress, SERVER};

/// A server that runs.
pub struct Started(Server);

/// Starts holdline on a cable in memory; returns the other end.
pub fn start(course: &Course, progress: &Arc<Progress>) -> (Started, MemoryLink) {
    let (end, other) = memory_pair(1_500, 1 << 16).expect("there are descriptors");
    let mut config = Config::new(SERVER, 24, &[PORT]);
    config.window_bytes = course.buffer_bytes as u32;
    config.send_queue_bytes = course.buffer_bytes as u32;
    let storage = Storage::in_memory(Capacity::for_connections(1_024)).expect("there is address space");
    let service = Stream { progress: Arc::clone(progress) };
    let options = Options { notices_max: 0, ..Options::default() };
    let server = Server::start(config, storage, Box::new(end), Box::new(service), options).expect("it starts");
    (Started(server), other)
}

impl Started {
    /// Stops it; what it has to say.
    pub fn stop(self) -> String {
        let summary = self.0.stop().expect("its link stays");
        format!("{} passes, {} frames lost", summary.passes, summary.frames_lost)
    }
}

/// One stream, either way.
struct Stream {
    progress: Arc<Progress>,
}

impl Stream {
    /// Fills the send queue; closes at the end of the stream.
    fn fill(&self, context: &mut Context<'_>, flow: FlowId) {
        while context.push_room(flow) >= CHUNK_BYTES {
            let chunk = self.progress.next_to_send();
            if chunk.is_empty() {
                // A flow that is gone is closed already.
                let _ = context.close(flow, CloseHow::Fin);
                return;
            }
            if context.push(flow, chunk).is_err() {
                return;
            }
            self.progress.note_sent(chunk.len());
        }
    }
}

impl Service for Stream {
    fn opened(&mut self, context: &mut Context<'_>, flow: FlowId) {
        if self.progress.direction == Direction::Down {
            self.fill(context, flow);
        }
    }

    fn received(&mut self, _context: &mut Context<'_>, _flow: FlowId, bytes: &[u8]) -> usize {
        self.progress.note_received(bytes);
        bytes.len()
    }

    fn delivered(&mut self, context: &mut Context<'_>, flow: FlowId, _ticket: Ticket) {
        self.fill(context, flow);
    }
}
