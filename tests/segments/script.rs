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

use std::net::IpAddr;

use holdline::flows::Capacity;
use holdline::shard::{CloseHow, Config, CongestionControl, Ecn, Keepalive, UserTimeout};

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
#[derive(Clone, Debug)]
pub struct Listen {
    /// The initial sequence number by which the script calls the stack's.
    pub iss: u32,
    /// Port that is listened on.
    pub port: u16,
    /// What it is spoken to over.
    pub family: Family,
    /// What the application does.
    pub behaviour: Behaviour,
    /// What there is room for.
    pub capacity: Capacity,
    /// All else that the shard is told; without addresses of its own and ports, and its router as one of IPv4.
    pub config: Config,
}

impl Listen {
    /// A `listen` line without anything after it.
    fn plain() -> Listen {
        Listen {
            iss: 5000,
            port: 80,
            family: Family::Ipv4,
            behaviour: Behaviour::Keep,
            capacity: Capacity::for_connections(1_000),
            config: Config { delayed_ack_ms: 0, ..Config::default() },
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
    /// Something happens.
    Act(Act),
    /// Something must be so.
    Expect(Expectation),
}

/// What happens.
#[derive(Clone, PartialEq, Debug)]
pub enum Act {
    /// `>>`
    Into(Packet),
    /// `>+`
    Held(Packet),
    /// `at TIME`, in microseconds since the script began.
    At(u64),
    /// `push BYTES` on the connection from this client port, with its idempotency key and end.
    Push { port: u16, bytes: u32, key: Option<u8>, expires_in_s: u32, is_urgent: bool },
    /// `pause`: received bytes are kept from the application.
    Pause { port: u16 },
    /// `resume`: they are offered again.
    Resume { port: u16 },
    /// `close`, `half-close` or `abort`.
    Close { port: u16, how: CloseHow },
    /// `connect`: the stack opens a connection to this client port, from the port that it listens on.
    Connect { port: u16, to: Option<IpAddr> },
    /// `service NAME`: the application behaves otherwise from now on.
    Behave(Behaviour),
    /// `asks ...`
    Ask(Wish),
    /// `tick`
    Tick,
    /// `drain`: no new connections from now on.
    Drain,
}

/// What must be so.
#[derive(Clone, PartialEq, Debug)]
pub enum Expectation {
    /// `<<`
    OutOf(Packet),
    /// `!!`
    Rule(String),
    /// `state NAME`, of the connection from this client port.
    State { port: u16, name: String },
    /// `app ...`, about the connection from this client port.
    App { port: u16, told: Told },
}

/// A file, understood.
#[derive(Clone, Debug)]
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
    let (capacity, config) = (&mut listen.capacity, &mut listen.config);
    while let Some(word) = reader.next_word() {
        match word.as_str() {
            "iss" => listen.iss = reader.number()?,
            "port" => listen.port = reader.number()?,
            "window" => config.window_bytes = reader.number()?,
            "mtu" => config.mtu = reader.number()?,
            "send-queue" => config.send_queue_bytes = reader.number()?,
            "half-open" => config.half_open_max = reader.number()?,
            "user-timeout" => config.user_timeout_s = reader.seconds()?,
            "time-wait" => config.time_wait_s = reader.seconds()?,
            "fin-wait-2" => config.fin_wait_2_s = reader.seconds()?,
            "keepalive" => config.keepalive_s = reader.seconds()?,
            "delayed-ack" => config.delayed_ack_ms = (reader.time_us()? / 1_000) as u32,
            "new-reno" => config.congestion = CongestionControl::NewReno,
            "nagle" => config.nagle = true,
            "no-ecn" => config.ecn = Ecn::Off,
            "asks-ecn" => config.ecn = Ecn::Asks,
            "dscp" => config.dscp = reader.number()?,
            "ttl" => config.ttl = reader.number()?,
            "idle-timeout" => config.idle_timeout_s = reader.seconds()?,
            "flows" => capacity.flows = reader.number()?,
            "actives" => capacity.actives = reader.number()?,
            "blocks" => capacity.blocks = reader.number()?,
            "gateway" => config.gateways = vec![[10, 0, 0, reader.number()?].into()],
            "ipv6" => listen.family = Family::Ipv6,
            "service" => listen.behaviour = behaviour(&reader.word()?)?,
            other => return Err(format!("`listen` knows no `{other}`")),
        }
    }
    Ok(listen)
}

fn parse_step(first: &str, reader: &mut Reader) -> Result<Step, String> {
    Ok(Step::Act(match first {
        ">>" => Act::Into(Packet::parse_into(reader)?),
        ">+" => Act::Held(Packet::parse_into(reader)?),
        "at" => Act::At(reader.time_us()?),
        "push" => Act::Push {
            bytes: reader.number()?,
            key: reader.named("key")?,
            expires_in_s: reader.named("expires")?.unwrap_or(0),
            is_urgent: reader.has("urgent"),
            port: reader.client_port()?,
        },
        "pause" => Act::Pause { port: reader.client_port()? },
        "resume" => Act::Resume { port: reader.client_port()? },
        "close" => Act::Close { port: reader.client_port()?, how: CloseHow::Fin },
        "half-close" => Act::Close { port: reader.client_port()?, how: CloseHow::Half },
        "abort" => Act::Close { port: reader.client_port()?, how: CloseHow::Reset },
        "connect" => {
            let port = reader.client_port()?;
            let to = if reader.has("to") { Some(reader.address()?) } else { None };
            Act::Connect { port, to }
        }
        "service" => Act::Behave(behaviour(&reader.word()?)?),
        "asks" => Act::Ask(parse_wish(reader)?),
        "tick" => Act::Tick,
        "drain" => Act::Drain,
        _ => return parse_expectation(first, reader).map(Step::Expect),
    }))
}

fn parse_expectation(first: &str, reader: &mut Reader) -> Result<Expectation, String> {
    Ok(match first {
        "<<" => Expectation::OutOf(Packet::parse_out_of(reader)?),
        "!!" => Expectation::Rule(reader.word()?),
        "state" => Expectation::State { name: reader.word()?, port: reader.client_port()? },
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
            Expectation::App { told, port: reader.client_port()? }
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
        assert_eq!((script.listen.iss, script.listen.config.window_bytes), (5000, 1000));
        let numbers: Vec<usize> = script.steps.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 4, 5, 6]);
        let Step::Act(Act::Into(Packet::Tcp(into))) = &script.steps[0].1 else { panic!("a segment goes in") };
        assert_eq!((into.seq, into.ack, into.bytes), (Some(100), Some(77), 0));
        let expected = Tcp { seq: Some(77), rst: true, ..Tcp::default() };
        assert_eq!(script.steps[1].1, Step::Expect(Expectation::OutOf(Packet::Tcp(expected))));
        assert_eq!(script.steps[2].1, Step::Expect(Expectation::Rule("ListenRejectsAck".into())));
        assert_eq!(script.steps[3].1, Step::Expect(Expectation::State { port: CLIENT_PORT, name: "LISTEN".into() }));
    }

    #[test]
    fn a_data_range_is_half_open_and_may_wrap() {
        let script = script("listen\n>> seq 4294967290..4 ack 1\n").expect("a range across the wrap");
        let Step::Act(Act::Into(Packet::Tcp(into))) = &script.steps[0].1 else { panic!("a segment goes in") };
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
            assert_eq!(script(lines).err().map(|(line, _)| line), Some(line), "{lines}");
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
        assert_eq!(steps, [2_000_000, 300_000, 40].map(|time_us| Step::Act(Act::At(time_us))));
        assert_eq!(script.listen.config.time_wait_s, 2);
    }
}
