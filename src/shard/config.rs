//! What a shard is told when it starts, and how that can be wrong.

use std::net::{IpAddr, Ipv6Addr};

use super::StartError;
use super::addresses::is_host;
use super::steer::SHARDS_MAX;
use crate::flows::LOCALS_MAX;
use crate::tcp::{CongestionControl, Ecn, PROBES_MAX, Timeouts};

/// Smallest MTU that a link of IPv4 may have (RFC 791), and one of IPv6 (RFC 8200 §5).
const MTU_MIN: u16 = 68;
pub(super) const MTU_MIN_IPV6: u16 = 1_280;
/// An ACK may not be delayed for so long (MUST-40).
const DELAYED_ACK_MS_END: u32 = 500;
/// Largest codepoint (RFC 2474 §3).
const DSCP_MAX: u8 = 63;
/// Unanswered keepalive probes that say nothing: any one may be lost (MUST-29).
const KEEPALIVE_PROBES_MIN: u8 = 2;
/// Smallest receive window: the segment that every host takes (MUST-15).
const WINDOW_BYTES_MIN: u32 = 536;

/// A shard's configuration. Addresses are holdline's own, and the kernel must not have them, but for those that are
/// shared. The default has no address and no port, and cannot start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of this shard, part of every flow id.
    pub shard: u8,
    /// How many shards the state has, this one included; fixed when it is made.
    pub shards: u8,
    /// Our Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet the link takes, in bytes.
    pub mtu: u16,
    /// Our addresses of both families, each with the prefix length of its network.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Those of our addresses that the kernel keeps: only TCP to our ports is ours there. The kernel answers for them
    /// and knows neighbours, see `Shard::look_up`.
    pub shared: Vec<IpAddr>,
    /// The routers for peers outside our networks, one for each family at most. Without one for IPv6, routers are asked
    /// for.
    pub gateways: Vec<IpAddr>,
    /// Ports that are listened on, on every address.
    pub ports: Vec<u16>,
    /// Largest receive window that is offered to a peer, in bytes; more than 65,535 needs window scaling.
    pub window_bytes: u32,
    /// How many bytes may wait in one flow's send queue, acknowledged or not yet.
    pub send_queue_bytes: u32,
    /// How many connections may be half open (SYN received, handshake not complete).
    pub half_open_max: u32,
    /// Whether a SYN beyond that is answered by a cookie, or dropped. While a cookie counts, a repeated ACK of its
    /// handshake opens the connection again if it has ended meanwhile.
    pub syn_cookies: bool,
    /// How long an ACK may wait for something that it can go with, in ms; 0 for not at all (RFC 9293 §3.8.6.3).
    pub delayed_ack_ms: u32,
    /// How congestion is avoided.
    pub congestion: CongestionControl,
    /// Whether the network may mark what it would else drop, where the peer agrees (ECN, RFC 3168).
    pub ecn: Ecn,
    /// Whether small segments wait while something is in flight, unless a service says otherwise for a connection. Off,
    /// as a push is a whole message that is to arrive now (RFC 9293 §3.7.4, MUST-17).
    pub nagle: bool,
    /// Time to live of what we send (MUST-49).
    pub ttl: u8,
    /// Differentiated services codepoint of what we send, six bits, unless a service says otherwise for a connection.
    pub dscp: u8,
    /// How long an unanswered retransmission is repeated before the connection is given up, in seconds.
    pub user_timeout_s: u32,
    /// How long TIME-WAIT lasts (2 MSL), in seconds; longer where the service has not read all by then.
    pub time_wait_s: u32,
    /// How long FIN-WAIT-2 waits for the peer's FIN, in seconds.
    pub fin_wait_2_s: u32,
    /// Silence after which a peer is probed, and between probes, in seconds; 0 for never.
    pub keepalive_s: u32,
    /// Unanswered probes after which a connection is given up.
    pub keepalive_probes: u8,
    /// Silence after which a connection is reset, in seconds; 0 for never.
    pub idle_timeout_s: u32,
    /// How many bytes of each received piece a notice tells; 0 for no such notices.
    pub report_received_bytes: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            shard: 0,
            shards: 1,
            mac: [0x02, 0x68, 0x6f, 0x6c, 0x64, 0x01],
            mtu: 1500,
            addresses: Vec::new(),
            shared: Vec::new(),
            gateways: Vec::new(),
            ports: Vec::new(),
            window_bytes: 256 * 1024,
            send_queue_bytes: 256 * 1024,
            half_open_max: 65_536,
            syn_cookies: true,
            delayed_ack_ms: 40,
            congestion: CongestionControl::Cubic,
            ecn: Ecn::Answers,
            nagle: false,
            ttl: 64,
            dscp: 0,
            user_timeout_s: 900,
            time_wait_s: 60,
            fin_wait_2_s: 60,
            keepalive_s: 0,
            keepalive_probes: 3,
            idle_timeout_s: 0,
            report_received_bytes: 0,
        }
    }
}

impl Config {
    /// The defaults for one address with its network, listening on `ports`.
    pub fn new(address: impl Into<IpAddr>, prefix: u8, ports: &[u16]) -> Config {
        Config { addresses: vec![(address.into(), prefix)], ports: ports.to_vec(), ..Config::default() }
    }

