//! The script language: one conversation per file, a line for each thing that happens or must happen.
//!
//! ```text
//! listen iss 5000 window 1000        the stack; always the first line. `listen ipv6`: the conversation is over IPv6
//! >> syn seq 100 mss 1460            goes into the stack
//! >+ seq 101..201 ack 5001           waits, and goes in together with the next `>>`, in one batch
//! << syn seq 5000 ack 101            comes out of it
//! !! ListenAcceptsSyn                the rule counted since the last thing that happened
//! state SYN-RECEIVED                 what the connection is in; LISTEN where there is none
//! at 200ms                           moves the clock, firing what is due on the way
//! push 100 / close / abort / drain   what the application does; `tick` calls the shard without moving the clock
//! push 9 key 1 expires 5             a push with an idempotency key, dropped if it is not begun within 5 s
//! push 9 urgent                      a push of urgent bytes
//! half-close / connect               FIN, but reading goes on; the stack opens a connection to the client
//! pause / resume                     the application stops and goes on reading
//! asks dscp 46 / asks nagle          what the application asks for its connection when it is next told something
//! app opened / app received 100      what the application was told; `app silent`: nothing
//! ```
//!
//! What a line may say of a packet is in `packet`. A line that is not understood fails the script by file and line.

use holdline::tcp::{Ecn, Keepalive, UserTimeout};

use super::packet::Packet;
use super::reader::Reader;

/// What the application of a script does with what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Returns what it receives.
    Echo,
    /// Consumes everything; closes when the peer has closed.
    Hold,
    /// Consumes everything; stays open when the peer has closed.
    Keep,
    /// Consumes nothing; stays open when the peer has closed.
    Stall,
}

/// What a script is played over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4, as most scripts are written.
    Ipv4,
    /// IPv4 as it is written, IPv6 on the wire: see `Ends::on_wire`.
    Ipv4AsIpv6,
    /// `listen ipv6`: a script that is about IPv6.
    Ipv6,
}

/// What an application asks for one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// `asks nagle` or `asks no-nagle`
    Nagle(bool),
    /// `asks dscp N`
    Dscp(u8),
    /// `asks keepalive` or `asks no-keepalive`
    Keepalive(Keepalive),
    /// `asks user-timeout 30s` or `asks no-user-timeout`
    UserTimeout(UserTimeout),
}

/// The `listen` line. What is not written is the shard's default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The initial sequence number by which the script calls the stack's.
    pub iss: u32,
    /// Port that is listened on.
    pub port: u16,
    /// Receive window, in bytes.
    pub window_bytes: Option<u32>,
    /// Largest IP packet of the link, in bytes.
    pub mtu: Option<u16>,
    /// Bytes that may wait in one flow's send queue.
    pub send_queue_bytes: Option<u32>,
    /// Half-open connections at most.
    pub half_open_max: Option<u32>,
    /// User timeout, in seconds.
    pub user_timeout_s: Option<u32>,
    /// Length of TIME-WAIT, in seconds.
    pub time_wait_s: Option<u32>,
    /// Length of FIN-WAIT-2, in seconds.
    pub fin_wait_2_s: Option<u32>,
    /// Keepalive interval, in seconds.
    pub keepalive_s: Option<u32>,
    /// How long an ACK may wait, in ms; 0 where it is not written.
    pub delayed_ack_ms: Option<u32>,
    /// Whether congestion is avoided as RFC 6582 has it, and not as RFC 9438 does.
    pub is_new_reno: bool,
    /// Whether small segments wait while something is in flight.
    pub has_nagle: bool,
    /// Whether peers get ECN, or are asked for it; the shard's default where it is not written.
    pub ecn: Option<Ecn>,
    /// Differentiated services codepoint of what the stack sends.
    pub dscp: Option<u8>,
    /// Its time to live.
    pub ttl: Option<u8>,
    /// Idle time-out, in seconds.
    pub idle_timeout_s: Option<u32>,
    /// Room for so many flows.
    pub flows: Option<u32>,
    /// Room for so many active blocks.
    pub actives: Option<u32>,
    /// Room for so many payload blocks.
    pub blocks: Option<u32>,
    /// The router, as the last byte of its address.
    pub gateway: Option<u8>,
    /// What it is spoken to over.
    pub family: Family,
    /// What the application does.
    pub behaviour: Behaviour,
}

