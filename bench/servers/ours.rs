//! The server on a shard.

use std::time::{Duration, Instant};

use holdline::service::Hold;
use holdline::shard::{Capacity, Config, FlowId, Push, Shard, Storage, Ticket, Time};

use super::frames::{Frames, MAC, OURS, PORT};
use super::{PAYLOAD, Server};

/// See the module.
pub struct Ours {
    shard: Shard<Hold>,
    now: Time,
}

impl Ours {
    /// With room for so many connections.
    pub fn start(connections: u32) -> Ours {
        let config = Config { mac: MAC, ..Config::new(OURS, 8, &[PORT]) };
        let storage = Storage::in_memory(Capacity::for_connections(connections)).expect("address space");
        Ours { shard: Shard::new(config, storage, Hold, [7; 32], Time(1)).expect("shard"), now: Time(1) }
    }

    fn timed(&mut self, sent: &mut Frames, run: impl FnOnce(&mut Shard<Hold>, Time)) -> Duration {
        let began = Instant::now();
        run(&mut self.shard, self.now);
        self.shard.tick(self.now);
        self.shard.transmit(|frame| {
            sent.add(|out| out.extend_from_slice(frame));
            true
        });
        let took = began.elapsed();
        self.shard.drain_notices(drop);
        self.now = Time(self.now.0 + 50);
        took
    }
}

impl Server for Ours {
    fn receive(&mut self, frames: &Frames, sent: &mut Frames) -> Duration {
        let frames: Vec<&[u8]> = frames.iter().collect();
        self.timed(sent, |shard, now| shard.receive(now, &frames))
    }

    fn push(&mut self, connections: &[u32], sent: &mut Frames) -> Duration {
        let to_push = |&slot: &u32| Push::new(FlowId::new(0, 0, slot), Ticket(1), &PAYLOAD);
        let pushes: Vec<Push<'_>> = connections.iter().map(to_push).collect();
        self.timed(sent, |shard, now| shard.push(now, &pushes))
    }

    fn process(&self) -> u32 {
        std::process::id()
    }
}