    /// The time-outs of idle connections.
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts {
            time_wait_s: self.time_wait_s,
            fin_wait_2_s: self.fin_wait_2_s,
            keepalive_s: self.keepalive_s,
            keepalive_probes: self.keepalive_probes,
            idle_s: self.idle_timeout_s,
        }
    }

    /// Whether any of our addresses is one of IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|(address, _)| address.is_ipv6())
    }

    /// Whether any address of IPv6 is ours alone.
    fn has_own_ipv6(&self) -> bool {
        self.addresses.iter().any(|(address, _)| address.is_ipv6() && !self.shared.contains(address))
    }

    /// Whether routers are asked for: there is IPv6 of our own, and no gateway for it is given.
    pub fn wants_routers(&self) -> bool {
        self.has_own_ipv6() && !self.gateways.iter().any(IpAddr::is_ipv6)
    }

    /// Our link-local address, by which we speak to neighbours and routers: one of those given, or the one that the
    /// Ethernet address gives (RFC 4291 appendix A). `None` without IPv6 of our own.
    pub(super) fn link_local(&self) -> Option<Ipv6Addr> {
        if !self.has_own_ipv6() {
            return None;
        }
        let given = self.addresses.iter().find_map(|(address, _)| match address {
            IpAddr::V6(address) if address.is_unicast_link_local() && !self.shared.contains(&(*address).into()) => {
                Some(*address)
            }
            _ => None,
        });
        let [a, b, c, d, e, f] = self.mac;
        let words = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
        Some(given.unwrap_or_else(|| Ipv6Addr::new(0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3])))
    }

    /// Whether a shard can run with it, which refuses to start where it cannot. Errors name what is wrong.
    pub fn check(&self) -> Result<(), StartError> {
        let wrong = |what: String| Err(StartError::Config(what));
        // One that stands alone may have any number.
        let is_one_of_them = self.shards == 1 || self.shard < self.shards;
        if !(1..=SHARDS_MAX).contains(&self.shards) || !is_one_of_them {
            return wrong(format!("there are 1 to {SHARDS_MAX} shards, numbered from 0; give --shards N"));
        }
        if self.addresses.is_empty() || self.addresses.len() > LOCALS_MAX {
            return wrong(format!("a server has 1 to {LOCALS_MAX} addresses; give --address ADDR/PREFIX"));
        }
        let is_too_long = |&&(address, prefix): &&(IpAddr, u8)| prefix > address_bits(address);
        if let Some((address, prefix)) = self.addresses.iter().find(is_too_long) {
            let bits = address_bits(*address);
            return wrong(format!("{address}/{prefix}: a prefix of this family has at most {bits} bits"));
        }
        if let Some((address, _)) = self.addresses.iter().find(|(address, _)| !is_host(*address)) {
            return wrong(format!("{address} cannot be the address of a server"));
        }
        if let Some(shared) = self.shared.iter().find(|&shared| self.addresses.iter().all(|(it, _)| it != shared)) {
            return wrong(format!("{shared} cannot be shared with the kernel without being ours; give --address"));
        }
        if let Some(gateway) = self.gateways.iter().find(|&&gateway| !is_host(gateway)) {
            return wrong(format!("{gateway} cannot be the address of a gateway"));
        }
        if self.gateways.iter().filter(|it| it.is_ipv4()).count() > 1
            || self.gateways.iter().filter(|it| it.is_ipv6()).count() > 1
        {
            return wrong("there is one gateway for each family at most".into());
        }
        let is_of_use = |gateway: &IpAddr| self.addresses.iter().any(|(it, _)| it.is_ipv4() == gateway.is_ipv4());
        if let Some(useless) = self.gateways.iter().find(|&gateway| !is_of_use(gateway)) {
            return wrong(format!(
                "the gateway {useless} is of no use without an address of its family; give --address"
            ));
        }
        if self.ports.is_empty() || self.ports.contains(&0) {
            return wrong("a server listens on at least one port, 1 to 65535; give --listen PORT".into());
        }
        if self.mtu < MTU_MIN {
            return wrong(format!("the link's MTU is {}; IPv4 needs at least {MTU_MIN}", self.mtu));
        }
        if self.mtu < MTU_MIN_IPV6 && self.has_ipv6() {
            return wrong(format!("the link's MTU is {}; IPv6 needs at least {MTU_MIN_IPV6}", self.mtu));
        }
        if self.window_bytes < WINDOW_BYTES_MIN || self.send_queue_bytes == 0 {
            return wrong(format!("a receive window has at least {WINDOW_BYTES_MIN} bytes, and a send queue some"));
        }
        if self.delayed_ack_ms >= DELAYED_ACK_MS_END {
            return wrong(format!("an ACK is delayed by less than {DELAYED_ACK_MS_END} ms (MUST-40)"));
        }
        if !(KEEPALIVE_PROBES_MIN..=PROBES_MAX).contains(&self.keepalive_probes) {
            let range = format!("{KEEPALIVE_PROBES_MIN} to {PROBES_MAX}");
            return wrong(format!("{range} keepalive probes may go unanswered; one may be lost (MUST-29)"));
        }
        if self.ttl == 0 || self.dscp > DSCP_MAX {
            return wrong(format!("a TTL is 1 to 255 and a DSCP 0 to {DSCP_MAX}"));
        }
        Ok(())
    }
}

fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}
