//! Links and addresses, as flags name them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use holdline::link::af_xdp::{AfXdpOptions, Interface, Steering};
use holdline::link::{AfXdp, Link, Persistence, Raw, Tap, interface, link_local_for};

/// A link, by the kind and the name of its interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkName {
    /// A TAP device.
    Tap(String),
    /// A raw socket on an interface.
    Raw(String),
    /// AF_XDP on queues of an interface.
    AfXdp {
        /// The interface.
        name: String,
        /// The queues.
        queues: Queues,
        /// What the kernel is not to choose by itself.
        wishes: Wishes,
    },
}

/// Queues that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queues {
    first: u32,
    /// Without it, as many as there are workers.
    count: Option<u32>,
}

/// How AF_XDP is to work, where that is not left to what the interface can do best.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wishes {
    is_generic: bool,
    is_copied: bool,
    is_busy_polled: bool,
}

/// What is to come over a link.
pub struct Traffic<'a> {
    /// Our addresses, each with the prefix length of its network. A link whose interface has a link-local address of
    /// the kernel's adds one of ours.
    pub addresses: &'a mut Vec<(IpAddr, u8)>,
    /// Those of them that the kernel keeps.
    pub shared: &'a [IpAddr],
    /// The ports that we listen on.
    pub ports: &'a [u16],
    /// Whether routers are asked for.
    pub wants_routers: bool,
    /// Whether connections outlive the process.
    pub is_kept: bool,
}

impl LinkName {
    /// The name of the interface.
    pub fn interface(&self) -> &str {
        match self {
            LinkName::Tap(name) | LinkName::Raw(name) | LinkName::AfXdp { name, .. } => name,
        }
    }
}

/// Those of the addresses that the kernel keeps and shares with us: the link can steer, and it has them there.
pub fn shared_over(name: &LinkName, addresses: &[(IpAddr, u8)]) -> std::io::Result<Vec<IpAddr>> {
    let LinkName::AfXdp { name, .. } = name else { return Ok(Vec::new()) };
    let mut shared = Vec::new();
    for (address, _) in addresses {
        if interface::owners_of(*address)?.contains(name) {
            shared.push(*address);
        }
    }
    Ok(shared)
}

/// The link, and a word where nothing can come over it yet.
pub fn open_link(name: &LinkName, traffic: Traffic<'_>) -> Result<Box<dyn Link>, Box<dyn std::error::Error>> {
    let links = open_links(name, 1, traffic)?;
    links.into_iter().next().ok_or_else(|| "a link has at least one queue".into())
}

/// The queues of a link, one for each worker, and a word where nothing can come over them yet.
pub fn open_links(
    name: &LinkName,
    workers: usize,
    traffic: Traffic<'_>,
) -> Result<Vec<Box<dyn Link>>, Box<dyn std::error::Error>> {
    for (address, _) in traffic.addresses.iter().filter(|(address, _)| !traffic.shared.contains(address)) {
        if let Some(owner) = interface::owners_of(*address)?.first() {
            return Err(format!(
                "the kernel has {address} itself, on {owner}, and would answer with RST: take it away with \
                 `ip address del`, or give holdline another, or share it over af-xdp:{owner}"
            )
            .into());
        }
    }
    let links: Vec<Box<dyn Link>> = match name {
        LinkName::Tap(name) => {
            Tap::open_queues(name, workers)?.into_iter().map(|tap| Box::new(tap) as Box<dyn Link>).collect()
        }
        LinkName::Raw(name) if workers == 1 => vec![Box::new(Raw::open(name)?)],
        LinkName::Raw(_) => return Err("a raw link has one queue: take --workers 1, a TAP, or AF_XDP".into()),
        LinkName::AfXdp { name, queues: Queues { first, count }, wishes } => {
            let workers = u32::try_from(workers)?;
            if count.is_some_and(|count| count != workers) {
                return Err(format!("each worker has a queue, but {workers} and these queues are not as many").into());
            }
            open_af_xdp(name, *first..first + workers, *wishes, traffic)?
        }
    };
    let name = name.interface();
    if !interface::is_up(name)? {
        eprintln!("the interface {name} is down: bring it up with `ip link set {name} up`");
    }
    Ok(links)
}

/// A link for each queue, and a word on how they work.
fn open_af_xdp(
    name: &str,
    queues: Range<u32>,
    wishes: Wishes,
    traffic: Traffic<'_>,
) -> Result<Vec<Box<dyn Link>>, Box<dyn std::error::Error>> {
    let own = |traffic: &Traffic<'_>| -> Vec<IpAddr> {
        let addresses = traffic.addresses.iter().map(|(address, _)| *address);
        addresses.filter(|address| !traffic.shared.contains(address)).collect()
    };
    let ipv6 = |address: IpAddr| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    let given: Vec<Ipv6Addr> = own(&traffic).into_iter().filter_map(ipv6).collect();
    if let (Some(first), false) = (given.first(), given.iter().any(Ipv6Addr::is_unicast_link_local)) {
        // The interface's Ethernet address is ours and the kernel's, but a link-local address cannot be.
        traffic.addresses.push((link_local_for(*first).into(), 64));
    }
    let steering = Steering {
        addresses: own(&traffic),
        shared_addresses: traffic.shared.to_vec(),
        ports: traffic.ports.to_vec(),
        wants_routers: traffic.wants_routers,
    };
    let Wishes { is_generic, is_copied, is_busy_polled } = wishes;
    let persistence = if traffic.is_kept { Persistence::Kept } else { Persistence::Vanishes };
    let shared_by = queues.end - queues.start;
    let options = AfXdpOptions { queues: shared_by, persistence, is_generic, is_copied, is_busy_polled };
    let interface = Interface::open(name, &steering, options)?;
    let links = queues.map(|queue| interface.queue(queue)).collect::<Result<Vec<AfXdp>, _>>()?;
    links.iter().for_each(|link| eprintln!("{}", link.description()));
    if let Some(advice) = links.first().and_then(AfXdp::advice) {
        eprintln!("{advice}");
    }
    Ok(links.into_iter().map(|link| Box::new(link) as Box<dyn Link>).collect())
}

