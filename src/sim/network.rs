//! The network between the clients and the node: a switch whose links lose, double, delay, reorder and spoil frames.
//!
//! Frames come in with the time at which they were sent; `take_due` gives each copy that arrives, with the port it
//! arrives at. Ports are found by destination address, as in a switch that knows all of them.
//!
//! Invariant: what happens to a frame depends on the seed and the frames sent before it, on nothing else. Only what
//! a checksum covers is spoilt: the Ethernet header and ARP are guarded by the frame check sequence of a real wire.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::profile::NetworkParameters;
use super::report::Statistics;

/// The node's Ethernet address.
pub(super) const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A plug of the switch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Port {
    /// The machine under test.
    Node,
    /// The client of this index.
    Client(usize),
}

impl Port {
    /// The Ethernet address of who is plugged in there.
    pub(super) fn mac(self) -> [u8; 6] {
        match self {
            Port::Node => NODE_MAC,
            Port::Client(index) => [0x02, 0, 0, 0, 1, index as u8],
        }
    }
}

/// A frame under way: when it arrives, which of all frames it is, where, its bytes.
type UnderWay = (u64, u64, Port, Vec<u8>);

/// The switch and all frames under way.
pub(super) struct Network {
    parameters: NetworkParameters,
    random: Xoshiro256PlusPlus,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    sent_count: u64,
    client_count: usize,
    /// When the last frame that was not held back arrives at the node and at each client.
    last_arrival_us: Vec<u64>,
    is_healed: bool,
}

impl Network {
    /// A network for this many clients.
    pub(super) fn new(parameters: NetworkParameters, seed: u64, client_count: usize) -> Network {
        Network {
            parameters,
            random: Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b00),
            under_way: BinaryHeap::new(),
            sent_count: 0,
            client_count,
            last_arrival_us: vec![0; client_count + 1],
            is_healed: false,
        }
    }

    /// From now on frames are only delayed.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
    }

    /// When the next frame arrives.
    pub(super) fn next_arrival_us(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse((at_us, ..))| *at_us)
    }

    /// A frame that has arrived by `now_us`, and where.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<(Port, Vec<u8>)> {
        if self.next_arrival_us()? > now_us {
            return None;
        }
        self.under_way.pop().map(|Reverse((_, _, port, frame))| (port, frame))
    }

    /// Sends a frame from `from` to whom it is addressed to.
    pub(super) fn send(&mut self, now_us: u64, from: Port, frame: &[u8], statistics: &mut Statistics) {
        statistics.frames += 1;
        statistics.frame_bytes += frame.len() as u64;
        let Some(destination) = frame.get(..6) else { return };
        for index in 0..=self.client_count {
            let port = if index == 0 { Port::Node } else { Port::Client(index - 1) };
            if port != from && (destination == port.mac() || destination == [0xff; 6]) {
                self.carry(now_us, index, port, frame, statistics);
            }
        }
    }

    fn carry(&mut self, now_us: u64, index: usize, port: Port, frame: &[u8], statistics: &mut Statistics) {
        let is_parted = self.parameters.partitions_us.iter().any(|&(from, until)| (from..until).contains(&now_us));
        if !self.is_healed && (is_parted || self.strikes(self.parameters.loss)) {
            statistics.lost += 1;
            return;
        }
        let mut copies = 1;
        if self.strikes(self.parameters.duplication) {
            statistics.duplicated += 1;
            copies = 2;
        }
        for _ in 0..copies {
            let mut copy = frame.to_vec();
            if self.parameters.is_padded && copy.len() < 60 {
                copy.resize(60, 0);
            }
            if self.strikes(self.parameters.corruption) && self.corrupt(&mut copy, frame.len()) {
                statistics.corrupted += 1;
            }
            let (delay_us_min, delay_us_max) = self.parameters.delay_us;
            let mut at_us = now_us + self.random.random_range(delay_us_min..=delay_us_max);
            if self.strikes(self.parameters.reordering) {
                statistics.held_back += 1;
                at_us += self.random.random_range(1..=self.parameters.held_back_us_max);
            } else {
                at_us = at_us.max(self.last_arrival_us[index]);
                self.last_arrival_us[index] = at_us;
            }
            self.sent_count += 1;
            self.under_way.push(Reverse((at_us, self.sent_count, port, copy)));
        }
    }

    /// Flips one bit of the IPv4 packet in a frame of `bytes` without its padding.
    fn corrupt(&mut self, frame: &mut [u8], bytes: usize) -> bool {
        const HEADER_BYTES: usize = 14;
        if bytes <= HEADER_BYTES || frame[12..14] != [0x08, 0x00] {
            return false;
        }
        let bit = self.random.random_range(HEADER_BYTES * 8..bytes * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        true
    }

    fn strikes(&mut self, ten_thousandths: u32) -> bool {
        ten_thousandths > 0 && !self.is_healed && self.random.random_range(0..10_000) < ten_thousandths
    }
}
