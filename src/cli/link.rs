//! Links and addresses, as flags name them.

use std::net::{IpAddr, Ipv4Addr};

use holdline::link::{Link, Raw, Tap, interface};

/// A link, by the kind and the name of its interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkName {
    /// A TAP device.
    Tap(String),
    /// A raw socket on an interface.
    Raw(String),
}

impl LinkName {
    /// The name of the interface.
    pub fn interface(&self) -> &str {
        match self {
            LinkName::Tap(name) | LinkName::Raw(name) => name,
        }
    }
}

/// The link, and a word where nothing can come over it yet.
pub fn open_link(name: &LinkName, addresses: &[(IpAddr, u8)]) -> Result<Box<dyn Link>, Box<dyn std::error::Error>> {
    let links = open_links(name, 1, addresses)?;
    links.into_iter().next().ok_or_else(|| "a link has at least one queue".into())
}

/// The queues of a link, one for each worker, and a word where nothing can come over them yet.
pub fn open_links(
    name: &LinkName,
    workers: usize,
    addresses: &[(IpAddr, u8)],
) -> Result<Vec<Box<dyn Link>>, Box<dyn std::error::Error>> {
    for (address, _) in addresses {
        if let Some(owner) = interface::owner_of(*address)? {
            return Err(format!(
                "the kernel has {address} itself, on {owner}, and would answer with RST: take it away with \
                 `ip address del`, or give holdline another"
            )
            .into());
        }
    }
    let links: Vec<Box<dyn Link>> = match name {
        LinkName::Tap(name) => {
            Tap::open_queues(name, workers)?.into_iter().map(|tap| Box::new(tap) as Box<dyn Link>).collect()
        }
        LinkName::Raw(name) if workers == 1 => vec![Box::new(Raw::open(name)?)],
        LinkName::Raw(_) => return Err("a raw link has one queue: take --workers 1, or a TAP".into()),
    };
    let name = name.interface();
    if !interface::is_up(name)? {
        eprintln!("the interface {name} is down: bring it up with `ip link set {name} up`");
    }
    Ok(links)
}

/// tap:NAME or raw:IFACE.
pub fn parse_link(text: &str) -> Result<LinkName, String> {
    match text.split_once(':') {
        Some(("tap", name)) if !name.is_empty() => Ok(LinkName::Tap(name.to_owned())),
        Some(("raw", name)) if !name.is_empty() => Ok(LinkName::Raw(name.to_owned())),
        _ => Err("a link is tap:NAME or raw:IFACE, where NAME or IFACE is an interface such as tap0".to_owned()),
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
    Ok((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_prefix() {
        assert_eq!(parse_address("10.0.0.2/24"), Ok((Ipv4Addr::new(10, 0, 0, 2).into(), 24)));
        assert_eq!(parse_address("fd00::2/64"), Ok(("fd00::2".parse().unwrap(), 64)));
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
        ] {
            assert!(parse_address(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn links_of_later_versions_are_refused() {
        assert_eq!(parse_link("tap:tap0"), Ok(LinkName::Tap("tap0".to_owned())));
        assert_eq!(parse_link("raw:eth0"), Ok(LinkName::Raw("eth0".to_owned())));
        for wrong in ["tap:", "tap0", "raw:", "eth0", "af-xdp:eth0:0"] {
            assert!(parse_link(wrong).is_err(), "{wrong:?}");
        }
    }
}
