//! The demo's private network: a namespace of its own, and a virtual cable in it.
//!
//! Goes out: a process that sees only its own `lo` and one cable, whose kernel side has 10.77.0.1/16 and fd77::1/64:
//! a TAP, or a veth pair with a raw socket or AF_XDP on its other end. Nothing of it is visible outside, and it
//! vanishes with the processes in it. Root needs a network namespace only; a plain user takes a user namespace along,
//! where it counts as root.
//!
//! Invariant: called before the process has a second thread, because a user namespace is for whole processes.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use holdline::link::af_xdp::{AfXdpOptions, Interface, Steering};
use holdline::link::{
    AfXdpError, InterfaceError, Link, Raw, RawError, Tap, TapError, complete_checksums, interface, link_local_for, veth,
};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

/// The kernel's side of the cable: clients have these addresses.
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const CLIENT_ADDRESS_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// Our side.
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const SERVER_ADDRESS_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);

/// The networks of both.
const PREFIX: u8 = 16;
const PREFIX_IPV6: u8 = 64;

/// What connects the clients with the server.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Cable {
    /// A TAP interface; needs /dev/net/tun.
    Tap,
    /// A raw socket on one end of a veth pair.
    VethRaw,
    /// AF_XDP on one end of a veth pair; needs root.
    VethAfXdp,
}