impl Listen {
    /// A `listen` line without anything after it.
    pub fn plain() -> Listen {
        Listen {
            iss: 5000,
            port: 80,
            window_bytes: None,
            mtu: None,
            send_queue_bytes: None,
            half_open_max: None,
            user_timeout_s: None,
            time_wait_s: None,
            fin_wait_2_s: None,
            keepalive_s: None,
            delayed_ack_ms: None,
            is_new_reno: false,
            has_nagle: false,
            ecn: None,
            dscp: None,
            ttl: None,
            idle_timeout_s: None,
            flows: None,
            actives: None,
            blocks: None,
            gateway: None,
            family: Family::Ipv4,
            behaviour: Behaviour::Keep,
        }
    }
}

/// What the application must have been told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// This notice, by its name in small letters and its detail: `closed PeerReset`.
    Notice(String),
    /// So many bytes of the peer's stream, from its beginning.
    Received(u32),
    /// Nothing since the last `app` line; that a push was queued does not count.
    Silent,
}

/// One line, understood.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// `>>`
    Into(Packet),
    /// `>+`
    Held(Packet),
    /// `<<`
    OutOf(Packet),
    /// `!!`
    Rule(String),
    /// `state NAME`, of the connection from this client port.
    State { port: u16, name: String },
    /// `at TIME`, in microseconds since the script began.
    At(u64),
    /// `push BYTES` on the connection from this client port, with its idempotency key and end.
    Push { port: u16, bytes: u32, key: Option<u8>, expires_in_s: u32, is_urgent: bool },
    /// `pause`: received bytes are kept from the application.
    Pause { port: u16 },
    /// `resume`: they are offered again.
    Resume { port: u16 },
    /// `close`: FIN after what is queued.
    Close { port: u16 },
    /// `half-close`: the same, and what the peer sends is still received.
    HalfClose { port: u16 },
    /// `connect`: the stack opens a connection to this client port, from the port that it listens on.
    Connect { port: u16, to: Option<std::net::IpAddr> },
    /// `abort`: RST now.
    Abort { port: u16 },
    /// `service NAME`: the application behaves otherwise from now on.
    Behave(Behaviour),
    /// `asks ...`
    Ask(Wish),
    /// `tick`
    Tick,
    /// `drain`: no new connections from now on.
    Drain,
    /// `app ...`, about the connection from this client port.
    App { port: u16, told: Told },
}

impl Step {
    /// Whether the line says what must be so; the others make something happen.
    pub fn is_expectation(&self) -> bool {
        matches!(self, Step::OutOf(_) | Step::Rule(_) | Step::State { .. } | Step::App { .. })
    }
}

/// A file, understood.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    /// The first line that is not a comment.
    pub listen: Listen,
    /// The others, each with its line number.
    pub steps: Vec<(usize, Step)>,
}

/// The client port that is meant where none is written.
pub const CLIENT_PORT: u16 = 40_000;

impl Script {
    /// Understands a script, or says which line is wrong and why. The first line must be a comment, and must cite what
    /// the expectation stands on.
    pub fn parse(text: &str) -> Result<Script, (usize, String)> {
        let claim: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        if !claim.iter().any(|line| line.contains("RFC") || line.contains("MUST-") || line.contains("Policy")) {
            return Err((1, "a script begins with a comment: its claim, and the RFC and section it stands on".into()));
        }
        let mut listen = None;
        let mut steps = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let mut reader = Reader::new(line);
            let first = reader.word().map_err(|what| (number, what))?;
            if first == "listen" {
                if listen.is_some() {
                    return Err((number, "one script has one `listen` line".into()));
                }
                listen = Some(parse_listen(&mut reader).map_err(|what| (number, what))?);
                continue;
            }
            if listen.is_none() {
                return Err((number, "the first line of a script is `listen`".into()));
            }
            let step = parse_step(&first, &mut reader).map_err(|what| (number, what))?;
            reader.finish().map_err(|what| (number, what))?;
            steps.push((number, step));
        }
        match listen {
            Some(listen) => Ok(Script { listen, steps }),
            None => Err((1, "no `listen` line".into())),
        }
    }
}

