//! The network between the clients and the node: a switch whose links lose, double, delay, reorder and spoil frames.
//!
//! Each way is treated by itself.
//!
//! Frames come in with the time at which they were sent; `take_due` gives each copy that arrives, with the port it
//! arrives at. Ports are found by destination address, as in a switch that knows all of them; what is to many goes to
//! all.
//!
//! Any bit of an IP packet may be spoilt. Over IPv6 no checksum covers the traffic class, the flow label and the hop
//! limit: what is spoilt there arrives as it is and has to do no harm, as a mark of congestion does none that nobody
//! has set. The next header is not covered either where it names something else than was sent: who gets such a packet
//! tells the sender, and nobody minds.
//!
//! Invariant: what happens to a frame depends on the seed and the frames sent before it, on nothing else. The Ethernet
//! header and ARP are not spoilt: the frame check sequence of a real wire guards them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::fault::Fault;
use super::frame::{Family, IP, family};
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
    fn of(index: usize) -> Port {
        if index == 0 { Port::Node } else { Port::Client(index - 1) }
    }

    /// The Ethernet address of who is plugged in there.
    pub(super) fn mac(self) -> [u8; 6] {
        match self {
            Port::Node => NODE_MAC,
            Port::Client(index) => [0x02, 0, 0, 0, 1, index as u8],
        }
    }
}

/// What every link of IPv6 takes (RFC 8200 §5).
const MTU_MIN_IPV6: u16 = 1_280;
/// How long a row of lost frames lasts at most.
const BURST_US_MAX: u64 = 5_000_000;
/// How long a frame waits at most for later ones to overtake it.
const OVERTAKEN_US_MAX: u64 = 400_000;

/// A frame under way: when it arrives, which of all frames it is, where, its bytes.
type UnderWay = (u64, u64, Port, Vec<u8>);

/// The switch and all frames under way.
pub(super) struct Network {
    parameters: NetworkParameters,
    random: Xoshiro256PlusPlus,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    sent_count: u64,
    client_count: usize,
    links: Vec<Link>,
    is_healed: bool,
}

/// The way to the node, or to a client.
#[derive(Clone, Default)]
struct Link {
    /// When the last frame that was not held back arrives.
    last_arrival_us: u64,
    /// How many frames in a row are still to be lost.
    burst_frames: u32,
    /// When the row ends, however many were sent by then.
    burst_until_us: u64,
    /// Frames that wait for later ones to overtake them.
    overtaken: Vec<Overtaken>,
}

