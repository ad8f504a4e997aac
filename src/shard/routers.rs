//! Routers and networks that advertisements tell of (RFC 4861 §6.3), where no gateway for IPv6 is given.
//!
//! One default router is kept, and few networks. A start asks for routers again, so nothing of this outlives the
//! process but what the next hops hold.
//!
//! Invariant: bounded, and empty where a gateway for IPv6 is given or there is no IPv6.

use std::net::{IpAddr, Ipv6Addr};

use super::addresses::is_in_network;
use super::config::Config;
use super::hops::GATEWAY_IPV6;
use super::tables::Tables;
use crate::flows::Address;
use crate::tcp::Time;
use crate::wire::{OnLink, RouterAdvertisement};

/// How often routers are asked for, and how long between (RFC 4861 §10).
const SOLICITATIONS_MAX: u8 = 3;
const SOLICITATION_INTERVAL_MS: u64 = 4_000;
/// How many networks are remembered.
const NETWORKS_MAX: usize = 16;

/// What is known of routers.
pub(super) struct Routers {
    /// Whether anything is to be known.
    is_wanted: bool,
    asks_left: u8,
    ask_at: Time,
    /// Until when the router forwards what is sent to it.
    router_until: Time,
    networks: Vec<(OnLink, Time)>,
}

impl Routers {
    /// At a start.
    pub fn new(config: &Config, now: Time) -> Routers {
        let is_wanted = config.wants_routers();
        let asks_left = if is_wanted { SOLICITATIONS_MAX } else { 0 };
        Routers { is_wanted, asks_left, ask_at: now, router_until: Time(0), networks: Vec::new() }
    }

    /// Whether an advertisement has said that this address is on the link.
    pub fn is_on_link(&self, address: Ipv6Addr) -> bool {
        let is_in = |network: &OnLink| is_in_network(network.prefix.into(), address.into(), network.bits);
        self.networks.iter().any(|(network, _)| is_in(network))
    }

    /// When something is to be done; `None` for never.
    pub fn next(&self) -> Option<Time> {
        let ask = (self.asks_left > 0).then_some(self.ask_at);
        let router = (self.router_until > Time(0)).then_some(self.router_until);
        let networks = self.networks.iter().map(|&(_, until)| until);
        ask.into_iter().chain(router).chain(networks).min()
    }

    /// Whether routers are to be asked for now; if so it counts as done.
    fn take_ask(&mut self, now: Time) -> bool {
        let is_due = self.asks_left > 0 && now >= self.ask_at;
        if is_due {
            self.asks_left -= 1;
            self.ask_at = now.plus_ms(SOLICITATION_INTERVAL_MS);
        }
        is_due
    }

    fn learn_network(&mut self, network: OnLink, now: Time) {
        self.networks.retain(|(known, _)| (known.prefix, known.bits) != (network.prefix, network.bits));
        if network.valid_s > 0 && self.networks.len() < NETWORKS_MAX {
            self.networks.push((network, now.plus_ms(u64::from(network.valid_s) * 1_000)));
        }
    }
}

impl Tables {
    /// A router has spoken. Returns whether that was wanted.
    pub fn learn_router(&mut self, advertisement: &RouterAdvertisement<'_>, now: Time) -> bool {
        if !self.routers.is_wanted {
            return false;
        }
        for network in advertisement.on_link() {
            self.routers.learn_network(network, now);
        }
        let asked = Address::from(IpAddr::V6(advertisement.router));
        let present = self.next_hop(GATEWAY_IPV6).asked;
        if advertisement.lifetime_s == 0 {
            if present == asked {
                self.forget_router();
            }
            return true;
        }
        if present == Address::NONE {
            // One that was forgotten is likely to be the same, and connections go through it.
            self.storage.next_hops.records_mut()[usize::from(GATEWAY_IPV6)].asked = asked;
            self.hops.asked.push((GATEWAY_IPV6, 0));
        } else if present != asked {
            // One is enough while it lasts.
            return true;
        }
        self.routers.asks_left = 0;
        self.routers.router_until = now.plus_ms(u64::from(advertisement.lifetime_s) * 1_000);
        if let Some(mac) = advertisement.link_address {
            self.set_hop(GATEWAY_IPV6, mac);
        }
        true
    }

    /// Forgets what has expired. Returns whether routers are to be asked for now.
    pub fn tick_routers(&mut self, now: Time) -> bool {
        self.routers.networks.retain(|&(_, until)| until > now);
        if self.routers.router_until > Time(0) && self.routers.router_until <= now {
            self.forget_router();
        }
        self.routers.take_ask(now)
    }

    /// Connections that go through it stay, as long as their frames arrive.
    fn forget_router(&mut self) {
        self.storage.next_hops.records_mut()[usize::from(GATEWAY_IPV6)].asked = Address::NONE;
        self.hops.asked.retain(|&(index, _)| index != GATEWAY_IPV6);
        self.routers.router_until = Time(0);
        self.routers.asks_left = SOLICITATIONS_MAX;
    }
}
