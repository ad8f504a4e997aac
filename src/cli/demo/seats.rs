//! What the demo knows of each connection: who it is, and whether a push to it is under way.
//!
//! One seat for each slot of the shard's table. All of it is allocated and touched before the first measurement of
//! memory, so that it is no part of what a connection costs.

use holdline::shard::FlowId;

use super::payload::Payload;

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Its id.
    pub flow: FlowId,
    /// What is pushed to it.
    pub payload: Payload,
    /// When the push that is under way was handed over, in microseconds since the demo began.
    pub pushed_at_us: u64,
    /// How it stands.
    pub state: SeatState,
}

/// How a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeatState {
    /// There is none.
    Empty,
    /// Established, and no push is under way.
    Quiet,
    /// A push is under way.
    Pushed,
}

/// All connections.
pub struct Seats {
    seats: Vec<Seat>,
    order: Vec<u32>,
    taken: usize,
}

impl Seats {
    /// Room for slots up to `slots` and for `clients` connections over the whole time.
    pub fn new(slots: u32, clients: u32) -> Seats {
        let nobody =
            Seat { flow: FlowId::new(0, 0, 0), payload: Payload::shared(), pushed_at_us: 0, state: SeatState::Empty };
        Seats { seats: vec![nobody; slots as usize], order: vec![u32::MAX; clients as usize], taken: 0 }
    }

    /// Seats a new connection. False: there is no such slot, or more connections than clients.
    pub fn open(&mut self, flow: FlowId, payload: Payload) -> bool {
        let (Some(seat), Some(place)) = (self.seats.get_mut(flow.slot() as usize), self.order.get_mut(self.taken))
        else {
            return false;
        };
        *seat = Seat { flow, payload, pushed_at_us: 0, state: SeatState::Quiet };
        *place = flow.slot();
        self.taken += 1;
        true
    }

    /// The seat of a connection that is there.
    pub fn seat(&mut self, flow: FlowId) -> Option<&mut Seat> {
        let seat = self.seats.get_mut(flow.slot() as usize)?;
        (seat.state != SeatState::Empty && seat.flow == flow).then_some(seat)
    }

    /// The connection that was the `index`th to open, if it is still there.
    pub fn nth(&self, index: usize) -> Option<Seat> {
        let slot = *self.order[..self.taken].get(index)?;
        let seat = self.seats[slot as usize];
        (seat.state != SeatState::Empty).then_some(seat)
    }

    /// How many connections have opened.
    pub fn opened(&self) -> usize {
        self.taken
    }
}
