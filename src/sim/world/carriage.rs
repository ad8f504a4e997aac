//! The way between the machines: arrivals, middleboxes, cables, and the node while it does nothing.
//!
//! Invariant: the wiretap sees what a client sends behind its middlebox, and what the node sends before it: what is
//! said to the node, and by it.

use super::super::fault::Fault;
use super::super::middlebox::Direction;
use super::super::network::Port;
use super::super::report::Breach;
use super::super::wiretap::{self, Segment};
use super::World;

impl World {
    /// Frames that have arrived go to whom they are for.
    pub(super) fn deliver(&mut self) -> Result<(), Breach> {
        while let Some((port, frame)) = self.network.take_due(self.now_us) {
            let is_there = match port {
                Port::Node => self.node.is_up(),
                Port::Client(index) => !self.is_unplugged(index),
            };
            if !is_there {
                self.statistics.count(Fault::Lost);
                continue;
            }
            match port {
                Port::Node if !self.is_healed && self.inbox.len() >= self.parameters.node.ring_frames => {
                    self.statistics.count(Fault::RingFull);
                }
                Port::Node => {
                    self.trace.frame(self.now_us, "arrives", &frame);
                    self.inbox.push(frame);
                    self.inbox_due_us.get_or_insert(self.now_us + self.parameters.node.gather_us);
                }
                Port::Client(index) => {
                    self.clients[index].arrive(frame);
                    self.are_called[index] = true;
                }
            }
        }
        self.release_acks();
        Ok(())
    }

    fn release_acks(&mut self) {
        for index in 0..self.middleboxes.len() {
            while let Some((direction, frame)) =
                self.middleboxes[index].as_mut().and_then(|middlebox| middlebox.release(self.now_us))
            {
                self.carry_on(index, direction, &frame);
            }
        }
    }

    /// A client sends a frame.
    pub(super) fn carry_from_client(&mut self, index: usize, frame: Vec<u8>) {
        self.trace.frame(self.now_us, "client", &frame);
        let direction = Direction::ToNode;
        let passed = match &mut self.middleboxes[index] {
            Some(middlebox) => middlebox.pass(self.now_us, direction, frame, &mut self.statistics),
            None => Some(frame),
        };
        if let Some(frame) = passed {
            self.carry_on(index, direction, &frame);
        }
    }

    /// The node sends a frame, which is to this client or to all.
    pub(super) fn carry_from_node(&mut self, index: Option<usize>, frame: &[u8]) {
        let direction = Direction::ToClient;
        let Some(index) = index else {
            return self.network.send(self.now_us, Port::Node, frame, &mut self.statistics);
        };
        let passed = match &mut self.middleboxes[index] {
            Some(middlebox) => middlebox.pass(self.now_us, direction, frame.to_vec(), &mut self.statistics),
            None => return self.carry_on(index, direction, frame),
        };
        if let Some(frame) = passed {
            self.carry_on(index, direction, &frame);
        }
    }

    /// A frame has passed the middlebox.
    fn carry_on(&mut self, index: usize, direction: Direction, frame: &[u8]) {
        if direction == Direction::ToClient {
            return self.network.send(self.now_us, Port::Node, frame, &mut self.statistics);
        }
        if let Some(segment) = wiretap::from_client(frame)
            && let Some(number) = self.sender_of(&segment)
        {
            self.wiretaps[number].on_client(&segment);
        }
        if self.is_unplugged(index) {
            self.statistics.count(Fault::Lost);
        } else {
            self.network.send(self.now_us, Port::Client(index), frame, &mut self.statistics);
        }
    }

    /// The connection that a client's segment belongs to. One that has its port from another begins with its SYN, which
    /// may overtake what the other has sent: that is told by its numbers. Where they may be of both, the segment is the
    /// later one's.
    fn sender_of(&self, segment: &Segment<'_>) -> Option<usize> {
        let begun = (0..self.ledgers.len())
            .filter(|&number| self.ledgers[number].remote == segment.client && self.ledgers[number].is_begun);
        match segment.is_syn() {
            true => begun.max(),
            false => begun.min_by_key(|&number| (self.wiretaps[number].distance(segment), std::cmp::Reverse(number))),
        }
    }

    /// Whether the client's cable is pulled now.
    pub(super) fn is_unplugged(&self, index: usize) -> bool {
        match self.parameters.clients[index].unplugged_us {
            Some((from_us, None)) => self.now_us >= from_us,
            Some((from_us, Some(until_us))) => !self.is_healed && (from_us..until_us).contains(&self.now_us),
            None => false,
        }
    }

    /// Whether the client is gone for good.
    pub(super) fn has_vanished(&self, index: usize) -> bool {
        matches!(self.parameters.clients[index].unplugged_us, Some((from_us, None)) if self.now_us >= from_us)
    }

    pub(super) fn note_vanished(&mut self) {
        for number in 0..self.ledgers.len() {
            self.ledgers[number].is_vanished = self.has_vanished(self.seats[number].0);
        }
    }

    /// Until when the node does nothing, if it does nothing at this time.
    pub(super) fn pause_end_us(&self, at_us: u64) -> Option<u64> {
        let pauses_us = &self.parameters.node.pauses_us;
        pauses_us
            .iter()
            .find(|&&(from_us, until_us)| (from_us..until_us).contains(&at_us))
            .map(|&(_, until_us)| until_us)
    }

    /// Counts the times at which the node or its clock stood still.
    pub(super) fn count_gaps(&mut self) {
        let node = &self.parameters.node;
        let gaps = [(Fault::ClockStopped, &node.clock_stops_us), (Fault::Paused, &node.pauses_us)];
        for (fault, gaps_us) in gaps {
            let count = gaps_us.iter().filter(|&&(from_us, _)| from_us <= self.now_us).count();
            self.statistics.faults[fault as usize] += count as u64;
        }
    }
}
