//! Frames: written and read by code of the harness's own, so that a mistake of the stack's cannot hide itself.

/// Our end: what the stack calls itself.
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
/// Where the TCP header begins in a frame without IPv4 options.
pub const TCP_AT: usize = ETHERNET_BYTES + IPV4_BYTES;

/// Addresses and ports, as the peer's end sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The peer's Ethernet address.
    pub mac: [u8; 6],
    pub remote: [u8; 4],
    pub remote_port: u16,
    pub local: [u8; 4],
    pub local_port: u16,
}

/// A segment, in either direction.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub seq: u32,
    pub ack: u32,
    pub control: u8,
    pub window: u16,
    pub urgent: u16,
    /// The ECN bits of its packet.
    pub ecn: u8,
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

impl Segment<'_> {
    pub fn has(&self, control: u8) -> bool {
        self.control & control == control
    }

    /// The sequence number behind it.
    pub fn end(&self) -> u32 {
        let length = self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(length)
    }
}

/// Adds words of the Internet checksum (RFC 1071).
pub fn sum(bytes: &[u8]) -> u32 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let whole: u32 = pairs.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
    whole + rest.first().map_or(0, |&byte| u32::from(byte) << 8)
}

/// The sum as a checksum.
pub fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Writes the checksums that a frame of IPv4 ought to have, as far as its lengths make sense.
pub fn repair_checksums(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(ETHERNET_BYTES..).filter(|packet| packet.len() >= IPV4_BYTES) else { return };
    let header_bytes = (usize::from(packet[0] & 0x0f) * 4).clamp(IPV4_BYTES, packet.len());
    let total_bytes = usize::from(u16::from_be_bytes([packet[2], packet[3]])).clamp(header_bytes, packet.len());
    packet[10..12].fill(0);
    let header_sum = folded(sum(&packet[..header_bytes]));
    packet[10..12].copy_from_slice(&header_sum.to_be_bytes());
    let protocol = packet[9];
    let pseudo = sum(&packet[12..20]) + u32::from(protocol) + (total_bytes - header_bytes) as u32;
    let body = &mut packet[header_bytes..total_bytes];
    let (at, start) = match protocol {
        6 => (16, pseudo),
        1 => (2, 0),
        _ => return,
    };
    if body.len() < at + 2 {
        return;
    }
    body[at..at + 2].fill(0);
    let checksum = folded(start + sum(body));
    body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Appends the headers of Ethernet and IPv4 in front of `body_bytes` that follow.
pub fn write_headers(out: &mut Vec<u8>, ends: &Ends, protocol: u8, body_bytes: usize) {
    out.extend_from_slice(&SERVER_MAC);
    out.extend_from_slice(&ends.mac);
    out.extend_from_slice(&[8, 0, 0x45, 0]);
    out.extend_from_slice(&((IPV4_BYTES + body_bytes) as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    out.extend_from_slice(&ends.remote);
    out.extend_from_slice(&ends.local);
}

/// Appends the frame of a segment from the peer; the options are padded.
pub fn write_segment(out: &mut Vec<u8>, ends: &Ends, segment: &Segment<'_>) {
    let start = out.len();
    let header_bytes = TCP_BYTES + segment.options.len().next_multiple_of(4);
    write_headers(out, ends, 6, header_bytes + segment.payload.len());
    out[start + ETHERNET_BYTES + 1] = segment.ecn;
    out.extend_from_slice(&ends.remote_port.to_be_bytes());
    out.extend_from_slice(&ends.local_port.to_be_bytes());
    out.extend_from_slice(&segment.seq.to_be_bytes());
    out.extend_from_slice(&segment.ack.to_be_bytes());
    out.extend_from_slice(&[(header_bytes as u8 / 4) << 4, segment.control]);
    out.extend_from_slice(&segment.window.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&segment.urgent.to_be_bytes());
    out.extend_from_slice(segment.options);
    out.resize(start + TCP_AT + header_bytes, 0);
    out.extend_from_slice(segment.payload);
    repair_checksums(&mut out[start..]);
}

/// Appends an ARP message from the peer.
pub fn write_arp(out: &mut Vec<u8>, ends: &Ends, is_request: bool, target: [u8; 4]) {
    out.extend_from_slice(&if is_request { [0xff; 6] } else { SERVER_MAC });
    out.extend_from_slice(&ends.mac);
    out.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, if is_request { 1 } else { 2 }]);
    out.extend_from_slice(&ends.mac);
    out.extend_from_slice(&ends.remote);
    out.extend_from_slice(&if is_request { [0; 6] } else { SERVER_MAC });
    out.extend_from_slice(&target);
}

/// A field of 16 bits.
pub fn word_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(word_at(bytes, at)) << 16 | u32::from(word_at(bytes, at + 2))
}

fn address_at(bytes: &[u8], at: usize) -> [u8; 4] {
    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]
}

fn segment_of(tcp: &[u8], traffic_class: u8) -> Option<Segment<'_>> {
    let header_bytes = usize::from(tcp.get(12)? >> 4) * 4;
    if tcp.len() < TCP_BYTES || header_bytes < TCP_BYTES || header_bytes > tcp.len() {
        return None;
    }
    Some(Segment {
        seq: long_at(tcp, 4),
        ack: long_at(tcp, 8),
        control: tcp[13],
        window: word_at(tcp, 14),
        urgent: word_at(tcp, 18),
        ecn: traffic_class & 3,
        options: &tcp[TCP_BYTES..header_bytes],
        payload: &tcp[header_bytes..],
    })
}