fn parse_listen(reader: &mut Reader) -> Result<Listen, String> {
    let mut listen = Listen::plain();
    while let Some(word) = reader.next_word() {
        match word.as_str() {
            "iss" => listen.iss = reader.number()?,
            "port" => listen.port = reader.number()?,
            "window" => listen.window_bytes = Some(reader.number()?),
            "mtu" => listen.mtu = Some(reader.number()?),
            "send-queue" => listen.send_queue_bytes = Some(reader.number()?),
            "half-open" => listen.half_open_max = Some(reader.number()?),
            "user-timeout" => listen.user_timeout_s = Some(reader.seconds()?),
            "time-wait" => listen.time_wait_s = Some(reader.seconds()?),
            "fin-wait-2" => listen.fin_wait_2_s = Some(reader.seconds()?),
            "keepalive" => listen.keepalive_s = Some(reader.seconds()?),
            "delayed-ack" => listen.delayed_ack_ms = Some((reader.time_us()? / 1_000) as u32),
            "new-reno" => listen.is_new_reno = true,
            "nagle" => listen.has_nagle = true,
            "no-ecn" => listen.ecn = Some(Ecn::Off),
            "asks-ecn" => listen.ecn = Some(Ecn::Asks),
            "dscp" => listen.dscp = Some(reader.number()?),
            "ttl" => listen.ttl = Some(reader.number()?),
            "idle-timeout" => listen.idle_timeout_s = Some(reader.seconds()?),
            "flows" => listen.flows = Some(reader.number()?),
            "actives" => listen.actives = Some(reader.number()?),
            "blocks" => listen.blocks = Some(reader.number()?),
            "gateway" => listen.gateway = Some(reader.number()?),
            "ipv6" => listen.family = Family::Ipv6,
            "service" => listen.behaviour = behaviour(&reader.word()?)?,
            other => return Err(format!("`listen` knows no `{other}`")),
        }
    }
    Ok(listen)
}

fn parse_step(first: &str, reader: &mut Reader) -> Result<Step, String> {
    Ok(match first {
        ">>" => Step::Into(Packet::parse_into(reader)?),
        ">+" => Step::Held(Packet::parse_into(reader)?),
        "<<" => Step::OutOf(Packet::parse_out_of(reader)?),
        "!!" => Step::Rule(reader.word()?),
        "state" => Step::State { name: reader.word()?, port: reader.client_port()? },
        "at" => Step::At(reader.time_us()?),
        "push" => Step::Push {
            bytes: reader.number()?,
            key: reader.named("key")?,
            expires_in_s: reader.named("expires")?.unwrap_or(0),
            is_urgent: reader.has("urgent"),
            port: reader.client_port()?,
        },
        "pause" => Step::Pause { port: reader.client_port()? },
        "resume" => Step::Resume { port: reader.client_port()? },
        "close" => Step::Close { port: reader.client_port()? },
        "half-close" => Step::HalfClose { port: reader.client_port()? },
        "connect" => {
            let port = reader.client_port()?;
            let to = if reader.has("to") { Some(reader.address()?) } else { None };
            Step::Connect { port, to }
        }
        "abort" => Step::Abort { port: reader.client_port()? },
        "service" => Step::Behave(behaviour(&reader.word()?)?),
        "asks" => Step::Ask(parse_wish(reader)?),
        "tick" => Step::Tick,
        "drain" => Step::Drain,
        "app" => {
            let told = match reader.word()?.as_str() {
                "silent" => Told::Silent,
                "received" => Told::Received(reader.number()?),
                notice @ ("closed" | "refused" | "undelivered" | "urgent" | "soft-error") => {
                    Told::Notice(format!("{notice} {}", reader.word()?))
                }
                notice @ ("opened" | "delivered" | "peer-closed" | "expired") => Told::Notice(notice.into()),
                other => return Err(format!("an application is never told `{other}`")),
            };
            Step::App { told, port: reader.client_port()? }
        }
        other => return Err(format!("no line begins with `{other}`")),
    })
}

