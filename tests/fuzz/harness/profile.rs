//! Profiles: how a shard is set up, small and narrow, so that its limits are near.

use holdline::shard::{Capacity, Config};

use super::frame::SERVER_MAC;
use super::translate::Family;

/// A set-up.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub capacity: Capacity,
    pub window_bytes: u32,
    pub send_queue_bytes: u32,
    pub mtu: u16,
    pub half_open_max: u32,
    pub keepalive_s: u32,
    pub idle_timeout_s: u32,
    pub has_gateway: bool,
    pub has_cookies: bool,
    pub delayed_ack_ms: u32,
    pub nagle: bool,
}

/// The addresses of the server, and the ports that it listens on.
pub const LOCALS: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 129]];
pub const PORTS: [u16; 2] = [80, 81];
pub const GATEWAY: [u8; 4] = [10, 0, 0, 200];

const ROOMY: Profile = Profile {
    capacity: Capacity { flows: 16, actives: 16, spans: 96, blocks: 64 },
    window_bytes: 256 * 1024,
    send_queue_bytes: 20_000,
    mtu: 1500,
    half_open_max: 16,
    keepalive_s: 0,
    idle_timeout_s: 0,
    has_gateway: false,
    has_cookies: true,
    delayed_ack_ms: 40,
    nagle: false,
};

/// Every link of IPv6 takes so much (RFC 8200 §5).
const IPV6_MTU_MIN: u16 = 1_280;

/// All of them; an input's first byte picks one.
pub const PROFILES: [Profile; 10] = [
    ROOMY,
    Profile { window_bytes: 4_000, send_queue_bytes: 6_000, delayed_ack_ms: 0, ..ROOMY },
    Profile { capacity: Capacity { flows: 4, actives: 4, spans: 8, blocks: 8 }, ..ROOMY },
    Profile { capacity: Capacity { flows: 12, actives: 3, spans: 64, blocks: 16 }, ..ROOMY },
    Profile { keepalive_s: 20, nagle: true, ..ROOMY },
    Profile { idle_timeout_s: 30, keepalive_s: 8, half_open_max: 2, has_cookies: false, ..ROOMY },
    Profile { mtu: 300, window_bytes: 536, send_queue_bytes: 1_000, ..ROOMY },
    Profile { has_gateway: true, ..ROOMY },
    Profile { window_bytes: 1 << 30, send_queue_bytes: 100_000, ..ROOMY },
    Profile { window_bytes: 65_535, half_open_max: 1, mtu: 576, delayed_ack_ms: 499, ..ROOMY },
];

impl Profile {
    pub fn config(&self, family: Family) -> Config {
        let prefix = if family == Family::Ipv4 { 24 } else { 120 };
        let mut config = Config::new(family.on_wire(LOCALS[0]), prefix, &PORTS);
        config.addresses.push((family.on_wire(LOCALS[1]), prefix));
        config.mac = SERVER_MAC;
        config.mtu = if family == Family::Ipv4 { self.mtu } else { self.mtu.max(IPV6_MTU_MIN) };
        config.window_bytes = self.window_bytes;
        config.send_queue_bytes = self.send_queue_bytes;
        config.half_open_max = self.half_open_max;
        config.user_timeout_s = 160;
        config.time_wait_s = 20;
        config.fin_wait_2_s = 25;
        config.keepalive_s = self.keepalive_s;
        config.keepalive_probes = 2;
        config.idle_timeout_s = self.idle_timeout_s;
        config.gateways.extend(self.has_gateway.then(|| family.on_wire(GATEWAY)));
        config.syn_cookies = self.has_cookies;
        config.delayed_ack_ms = self.delayed_ack_ms;
        config.nagle = self.nagle;
        config.report_received_bytes = u32::MAX;
        config
    }
}