/// tap:NAME, raw:IFACE, or af-xdp:IFACE[:QUEUE[-QUEUE]][,WISH...].
pub fn parse_link(text: &str) -> Result<LinkName, String> {
    match text.split_once(':') {
        Some(("tap", name)) if !name.is_empty() => Ok(LinkName::Tap(name.to_owned())),
        Some(("raw", name)) if !name.is_empty() => Ok(LinkName::Raw(name.to_owned())),
        Some(("af-xdp", rest)) if !rest.is_empty() => parse_af_xdp(rest),
        _ => Err("a link is tap:NAME, raw:IFACE or af-xdp:IFACE[:QUEUE[-QUEUE]], where NAME or IFACE is an interface \
                  such as tap0"
            .to_owned()),
    }
}

fn parse_af_xdp(text: &str) -> Result<LinkName, String> {
    let mut parts = text.split(',');
    let place = parts.next().unwrap_or_default();
    let mut wishes = Wishes::default();
    for wish in parts {
        match wish {
            "generic" => wishes.is_generic = true,
            "copy" => wishes.is_copied = true,
            "busy-poll" => wishes.is_busy_polled = true,
            _ => return Err(format!("`{wish}` is none of what af-xdp can be asked for: generic, copy, busy-poll")),
        }
    }
    let wrong = "af-xdp takes an interface and a queue or several, such as af-xdp:eth0:0 or af-xdp:eth0:0-3";
    let (name, queues) = place.split_once(':').unwrap_or((place, "0"));
    let number = |text: &str| text.parse::<u16>().map(u32::from).map_err(|_| wrong.to_owned());
    let queues = match queues.split_once('-') {
        None => Queues { first: number(queues)?, count: None },
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            Queues { first, count: Some((last + 1).checked_sub(first).filter(|count| *count > 0).ok_or(wrong)?) }
        }
    };
    match name.is_empty() {
        true => Err(wrong.to_owned()),
        false => Ok(LinkName::AfXdp { name: name.to_owned(), queues, wishes }),
    }
}

/// ADDR/PREFIX.
pub fn parse_address(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = "an address is an IPv4 or IPv6 address with a prefix length, such as 10.0.0.2/24 or fd00::2/64";
    let (address, prefix) = text.split_once('/').ok_or(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong)?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|bits| *bits <= bits_max).ok_or(wrong)?;
    let is_broadcast = address == Ipv4Addr::BROADCAST;
    if address.is_unspecified() || address.is_multicast() || is_broadcast || address.is_loopback() {
        return Err(format!("{address} is no address that a host on a link can have"));
    }
    if let IpAddr::V4(address) = address
        && prefix < 31
        && [0, u32::MAX >> prefix].contains(&(address.to_bits() & u32::MAX >> prefix))
    {
        return Err(format!("{address} is the network {address}/{prefix} itself, or its broadcast address"));
    }
    Ok((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_prefix() {
        assert_eq!(parse_address("10.0.0.2/24"), Ok((Ipv4Addr::new(10, 0, 0, 2).into(), 24)));
        assert_eq!(parse_address("fd00::2/64"), Ok(("fd00::2".parse().unwrap(), 64)));
        for right in ["10.1.0.0/31", "10.1.0.255/32", "10.1.0.255/16", "10.0.0.1/8", "10.0.0.2/0"] {
            assert!(parse_address(right).is_ok(), "{right:?}");
        }
        for wrong in [
            "10.0.0.2",
            "10.0.0/8",
            "10.0.0.2/33",
            "10.0.0.2/",
            "::1/64",
            "fd00::2",
            "fd00::2/129",
            "ff02::1/16",
            "::/0",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "10.1.0.0/24",
            "10.1.0.255/24",
            "10.1.255.255/16",
        ] {
            assert!(parse_address(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn links_are_read() {
        assert_eq!(parse_link("tap:tap0"), Ok(LinkName::Tap("tap0".to_owned())));
        assert_eq!(parse_link("raw:eth0"), Ok(LinkName::Raw("eth0".to_owned())));
        let af_xdp = |first, count, wishes| {
            Ok(LinkName::AfXdp { name: "eth0".to_owned(), queues: Queues { first, count }, wishes })
        };
        assert_eq!(parse_link("af-xdp:eth0"), af_xdp(0, None, Wishes::default()));
        assert_eq!(parse_link("af-xdp:eth0:3"), af_xdp(3, None, Wishes::default()));
        assert_eq!(parse_link("af-xdp:eth0:1-3"), af_xdp(1, Some(3), Wishes::default()));
        let wishes = Wishes { is_generic: true, is_copied: true, is_busy_polled: true };
        assert_eq!(parse_link("af-xdp:eth0:1,busy-poll,copy,generic"), af_xdp(1, None, wishes));
        for wrong in [
            "tap:",
            "tap0",
            "raw:",
            "eth0",
            "af-xdp:",
            "af-xdp::0",
            "af-xdp:eth0:",
            "af-xdp:eth0:x",
            "af-xdp:eth0:-1",
            "af-xdp:eth0:3-1",
            "af-xdp:eth0:3-",
            "af-xdp:eth0:0,fast",
        ] {
            assert!(parse_link(wrong).is_err(), "{wrong:?}");
        }
    }
}
