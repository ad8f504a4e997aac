//! Packets as a script writes them: TCP segments, ARP and ICMP, with named fields.
//!
//! ```text
//! segment   [port CLIENT] [server-port N] [syn] [fin] [rst] [psh] [urg N] [ece] [cwr] [ect] seq N | seq A..B  [ack N]
//!           [window N] [mss N] [wscale N] [sack-ok] [ts VALUE ECHO] [sack A..B ...]
//!           [no mss|wscale|sack-ok|ts|sack|psh]
//! only >>   [ce] [option HEX] [data-offset N] and what any frame may have wrong, see `Fault`
//! only <<   [iss N]: this sequence number is called N from now on; [dscp N] [ttl N] of its IPv4 header
//! arp       arp who-has ADDRESS | arp is-at ADDRESS; over IPv6 the same by neighbour discovery
//! neighbour solicit ADDRESS | advertise ADDRESS [solicited] [override];  [nobody] [no-link] [link-elsewhere]
//! router    router SECONDS [prefix ADDRESS/BITS SECONDS] [no-link];  only <<  routers?: somebody asks for them
//! icmp      ping | pong  [id N] [sequence N] [bytes N];   icmp TYPE CODE quotes N: an error about our byte N;
//!           [mtu N]: what it says of the next link; [of N]: how long the packet was, 1500 where it is not written
//! only <<   problem CODE POINTER: an ICMPv6 parameter problem
//! bytes     bytes HEX: a frame as it is
//! ```
//!
//! Control bits but PSH, the sequence number, the length of the data, the acknowledgment, the urgent pointer and ECT
//! are compared always, options, window, PSH, DSCP and TTL only where they are written. The stack's timestamps count
//! from its first one.

use std::fmt;
use std::net::IpAddr;

pub use super::fault::Fault;
use super::fault::parse_faults;
pub use super::neighbor::Neighbor;
use super::reader::Reader;
use super::script::CLIENT_PORT;

/// One frame of a script.
#[derive(Clone, PartialEq, Debug)]
pub enum Packet {
    /// A TCP segment.
    Tcp(Tcp),
    /// Somebody asks who has `address`, or it is answered: by ARP or, over IPv6, by neighbour discovery.
    Arp { is_request: bool, address: IpAddr, faults: Vec<Fault> },
    /// A message of neighbour discovery, in every detail.
    Neighbor(Neighbor),
    /// A router's advertisement, its lifetime in seconds, with a network on the link and how long it is.
    Router { lifetime_s: u16, network: Option<(IpAddr, u8, u32)>, has_link: bool, faults: Vec<Fault> },
    /// A question for routers.
    RouterQuestion,
    /// An ICMPv6 parameter problem.
    Problem { code: u8, pointer: u32 },
    /// An ICMP echo request or reply.
    Echo { is_request: bool, id: u16, sequence: u16, bytes: u16, faults: Vec<Fault> },
    /// An ICMP error that quotes the header of a segment of ours which began at `quotes`.
    Icmp { kind: u8, code: u8, quotes: u32, of_bytes: u16, mtu: u16, port: u16, faults: Vec<Fault> },
    /// A frame as it is, from its Ethernet header on.
    Bytes(Vec<u8>),
}

/// A TCP segment. `None` and `false` are "not written".
#[derive(Clone, PartialEq, Debug)]
pub struct Tcp {
    pub port: u16,
    pub server_port: Option<u16>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub psh: bool,
    pub ece: bool,
    pub cwr: bool,
    /// ECN-capable transport, in the IP header.
    pub ect: bool,
    /// Congestion experienced, in the IP header.
    pub ce: bool,
    pub urgent: Option<u16>,
    pub seq: Option<u32>,
    pub iss: Option<u32>,
    /// Length of the data.
    pub bytes: u32,
    pub ack: Option<u32>,
    /// The field as it stands in the header.
    pub window: Option<u16>,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: Option<(u32, u32)>,
    /// Blocks of a SACK option: first byte, and one past the last.
    pub sack: Vec<(u32, u32)>,
    pub dscp: Option<u8>,
    pub ttl: Option<u8>,
    /// Options, or PSH, that must not be there.
    pub without: Vec<String>,
    /// Option bytes after the others, as they are.
    pub option_bytes: Vec<u8>,
    pub faults: Vec<Fault>,
}