#[derive(Clone)]
struct Overtaken {
    /// How many later ones still.
    frames: u32,
    /// It waits no longer than this.
    until_us: u64,
    frame: Vec<u8>,
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
            links: vec![Link::default(); client_count + 1],
            is_healed: false,
        }
    }

    /// From now on frames are only delayed.
    pub(super) fn heal(&mut self, now_us: u64) {
        self.is_healed = true;
        for held in self.links.iter_mut().flat_map(|link| &mut link.overtaken) {
            held.until_us = now_us;
        }
    }

    /// When the next frame arrives.
    pub(super) fn next_arrival_us(&self) -> Option<u64> {
        let under_way_us = self.under_way.peek().map(|Reverse((at_us, ..))| *at_us);
        let held_us = self.links.iter().flat_map(|link| &link.overtaken).map(|held| held.until_us);
        held_us.chain(under_way_us).min()
    }

    /// A frame that has arrived by `now_us`, and where.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<(Port, Vec<u8>)> {
        if self.next_arrival_us()? > now_us {
            return None;
        }
        for (index, link) in self.links.iter_mut().enumerate() {
            if let Some(position) = link.overtaken.iter().position(|held| held.until_us <= now_us) {
                return Some((Port::of(index), link.overtaken.remove(position).frame));
            }
        }
        self.under_way.pop().map(|Reverse((_, _, port, frame))| (port, frame))
    }

    /// Sends a frame from `from` to whom it is addressed to.
    pub(super) fn send(&mut self, now_us: u64, from: Port, frame: &[u8], statistics: &mut Statistics) {
        statistics.frames += 1;
        statistics.frame_bytes += frame.len() as u64;
        let Some(destination) = frame.get(..6) else { return };
        for index in 0..=self.client_count {
            let port = Port::of(index);
            if port != from && (destination == port.mac() || destination[0] & 1 == 1) {
                self.carry(now_us, index, frame, statistics);
            }
        }
    }

    fn carry(&mut self, now_us: u64, index: usize, frame: &[u8], statistics: &mut Statistics) {
        if let Some(fault) = self.swallows(now_us, index, frame) {
            statistics.count(fault);
            return;
        }
        let mut copies = 1;
        if self.strikes(self.parameters.duplication) {
            statistics.count(Fault::Duplicated);
            copies = 2;
        }
        for _ in 0..copies {
            let mut copy = frame.to_vec();
            if self.parameters.is_padded && copy.len() < 60 {
                copy.resize(60, 0);
            }
            if self.strikes(self.parameters.corruption) && self.corrupt(&mut copy, frame.len()) {
                statistics.count(Fault::Corrupted);
            }
            let (delay_us_min, delay_us_max) = self.parameters.delay_us;
            let mut at_us = now_us + self.random.random_range(delay_us_min..=delay_us_max);
            if self.strikes(self.parameters.overtaking) {
                statistics.count(Fault::Overtaken);
                let frames = self.random.random_range(1..=self.parameters.overtaking_frames_max);
                let until_us = at_us + OVERTAKEN_US_MAX;
                self.links[index].overtaken.push(Overtaken { frames, until_us, frame: copy });
                continue;
            }
            if self.strikes(self.parameters.reordering) {
                statistics.count(Fault::HeldBack);
                at_us += self.random.random_range(1..=self.parameters.held_back_us_max);
            } else {
                at_us = at_us.max(self.links[index].last_arrival_us);
                self.links[index].last_arrival_us = at_us;
            }
            self.put_under_way(at_us, index, copy);
            self.overtake(at_us, index);
        }
    }

    fn put_under_way(&mut self, at_us: u64, index: usize, frame: Vec<u8>) {
        self.sent_count += 1;
        self.under_way.push(Reverse((at_us, self.sent_count, Port::of(index), frame)));
    }

    /// Another frame arrives then: those that have waited for enough of them follow it.
    fn overtake(&mut self, at_us: u64, index: usize) {
        let mut waiting = std::mem::take(&mut self.links[index].overtaken);
        for held in &mut waiting {
            held.frames -= 1;
        }
        for held in waiting.extract_if(.., |held| held.frames == 0) {
            self.put_under_way(at_us.min(held.until_us), index, held.frame);
        }
        self.links[index].overtaken = waiting;
    }

    /// Why a frame does not get through, if it does not.
    fn swallows(&mut self, now_us: u64, index: usize, frame: &[u8]) -> Option<Fault> {
        if self.is_healed {
            return None;
        }
        let is_now = |&(from_us, until_us): &(u64, u64)| (from_us..until_us).contains(&now_us);
        if self.parameters.partitions_us.iter().any(is_now) {
            return Some(Fault::Lost);
        }
        let narrow = self.parameters.narrow_us.iter().find(|&&(from_us, until_us, _)| is_now(&(from_us, until_us)));
        let mtu_min = if family(frame) == Some(Family::Ipv6) { MTU_MIN_IPV6 } else { 0 };
        if narrow.is_some_and(|&(.., mtu)| frame.len() > usize::from(mtu.max(mtu_min)) + IP) {
            return Some(Fault::TooLarge);
        }
        let (to_node, to_clients) = self.parameters.loss;
        if self.strikes(if index == 0 { to_node } else { to_clients }) {
            return Some(Fault::Lost);
        }
        if self.strikes(self.parameters.bursts) {
            self.links[index].burst_frames = self.random.random_range(1..=self.parameters.burst_frames_max);
            self.links[index].burst_until_us = now_us + BURST_US_MAX;
        }
        let link = &mut self.links[index];
        let is_in_burst = link.burst_frames > 0 && now_us < link.burst_until_us;
        link.burst_frames = link.burst_frames.saturating_sub(1);
        is_in_burst.then_some(Fault::LostInBurst)
    }

    /// Flips one bit of the IP packet in a frame of `bytes` without its padding.
    fn corrupt(&mut self, frame: &mut [u8], bytes: usize) -> bool {
        if bytes <= IP || family(frame).is_none() {
            return false;
        }
        let bit = self.random.random_range(IP * 8..bytes * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        true
    }

    fn strikes(&mut self, ten_thousandths: u32) -> bool {
        ten_thousandths > 0 && !self.is_healed && self.random.random_range(0..10_000) < ten_thousandths
    }
}