fn parse_wish(reader: &mut Reader) -> Result<Wish, String> {
    Ok(match reader.word()?.as_str() {
        "nagle" => Wish::Nagle(true),
        "no-nagle" => Wish::Nagle(false),
        "dscp" => Wish::Dscp(reader.number()?),
        "keepalive" => Wish::Keepalive(Keepalive::On),
        "no-keepalive" => Wish::Keepalive(Keepalive::Off),
        "user-timeout" => Wish::UserTimeout(UserTimeout::Seconds(reader.seconds()?)),
        "no-user-timeout" => Wish::UserTimeout(UserTimeout::Never),
        other => return Err(format!("an application cannot ask for `{other}`")),
    })
}

fn behaviour(name: &str) -> Result<Behaviour, String> {
    match name {
        "echo" => Ok(Behaviour::Echo),
        "hold" => Ok(Behaviour::Hold),
        "keep" => Ok(Behaviour::Keep),
        "stall" => Ok(Behaviour::Stall),
        other => Err(format!("there is no service `{other}`; there are echo, hold, keep and stall")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::Tcp;
    use super::*;

    fn script(lines: &str) -> Result<Script, (usize, String)> {
        Script::parse(&format!("# RFC 9293\n{lines}"))
    }

    #[test]
    fn the_example_of_the_house_style_is_understood() {
        let script = script(
            "listen iss 5000 window 1000\n>> seq 100 ack 77\n<< rst seq 77\n!! ListenRejectsAck\nstate LISTEN\n",
        );
        let script = script.expect("the example");
        assert_eq!((script.listen.iss, script.listen.window_bytes), (5000, Some(1000)));
        let numbers: Vec<usize> = script.steps.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4, 5, 6]);
        let Step::Into(Packet::Tcp(into)) = &script.steps[0].1 else { panic!("a segment goes in") };
        assert_eq!((into.seq, into.ack, into.bytes), (Some(100), Some(77), 0));
        let expected = Tcp { seq: Some(77), rst: true, ..Tcp::default() };
        assert_eq!(script.steps[1].1, Step::OutOf(Packet::Tcp(expected)));
        assert_eq!(script.steps[2].1, Step::Rule("ListenRejectsAck".into()));
        assert_eq!(script.steps[3].1, Step::State { port: CLIENT_PORT, name: "LISTEN".into() });
    }

    #[test]
    fn a_data_range_is_half_open_and_may_wrap() {
        let script = script("listen\n>> seq 4294967290..4 ack 1\n").expect("a range across the wrap");
        let Step::Into(Packet::Tcp(into)) = &script.steps[0].1 else { panic!("a segment goes in") };
        assert_eq!((into.seq, into.bytes), (Some(4_294_967_290), 10));
    }

    #[test]
    fn what_is_not_understood_fails_by_line() {
        for (lines, line) in [
            ("listen\n>> seq 1 ack 1 colour 7\n", 3),
            ("listen\n>> ack 1\n", 3),
            ("listen\nstate\n", 3),
            ("listen\nat 200\n", 3),
            ("listen window lots\n", 2),
            ("listen\nlisten\n", 3),
            (">> seq 1 ack 1\n", 2),
            ("listen\n\nfly\n", 4),
            ("listen\n<< ack 7\n", 3),
            ("listen\n<< seq 7 corrupt checksum\n", 3),
            ("listen\n>> seq 1..70000\n", 3),
            ("listen\n!! One Two\n", 3),
            ("listen\nservice sleep\n", 3),
            ("listen\nasks sleep\n", 3),
            ("listen\n>> seq 1 dscp 3\n", 3),
            ("listen\napp asleep\n", 3),
        ] {
            assert_eq!(script(lines).map_err(|(line, _)| line), Err(line), "{lines}");
        }
    }

    #[test]
    fn a_script_without_its_ground_fails() {
        assert!(Script::parse("listen\n").is_err());
        assert!(Script::parse("# An ACK cannot open a connection.\nlisten\n").is_err());
        assert!(Script::parse("# An ACK cannot open a connection. RFC 9293 §3.10.7.2.\nlisten\n").is_ok());
        assert!(Script::parse("# RFC 9293\n").is_err());
    }

    #[test]
    fn times_have_units() {
        let script = script("listen time-wait 2s\nat 2s\nat 300ms\nat 40us\n").expect("times");
        let steps: Vec<Step> = script.steps.into_iter().map(|(_, step)| step).collect();
        assert_eq!(steps, [Step::At(2_000_000), Step::At(300_000), Step::At(40)]);
        assert_eq!(script.listen.time_wait_s, Some(2));
    }
}