/// Why there is no private network.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Namespaces are closed to this user.
    #[error(
        "this system does not let this user make a network namespace ({0}): run as root, or allow user namespaces \
         (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
         kernel.apparmor_restrict_unprivileged_userns)"
    )]
    Closed(Errno),
    /// The user namespace could not be given its one user.
    #[error("cannot write {path} of the new user namespace: {source}; run as root")]
    Map {
        /// The file.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The cable, as a TAP.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Our end of a veth pair.
    #[error(transparent)]
    Raw(#[from] RawError),
    /// Our end of a veth pair, by its queue.
    #[error(transparent)]
    AfXdp(#[from] AfXdpError),
    /// The kernel's side.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Nobody answers for our address.
    #[error("after {max_s} s no answer for {0}: holdline does not answer on its cable", max_s = ANSWER_MAX.as_secs())]
    Silent(IpAddr),
    /// The question could not be asked.
    #[error("cannot ask for {SERVER_ADDRESS} in the private network: {0}")]
    Ask(io::Error),
}

/// Moves this process into a network namespace of its own.
pub fn enter() -> Result<(), NamespaceError> {
    let (user, group) = (getuid(), getgid());
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => return Ok(()),
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(NamespaceError::Closed(errno)),
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(NamespaceError::Closed)?;
    let write = |path, text: String| fs::write(path, text).map_err(|source| NamespaceError::Map { path, source });
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {user} 1"))?;
    write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// A cable: our end, and our addresses with their prefixes, at least one.
pub struct Laid {
    pub link: Box<dyn Link>,
    pub addresses: Vec<(IpAddr, u8)>,
    /// An address for neighbours alone, where the interface's link-local one is the kernel's.
    pub link_local: Option<(IpAddr, u8)>,
}

/// Makes the cable and sets up the kernel's side of it. Where nothing is wanted it is a TAP, or a veth pair where a TAP
/// cannot be had, which is said on standard error. There is an address of each family, or none of IPv6 where the kernel
/// has none, which is said too.
pub fn lay_cable(wanted: Option<Cable>) -> Result<Laid, NamespaceError> {
    let opened: Option<Box<dyn Link>> = match wanted {
        Some(Cable::Tap) => Some(Box::new(Tap::open(NAME)?)),
        Some(Cable::VethRaw) => Some(Box::new(lay_veth()?)),
        Some(Cable::VethAfXdp) => {
            make_veth()?;
            None
        }
        None => match Tap::open(NAME) {
            Ok(tap) => Some(Box::new(tap)),
            Err(error @ (TapError::NoDevice | TapError::DeviceClosed)) => {
                eprintln!("the demo takes a raw socket on a veth pair, because {error}");
                Some(Box::new(lay_veth()?))
            }
            Err(error) => return Err(error.into()),
        },
    };
    interface::bring_up("lo")?;
    interface::set_address(NAME, CLIENT_ADDRESS.into(), PREFIX)?;
    interface::bring_up(NAME)?;
    let mut addresses = vec![(SERVER_ADDRESS.into(), PREFIX)];
    match interface::set_address(NAME, CLIENT_ADDRESS_IPV6.into(), PREFIX_IPV6) {
        Ok(()) => addresses.push((SERVER_ADDRESS_IPV6.into(), PREFIX_IPV6)),
        Err(error) => eprintln!("the demo is over IPv4 alone: {error}"),
    }
    // More local ports make the kernel's search for a free one short. The default is enough, only slower.
    let _ = fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65535");
    match opened {
        Some(link) => Ok(Laid { link, addresses, link_local: None }),
        None => open_af_xdp(addresses),
    }
}

/// A veth pair: the kernel has one end, our socket is on the other.
fn lay_veth() -> Result<Raw, NamespaceError> {
    make_veth()?;
    Ok(Raw::open(OUR_END)?)
}

fn make_veth() -> Result<(), NamespaceError> {
    veth::make_pair(NAME, OUR_END)?;
    Ok(interface::bring_up(OUR_END)?)
}

/// AF_XDP on our end of the pair, for what it is to receive.
fn open_af_xdp(addresses: Vec<(IpAddr, u8)>) -> Result<Laid, NamespaceError> {
    // What nobody completes between the ends of a pair would reach us half done.
    complete_checksums(NAME)?;
    let has_ipv6 = addresses.iter().any(|(address, _)| address.is_ipv6());
    let link_local = has_ipv6.then(|| (link_local_for(SERVER_ADDRESS_IPV6).into(), PREFIX_IPV6));
    let ours = addresses.iter().chain(&link_local).map(|&(address, _)| address).collect();
    let steering = Steering { addresses: ours, ..Steering::default() };
    let link = Interface::open(OUR_END, &steering, AfXdpOptions::default())?.queue(0)?;
    eprintln!("{}", link.description());
    Ok(Laid { link: Box::new(link), addresses, link_local })
}

/// Waits until the kernel knows holdline's Ethernet address for each of its addresses, so that no first packet is lost
/// for the lack of it.
pub fn wait_for_answers(addresses: &[(IpAddr, u8)]) -> Result<(), NamespaceError> {
    for &(address, _) in addresses {
        match address {
            IpAddr::V4(_) => wait_for_arp()?,
            IpAddr::V6(_) => wait_for_reset(address)?,
        }
    }
    Ok(())
}

/// There is no file that tells of neighbours over IPv6; a port that nobody listens on tells that they are found.
fn wait_for_reset(address: IpAddr) -> Result<(), NamespaceError> {
    let until = Instant::now() + ANSWER_MAX;
    while Instant::now() < until {
        match TcpStream::connect_timeout(&(address, 9).into(), ANSWER_MAX) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    Err(NamespaceError::Silent(address))
}

fn wait_for_arp() -> Result<(), NamespaceError> {
    let socket = UdpSocket::bind((CLIENT_ADDRESS, 0)).map_err(NamespaceError::Ask)?;
    let until = Instant::now() + ANSWER_MAX;
    while Instant::now() < until {
        // Any packet makes the kernel ask; that nobody listens on the port does not matter.
        let _ = socket.send_to(b"?", (SERVER_ADDRESS, 9));
        std::thread::sleep(Duration::from_millis(2));
        let table = fs::read_to_string("/proc/net/arp").map_err(NamespaceError::Ask)?;
        if is_resolved(&table, SERVER_ADDRESS) {
            return Ok(());
        }
    }
    Err(NamespaceError::Silent(SERVER_ADDRESS.into()))
}

/// Whether `/proc/net/arp` has a complete entry: address, type, flags (2: complete), Ethernet address.
fn is_resolved(table: &str, address: Ipv4Addr) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.next().and_then(|text| text.parse().ok()) == Some(address) && fields.nth(1) == Some("0x2")
    })
}

/// The kernel's side of the cable; nobody else sees its name.
const NAME: &str = "holdline0";

/// Our end of a veth pair.
const OUR_END: &str = "holdline1";

/// How long the first answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_entry_counts() {
        let head = "IP address       HW type     Flags       HW address            Mask     Device\n";
        let complete = "10.77.0.2        0x1         0x2         02:01:02:03:04:05     *        holdline0\n";
        let pending = "10.77.0.2        0x1         0x0         00:00:00:00:00:00     *        holdline0\n";
        assert!(is_resolved(&format!("{head}{complete}"), SERVER_ADDRESS));
        assert!(!is_resolved(&format!("{head}{pending}"), SERVER_ADDRESS));
        assert!(!is_resolved(&format!("{head}{complete}"), CLIENT_ADDRESS));
    }
}
