//! Neighbours: questions for Ethernet addresses answered and asked.
//!
//! By ARP and by neighbour discovery; and what else of IPv6 is answered below TCP.

use std::net::IpAddr;

use super::batch::Batch;
use super::hops::GATEWAY_IPV6;
use crate::tcp::{Rule, Time};
use crate::wire::{self, ArpMessage, NeighborMessage, Refused, RouterAdvertisement};

/// How many senders of packets that we may not take are told in a second (RFC 4443 §2.4 (f)).
const PROBLEMS_PER_S: u32 = 100;

/// How many senders were told of a problem in the present second of the stack's clock.
#[derive(Default)]
pub(super) struct ProblemBudget {
    second: u32,
    told: u32,
}

impl ProblemBudget {
    /// Whether one more may be told; if so it counts as told.
    fn take(&mut self, now: Time) -> bool {
        if self.second != now.seconds() {
            *self = ProblemBudget { second: now.seconds(), told: 0 };
        }
        let has_room = self.told < PROBLEMS_PER_S;
        self.told += u32::from(has_room);
        has_room
    }
}

impl Batch {
    pub fn receive_arp(&mut self, message: &ArpMessage) {
        let target = message.target.into();
        let is_for_us = self.tables.local_index(target).is_some() && !self.tables.is_shared(target);
        let asked: Vec<u16> = self.tables.hops_asked(message.sender.into()).filter(|_| is_for_us).collect();
        for &hop in &asked {
            self.learn_hop(hop, message.sender_mac);
        }
        if !(message.is_request && is_for_us && self.tables.answers_for_all()) {
            self.tables.count(if asked.is_empty() { Rule::ArpIgnored } else { Rule::ArpLearns });
            return;
        }
        self.tables.count(Rule::ArpAnswers);
        let answer = ArpMessage {
            is_request: false,
            sender_mac: self.tables.config.mac,
            sender: message.target,
            target_mac: message.sender_mac,
            target: message.sender,
        };
        self.put_frame(|out| wire::emit_arp(out, &answer));
    }

    pub fn receive_neighbor(&mut self, message: &NeighborMessage) {
        let learnt = self.taught_by(message);
        for &(hop, mac) in &learnt {
            self.learn_hop(hop, mac);
        }
        let is_question = message.advertisement.is_none() && self.tables.is_ours_alone(message.target.into());
        if !is_question || !self.tables.answers_for_all() || self.tables.is_ours(message.source.into()) {
            self.tables.count(if learnt.is_empty() { Rule::NeighborIgnored } else { Rule::NeighborLearns });
            return;
        }
        self.tables.count(Rule::NeighborAnswers);
        let mac = self.tables.config.mac;
        self.put_frame(|out| wire::emit_advertisement(out, mac, message));
    }

    /// A next hop is at this Ethernet address: the SYNs that waited to know that leave.
    pub fn learn_hop(&mut self, hop: u16, mac: [u8; 6]) {
        self.tables.set_hop(hop, mac);
        self.send_waiting_syns(hop);
    }

    /// Where the next hops are that we have asked for, as a message teaches (RFC 4861 §7.2.3 and §7.2.5).
    fn taught_by(&self, message: &NeighborMessage) -> Vec<(u16, [u8; 6])> {
        let Some(advertisement) = message.advertisement else {
            let mac = message.link_address.filter(|_| self.tables.is_ours_alone(message.target.into()));
            let asked = self.tables.hops_asked(message.source.into());
            return asked.filter_map(|hop| Some((hop, mac?))).collect();
        };
        let taught = |hop| {
            let known = self.tables.next_hop(hop);
            match message.link_address {
                Some(mac) if known.is_known == 0 || advertisement.is_override || mac == known.mac => Some((hop, mac)),
                // Without its address it says that it is where it was.
                None if known.is_known == 1 && advertisement.is_solicited => Some((hop, known.mac)),
                Some(_) | None => None,
            }
        };
        self.tables.hops_asked(message.target.into()).filter_map(taught).collect()
    }

    pub fn receive_router(&mut self, advertisement: &RouterAdvertisement<'_>) {
        let is_wanted = self.tables.learn_router(advertisement, self.now);
        self.tables.count(if is_wanted { Rule::RouterLearns } else { Rule::NeighborIgnored });
        if is_wanted && self.tables.next_hop(GATEWAY_IPV6).is_known == 1 {
            self.send_waiting_syns(GATEWAY_IPV6);
        }
    }

    /// The sender of a packet that we may not take is told why.
    pub fn receive_refused(&mut self, refused: &Refused<'_>) {
        let nearest = match self.tables.nearest_local(refused.remote.into()) {
            Some(IpAddr::V6(nearest)) => nearest,
            Some(IpAddr::V4(_)) | None => return self.tables.count(Rule::FrameNotForUs),
        };
        let local = if refused.local.is_multicast() { nearest } else { refused.local };
        if !self.tables.is_ours_alone(local.into()) {
            return self.tables.count(Rule::FrameNotForUs);
        }
        if self.tables.is_no_peer(refused.remote.into()) {
            return self.tables.count(Rule::SourceAddressInvalid);
        }
        if !self.tables.problems.take(self.now) {
            return self.tables.count(Rule::Ipv6ProblemThrottled);
        }
        self.tables.count(Rule::Ipv6ProblemTold);
        let (mac, ttl) = (self.tables.config.mac, self.tables.config.ttl);
        self.put_frame(|out| wire::emit_parameter_problem(out, mac, local, ttl, refused));
    }

    /// Asks where an address is.
    pub fn ask_for_hop(&mut self, target: IpAddr) {
        if self.tables.is_looked_up(target) {
            return self.tables.look_up_later(target);
        }
        let mac = self.tables.config.mac;
        match (self.tables.asker(target), target) {
            (Some(IpAddr::V4(sender)), IpAddr::V4(target)) => {
                let request = ArpMessage { is_request: true, sender_mac: mac, sender, target_mac: [0; 6], target };
                self.put_frame(|out| wire::emit_arp(out, &request));
            }
            (Some(IpAddr::V6(source)), IpAddr::V6(target)) => {
                self.put_frame(|out| wire::emit_solicitation(out, mac, source, target));
            }
            // Nobody is asked for of whose family we have no address.
            (Some(IpAddr::V4(_) | IpAddr::V6(_)) | None, _) => {}
        }
    }

    /// Asks for routers.
    pub fn ask_for_routers(&mut self) {
        let Some(source) = self.tables.link_local else { return };
        let mac = self.tables.config.mac;
        self.put_frame(|out| wire::emit_router_solicitation(out, mac, source));
    }
}