/// What a frame that goes in may mean to the stack: the segment that it carries, whatever its checksums.
pub fn read_going(frame: &[u8]) -> Option<(Ends, Segment<'_>)> {
    let packet = frame.get(ETHERNET_BYTES..).filter(|packet| packet.len() >= IPV4_BYTES && packet[9] == 6)?;
    let header_bytes = usize::from(packet[0] & 0x0f) * 4;
    let total_bytes = usize::from(word_at(packet, 2));
    let tcp = packet.get(header_bytes..total_bytes)?;
    let segment = segment_of(tcp, packet[1])?;
    let ends = Ends {
        mac: std::array::from_fn(|at| frame[6 + at]),
        remote: address_at(packet, 12),
        local: address_at(packet, 16),
        remote_port: word_at(tcp, 0),
        local_port: word_at(tcp, 2),
    };
    Some((ends, segment))
}

/// What comes out.
pub enum Came<'a> {
    Tcp(Ends, Segment<'a>),
    /// ARP, or the answer to a ping.
    Other,
}

/// Reads a frame that comes out and checks it whole. The error says what is wrong with it.
pub fn read_coming(frame: &[u8], mtu: u16) -> Result<Came<'_>, &'static str> {
    if frame.len() < ETHERNET_BYTES || frame[6..12] != SERVER_MAC {
        return Err("a frame that is not from our own Ethernet address");
    }
    let packet = &frame[ETHERNET_BYTES..];
    match word_at(frame, 12) {
        0x0806 if packet.len() == 28 => return Ok(Came::Other),
        0x0800 => {}
        _ => return Err("a frame that is neither ARP nor IPv4"),
    }
    if packet.len() < IPV4_BYTES || packet[0] != 0x45 || usize::from(word_at(packet, 2)) != packet.len() {
        return Err("an IPv4 header that does not fit");
    }
    if folded(sum(&packet[..IPV4_BYTES])) != 0 {
        return Err("a wrong checksum of IPv4");
    }
    let body = &packet[IPV4_BYTES..];
    let is_part = word_at(packet, 6) & 0x3fff != 0;
    match packet[9] {
        // A part of the answer to a large echo request.
        1 if is_part && packet.len() <= usize::from(mtu) => return Ok(Came::Other),
        _ if is_part => return Err("a fragment"),
        1 if folded(sum(body)) == 0 => return Ok(Came::Other),
        6 => {}
        _ => return Err("neither TCP nor a good ICMP message"),
    }
    if packet.len() > usize::from(mtu) {
        return Err("a segment that is longer than the MTU");
    }
    let pseudo = sum(&packet[12..20]) + 6 + body.len() as u32;
    if folded(pseudo + sum(body)) != 0 {
        return Err("a wrong checksum of TCP");
    }
    let segment = segment_of(body, packet[1]).ok_or("a TCP header that does not fit")?;
    let ends = Ends {
        mac: std::array::from_fn(|at| frame[at]),
        remote: address_at(packet, 16),
        local: address_at(packet, 12),
        remote_port: word_at(body, 2),
        local_port: word_at(body, 0),
    };
    Ok(Came::Tcp(ends, segment))
}

/// What the options of a segment say; of a SYN's maximum segment sizes and shifts the largest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub mss: Option<u16>,
    pub shift: Option<u8>,
    /// Value and echo.
    pub timestamps: Option<(u32, u32)>,
    pub has_sack_permitted: bool,
    /// How many SACK blocks there are, and the first of them.
    pub sack_count: usize,
    pub sack: [(u32, u32); SACK_BLOCKS_MAX],
}

/// No option has room for more.
pub const SACK_BLOCKS_MAX: usize = 4;

impl Options {
    pub fn read(options: &[u8]) -> Options {
        let mut read = Options::default();
        let mut rest = options;
        while let [kind, behind @ ..] = rest {
            match (kind, behind) {
                (0, _) => break,
                (1, _) => rest = behind,
                (_, [length, ..]) if (2..=rest.len()).contains(&usize::from(*length)) => {
                    let (option, after) = rest.split_at(usize::from(*length));
                    match (kind, option.len()) {
                        (2, 4) => read.mss = read.mss.max(Some(word_at(option, 2))),
                        (3, 3) => read.shift = read.shift.max(Some(option[2])),
                        (8, 10) => read.timestamps = Some((long_at(option, 2), long_at(option, 6))),
                        (4, 2) => read.has_sack_permitted = true,
                        (5, _) => read.read_sack(&option[2..]),
                        _ => {}
                    }
                    rest = after;
                }
                _ => break,
            }
        }
        read
    }

    fn read_sack(&mut self, blocks: &[u8]) {
        self.sack_count = blocks.len() / 8;
        for (block, bytes) in self.sack.iter_mut().zip(blocks.chunks_exact(8)) {
            *block = (long_at(bytes, 0), long_at(bytes, 4));
        }
    }

    /// The SACK blocks.
    pub fn sack(&self) -> &[(u32, u32)] {
        &self.sack[..self.sack_count.min(SACK_BLOCKS_MAX)]
    }
}