impl Default for Tcp {
    fn default() -> Tcp {
        Tcp {
            port: CLIENT_PORT,
            server_port: None,
            syn: false,
            fin: false,
            rst: false,
            psh: false,
            ece: false,
            cwr: false,
            ect: false,
            ce: false,
            urgent: None,
            seq: None,
            iss: None,
            bytes: 0,
            ack: None,
            window: None,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            sack: Vec::new(),
            dscp: None,
            ttl: None,
            without: Vec::new(),
            option_bytes: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl Packet {
    /// Understands what follows `>>`.
    pub fn parse_into(reader: &mut Reader) -> Result<Packet, String> {
        let packet = Packet::parse(reader)?;
        if let Packet::Tcp(tcp) = &packet {
            if tcp.seq.is_none() {
                return Err("a segment that goes in has a `seq`".into());
            }
            if tcp.iss.is_some() || !tcp.without.is_empty() || tcp.dscp.is_some() || tcp.ttl.is_some() {
                return Err("`iss`, `no`, `dscp` and `ttl` stand only after `<<`".into());
            }
        }
        Ok(packet)
    }

    /// Understands what follows `<<`.
    pub fn parse_out_of(reader: &mut Reader) -> Result<Packet, String> {
        let packet = Packet::parse(reader)?;
        let faults = match &packet {
            Packet::Tcp(tcp) => {
                if tcp.seq.is_none() {
                    return Err("a segment that comes out has a `seq`, or an `iss`".into());
                }
                if !tcp.option_bytes.is_empty() {
                    return Err("`option` stands only after `>>`".into());
                }
                &tcp.faults
            }
            Packet::Arp { faults, .. } | Packet::Echo { faults, .. } => faults,
            Packet::Neighbor(neighbor) => &neighbor.faults,
            Packet::RouterQuestion | Packet::Problem { .. } => return Ok(packet),
            Packet::Icmp { .. } | Packet::Bytes(_) | Packet::Router { .. } => {
                return Err("this packet stands only after `>>`".into());
            }
        };
        match faults.is_empty() {
            true => Ok(packet),
            false => Err("a fault stands only after `>>`".into()),
        }
    }

    fn parse(reader: &mut Reader) -> Result<Packet, String> {
        match reader.peek() {
            Some("arp") => {
                reader.word()?;
                let is_request = match reader.word()?.as_str() {
                    "who-has" => true,
                    "is-at" => false,
                    other => return Err(format!("ARP says who-has or is-at, not `{other}`")),
                };
                Ok(Packet::Arp { is_request, address: reader.address()?, faults: parse_faults(reader)? })
            }
            Some("ping" | "pong") => {
                let is_request = reader.word()? == "ping";
                let id = reader.named("id")?.unwrap_or(1);
                let sequence = reader.named("sequence")?.unwrap_or(1);
                let bytes = reader.named("bytes")?.unwrap_or(32);
                Ok(Packet::Echo { is_request, id, sequence, bytes, faults: parse_faults(reader)? })
            }
            Some("icmp") => {
                reader.word()?;
                let (kind, code) = (reader.number()?, reader.number()?);
                let quotes = reader.named("quotes")?.ok_or("an ICMP error `quotes` a sequence number of ours")?;
                let mtu = reader.named("mtu")?.unwrap_or(0);
                let of_bytes = reader.named("of")?.unwrap_or(1_500);
                let port = reader.client_port()?;
                Ok(Packet::Icmp { kind, code, quotes, of_bytes, mtu, port, faults: parse_faults(reader)? })
            }
            Some("bytes") => {
                reader.word()?;
                Ok(Packet::Bytes(reader.hex()?))
            }
            Some("solicit" | "advertise") => Neighbor::parse(reader).map(Packet::Neighbor),
            Some("router") => {
                reader.word()?;
                let lifetime_s = reader.number()?;
                let network = match reader.has("prefix") {
                    true => {
                        let (address, bits) = reader.network()?;
                        Some((address, bits, reader.number()?))
                    }
                    false => None,
                };
                let has_link = !reader.has("no-link");
                Ok(Packet::Router { lifetime_s, network, has_link, faults: parse_faults(reader)? })
            }
            Some("routers?") => {
                reader.word()?;
                Ok(Packet::RouterQuestion)
            }
            Some("problem") => {
                reader.word()?;
                Ok(Packet::Problem { code: reader.number()?, pointer: reader.number()? })
            }
            _ => Tcp::parse(reader).map(Packet::Tcp),
        }
    }
}

impl Tcp {
    fn parse(reader: &mut Reader) -> Result<Tcp, String> {
        let mut tcp = Tcp::default();
        while let Some(word) = reader.next_word() {
            match word.as_str() {
                "port" => tcp.port = reader.number()?,
                "server-port" => tcp.server_port = Some(reader.number()?),
                "syn" => tcp.syn = true,
                "fin" => tcp.fin = true,
                "rst" => tcp.rst = true,
                "psh" => tcp.psh = true,
                "ece" => tcp.ece = true,
                "cwr" => tcp.cwr = true,
                "ect" => tcp.ect = true,
                "ce" => tcp.ce = true,
                "urg" => tcp.urgent = Some(reader.number()?),
                "seq" => (tcp.seq, tcp.bytes) = reader.range().map(|(seq, bytes)| (Some(seq), bytes))?,
                "iss" => {
                    tcp.iss = Some(reader.number()?);
                    tcp.seq = tcp.iss;
                }
                "ack" => tcp.ack = Some(reader.number()?),
                "window" => tcp.window = Some(reader.number()?),
                "mss" => tcp.mss = Some(reader.number()?),
                "wscale" => tcp.window_scale = Some(reader.number()?),
                "sack-ok" => tcp.sack_permitted = true,
                "dscp" => tcp.dscp = Some(reader.number()?),
                "ttl" => tcp.ttl = Some(reader.number()?),
                "ts" => tcp.timestamps = Some((reader.number()?, reader.number()?)),
                "sack" => {
                    while reader.peek().is_some_and(|word| word.contains("..")) {
                        let (start, bytes) = reader.range()?;
                        tcp.sack.push((start, start.wrapping_add(bytes)));
                    }
                }
                "no" => match reader.word()?.as_str() {
                    absent @ ("mss" | "wscale" | "sack-ok" | "ts" | "sack" | "psh") => tcp.without.push(absent.into()),
                    other => return Err(format!("nothing is sent with `{other}` anyway")),
                },
                "option" => tcp.option_bytes.extend(reader.hex()?),
                other => tcp.faults.push(Fault::parse(other, reader)?),
            }
        }
        Ok(tcp)
    }

    /// What the script expects and `actual` does not have, or has otherwise.
    pub fn difference(&self, actual: &Tcp) -> Option<String> {
        let flags = |tcp: &Tcp| (tcp.syn, tcp.fin, tcp.rst, tcp.urgent.is_some(), tcp.ack.is_some());
        let wrong = |what: &str| Some(format!("{what} differs"));
        if self.port != actual.port || self.server_port.is_some_and(|port| Some(port) != actual.server_port) {
            return wrong("a port");
        }
        if flags(self) != flags(actual) {
            return wrong("a control bit");
        }
        if self.urgent != actual.urgent {
            return wrong("the urgent pointer");
        }
        let must_lack_psh = self.without.iter().any(|without| without == "psh");
        if (self.psh && !actual.psh)
            || (must_lack_psh && actual.psh)
            || self.ece != actual.ece
            || self.cwr != actual.cwr
        {
            return wrong("PSH, ECE or CWR");
        }
        if (self.ect, self.ce) != (actual.ect, actual.ce) {
            return wrong("ECT or CE");
        }
        if self.seq != actual.seq {
            return wrong("the sequence number");
        }
        if self.bytes != actual.bytes {
            return wrong("the length of the data");
        }
        if self.ack != actual.ack {
            return wrong("the acknowledgment number");
        }
        if self.window.is_some() && self.window != actual.window {
            return wrong("the window");
        }
        if self.dscp.is_some_and(|dscp| Some(dscp) != actual.dscp)
            || self.ttl.is_some_and(|ttl| Some(ttl) != actual.ttl)
        {
            return wrong("the DSCP or the TTL");
        }
        self.option_difference(actual)
    }

    fn option_difference(&self, actual: &Tcp) -> Option<String> {
        let pairs = [
            ("mss", self.mss.is_some(), actual.mss.is_some(), self.mss == actual.mss),
            (
                "wscale",
                self.window_scale.is_some(),
                actual.window_scale.is_some(),
                self.window_scale == actual.window_scale,
            ),
            ("sack", !self.sack.is_empty(), !actual.sack.is_empty(), self.sack == actual.sack),
            ("sack-ok", self.sack_permitted, actual.sack_permitted, self.sack_permitted == actual.sack_permitted),
            ("ts", self.timestamps.is_some(), actual.timestamps.is_some(), self.timestamps == actual.timestamps),
        ];
        for (name, is_expected, is_there, is_equal) in pairs {
            if is_expected && !is_equal {
                return Some(format!("option {name} differs"));
            }
            if is_there && self.without.iter().any(|without| without == name) {
                return Some(format!("option {name} must not be there"));
            }
        }
        None
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packet::Tcp(tcp) => tcp.fmt(f),
            Packet::Arp { is_request: true, address, .. } => write!(f, "arp who-has {address}"),
            Packet::Arp { is_request: false, address, .. } => write!(f, "arp is-at {address}"),
            Packet::Echo { is_request, id, sequence, bytes, .. } => {
                let name = if *is_request { "ping" } else { "pong" };
                write!(f, "{name} id {id} sequence {sequence} bytes {bytes}")
            }
            Packet::Icmp { kind, code, quotes, .. } => write!(f, "icmp {kind} {code} quotes {quotes}"),
            Packet::Bytes(bytes) => write!(f, "bytes {bytes:02x?}"),
            Packet::Neighbor(neighbor) => neighbor.fmt(f),
            Packet::Router { lifetime_s, .. } => write!(f, "router {lifetime_s}"),
            Packet::RouterQuestion => f.write_str("routers?"),
            Packet::Problem { code, pointer } => write!(f, "problem {code} {pointer}"),
        }
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.port != CLIENT_PORT {
            words.push(format!("port {}", self.port));
        }
        let flags = [
            ("syn", self.syn),
            ("fin", self.fin),
            ("rst", self.rst),
            ("psh", self.psh),
            ("ece", self.ece),
            ("cwr", self.cwr),
            ("ect", self.ect),
            ("ce", self.ce),
        ];
        words.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_string()));
        words.extend(self.urgent.map(|pointer| format!("urg {pointer}")));
        words.extend(self.seq.map(|seq| match self.bytes {
            0 => format!("seq {seq}"),
            bytes => format!("seq {seq}..{}", seq.wrapping_add(bytes)),
        }));
        words.extend(self.ack.map(|ack| format!("ack {ack}")));
        words.extend(self.window.map(|window| format!("window {window}")));
        words.extend(self.mss.map(|mss| format!("mss {mss}")));
        words.extend(self.window_scale.map(|shift| format!("wscale {shift}")));
        words.extend(self.sack_permitted.then(|| "sack-ok".to_string()));
        words.extend(self.timestamps.map(|(value, echo)| format!("ts {value} {echo}")));
        let blocks: Vec<String> = self.sack.iter().map(|(start, end)| format!("{start}..{end}")).collect();
        words.extend((!blocks.is_empty()).then(|| format!("sack {}", blocks.join(" "))));
        f.write_str(&words.join(" "))
    }
}
