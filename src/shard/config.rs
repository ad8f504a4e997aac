//! What a shard is told when it starts, and how that can be wrong.

use std::net::Ipv4Addr;

/// A shard's configuration. Addresses and ports are holdline's own: the kernel must not have them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of this shard, part of every flow id.
    pub shard: u8,
    /// Our Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet the link takes, in bytes.
    pub mtu: u16,
    /// Our addresses, each with the prefix length of its network.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// The router for peers outside our networks.
    pub gateway: Option<Ipv4Addr>,
    /// Ports that are listened on, on every address.
    pub ports: Vec<u16>,
    /// Largest receive window that is offered to a peer, in bytes; more than 65,535 needs window scaling.
    pub window_bytes: u32,
    /// How many bytes may wait in one flow's send queue, acknowledged or not yet.
    pub send_queue_bytes: u32,
    /// How many connections may be half open (SYN received, handshake not complete).
    pub half_open_max: u32,
    /// How long an unanswered retransmission is repeated before the connection is given up, in seconds.
    pub user_timeout_s: u32,
    /// How long TIME-WAIT lasts (2 MSL), in seconds.
    pub time_wait_s: u32,
    /// How long FIN-WAIT-2 waits for the peer's FIN, in seconds.
    pub fin_wait_2_s: u32,
}

impl Config {
    /// The defaults for one address with its network, listening on `ports`.
    pub fn new(address: Ipv4Addr, prefix: u8, ports: &[u16]) -> Config {
        Config {
            shard: 0,
            mac: [0x02, 0x68, 0x6f, 0x6c, 0x64, 0x01],
            mtu: 1500,
            addresses: vec![(address, prefix)],
            gateway: None,
            ports: ports.to_vec(),
            window_bytes: 256 * 1024,
            send_queue_bytes: 256 * 1024,
            half_open_max: 65_536,
            user_timeout_s: 900,
            time_wait_s: 60,
            fin_wait_2_s: 60,
        }
    }
}
