//! Interfaces of the kernel: their address, size and state, read and set without external commands.
//!
//! Comes in: an interface's name and what it shall have. Goes out: ioctls on a datagram socket that is never used for
//! data, and netlink for IPv6. `demo` and the tests set up their private network namespaces with it; `serve` only
//! reads.
//!
//! Invariant: nothing here touches an interface that the caller did not name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::libc;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::netlink::ask;

/// Why an interface could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The name cannot be an interface's.
    #[error("{0:?} is no interface name: 1 to 15 characters, without a slash or a space")]
    Name(String),
    /// There is none of that name.
    #[error("there is no interface {0} here: see `ip link` for those that there are")]
    Missing(String),
    /// It carries something else.
    #[error("the interface {0} does not carry Ethernet frames: take a network card, a bridge or a veth")]
    NotEthernet(String),
    /// The interface's MTU cannot be served.
    #[error(
        "the interface {name} has an MTU of {mtu}, and 576 to 9216 can be served: set it with \
         `ip link set {name} mtu 1500`"
    )]
    Mtu {
        /// The interface.
        name: String,
        /// What it has, in bytes.
        mtu: i64,
    },
    /// What the system said.
    #[error("cannot {action} of the interface {name}: {source}")]
    System {
        /// The interface.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The largest IP packet that the interface takes, in bytes.
pub fn mtu(name: &str) -> Result<u16, InterfaceError> {
    let mut request = InterfaceRequest::new(name)?;
    request.call(libc::SIOCGIFMTU, "read the MTU")?;
    let mtu = i64::from(request.integer());
    u16::try_from(mtu)
        .ok()
        .filter(|bytes| (576..=9216).contains(bytes))
        .ok_or_else(|| InterfaceError::Mtu { name: name.to_owned(), mtu })
}

/// An interface that carries Ethernet frames, as it was found.
#[derive(Debug)]
pub(super) struct Ethernet {
    pub index: u32,
    /// The address of the kernel's side.
    pub mac: [u8; 6],
    pub mtu: u16,
}

impl Ethernet {
    /// The interface `name`. The loopback, whose frames look alike, carries none.
    pub fn find(name: &str) -> Result<Ethernet, InterfaceError> {
        let index = if_nametoindex(name).map_err(|_| InterfaceError::Missing(name.to_owned()))?;
        let mut request = InterfaceRequest::new(name)?;
        request.call(libc::SIOCGIFHWADDR, "read the Ethernet address")?;
        if request.hardware_kind() != libc::ARPHRD_ETHER {
            return Err(InterfaceError::NotEthernet(name.to_owned()));
        }
        Ok(Ethernet { index, mac: request.ethernet_address(), mtu: mtu(name)? })
    }
}

/// The interfaces on which the kernel has this address itself.
pub fn owners_of(address: IpAddr) -> io::Result<Vec<String>> {
    let is_owner = |it: &InterfaceAddress| {
        it.address.as_ref().is_some_and(|known| match address {
            IpAddr::V4(address) => known.as_sockaddr_in().is_some_and(|known| known.ip() == address),
            IpAddr::V6(address) => known.as_sockaddr_in6().is_some_and(|known| known.ip() == address),
        })
    };
    // A label such as eth0:1 names an address of eth0.
    let name = |it: InterfaceAddress| it.interface_name.split(':').next().unwrap_or_default().to_owned();
    Ok(getifaddrs()?.filter(is_owner).map(name).collect())
}

/// The Ethernet address of the kernel's side of the interface.
pub fn ethernet_address(name: &str) -> Result<[u8; 6], InterfaceError> {
    let mut request = InterfaceRequest::new(name)?;
    request.call(libc::SIOCGIFHWADDR, "read the Ethernet address")?;
    Ok(request.ethernet_address())
}

/// Sets the largest IP packet that the interface takes, in bytes.
pub fn set_mtu(name: &str, mtu: u16) -> Result<(), InterfaceError> {
    let mut request = InterfaceRequest::new(name)?;
    request.set_integer(i32::from(mtu));
    request.call(libc::SIOCSIFMTU, "set the MTU")
}

/// Has the kernel let at least so many frames wait for whoever reads from the other end. Needs CAP_NET_ADMIN outside
/// of any user namespace where there are fewer.
pub fn raise_queue_frames(name: &str, frames: u16) -> Result<(), InterfaceError> {
    let mut request = InterfaceRequest::new(name)?;
    request.call(libc::SIOCGIFTXQLEN, "read the queue length")?;
    if request.integer() >= i32::from(frames) {
        return Ok(());
    }
    request.set_integer(i32::from(frames));
    request.call(libc::SIOCSIFTXQLEN, "set the queue length")
}

/// Gives the kernel's side of the interface an address in a network of `prefix` bits.
pub fn set_address(name: &str, address: IpAddr, prefix: u8) -> Result<(), InterfaceError> {
    match address {
        IpAddr::V4(address) => set_ipv4_address(name, address, prefix),
        IpAddr::V6(address) => set_ipv6_address(name, address, prefix),
    }
}

/// An address that is used at once: nobody is asked whether it is taken already.
fn set_ipv6_address(name: &str, address: Ipv6Addr, prefix: u8) -> Result<(), InterfaceError> {
    check_name(name)?;
    let failed = |source| InterfaceError::System { name: name.to_owned(), action: "set the IPv6 address", source };
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = prefix;
    message.header.index = if_nametoindex(name).map_err(|errno| failed(errno.into()))?;
    message.attributes = vec![
        AddressAttribute::Local(address.into()),
        AddressAttribute::Address(address.into()),
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE).map_err(failed)
}

fn set_ipv4_address(name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), InterfaceError> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    let mut request = InterfaceRequest::new(name)?;
    request.set_address(address);
    request.call(libc::SIOCSIFADDR, "set the address")?;
    let mut request = InterfaceRequest::new(name)?;
    request.set_address(Ipv4Addr::from_bits(mask));
    request.call(libc::SIOCSIFNETMASK, "set the network mask")
}

/// Brings the interface up.
pub fn bring_up(name: &str) -> Result<(), InterfaceError> {
    change_flags(name, |flags| flags | UP)
}

/// Takes the interface down.
pub fn take_down(name: &str) -> Result<(), InterfaceError> {
    change_flags(name, |flags| flags & !UP)
}

/// Whether the interface is up.
pub fn is_up(name: &str) -> Result<bool, InterfaceError> {
    let mut request = InterfaceRequest::new(name)?;
    request.call(libc::SIOCGIFFLAGS, "read the flags")?;
    Ok(request.flags() & UP != 0)
}

/// Whether an interface is still there and up, for a descriptor that outlives its going down: the kernel does not tell
/// when it is deleted then.
#[derive(Debug)]
pub(super) struct Presence {
    name: String,
    index: u32,
    is_down: bool,
}

impl Presence {
    /// Of the interface with this name and index, which is taken to be up.
    pub fn new(name: &str, index: u32) -> Presence {
        Presence { name: name.to_owned(), index, is_down: false }
    }

    /// Whether it was down when it was looked at last.
    pub fn is_down(&self) -> bool {
        self.is_down
    }

    /// Looks again. The error: it is gone.
    pub fn look(&mut self) -> io::Result<()> {
        // An index that is nobody's gets an empty name from nix, not an error.
        let name = if_indextoname(self.index).unwrap_or_default();
        if name.is_empty() {
            let sentence = format!("the interface {} was deleted while it was in use", self.name);
            return Err(io::Error::new(io::ErrorKind::NotFound, sentence));
        }
        self.is_down = !name.to_str().is_ok_and(|name| is_up(name).unwrap_or(false));
        Ok(())
    }

    /// Looks again if it was down. The error: it is gone.
    pub fn look_if_down(&mut self) -> io::Result<()> {
        if self.is_down { self.look() } else { Ok(()) }
    }
}

/// Refuses what cannot be an interface's name.
pub(super) fn check_name(name: &str) -> Result<(), InterfaceError> {
    let is_fit = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.bytes().all(is_fit) {
        return Err(InterfaceError::Name(name.to_owned()));
    }
    Ok(())
}

fn change_flags(name: &str, change: impl FnOnce(libc::c_short) -> libc::c_short) -> Result<(), InterfaceError> {
    let mut request = InterfaceRequest::new(name)?;
    request.call(libc::SIOCGIFFLAGS, "read the flags")?;
    let flags = change(request.flags());
    request.set_flags(flags);
    request.call(libc::SIOCSIFFLAGS, "set the flags")
}

/// One `ifreq`: an interface's name and one value, which the kernel reads or fills.
pub(super) struct InterfaceRequest {
    raw: libc::ifreq,
    name: String,
}

impl InterfaceRequest {
    /// For the interface `name`, with every value zero.
    pub(super) fn new(name: &str) -> Result<InterfaceRequest, InterfaceError> {
        check_name(name)?;
        // SAFETY: an `ifreq` is integers, bytes and a union of the same, for all of which zero is a value.
        let mut raw: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in raw.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(InterfaceRequest { raw, name: name.to_owned() })
    }

    /// For an ioctl; valid while the request is.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::ifreq {
        &raw mut self.raw
    }

    pub(super) fn set_flags(&mut self, flags: libc::c_short) {
        self.raw.ifr_ifru.ifru_flags = flags;
    }

    fn flags(&self) -> libc::c_short {
        // SAFETY: the union was zeroed whole and every member of it is plain integers, so any member may be read.
        unsafe { self.raw.ifr_ifru.ifru_flags }
    }

    fn set_integer(&mut self, value: i32) {
        self.raw.ifr_ifru.ifru_mtu = value;
    }

    /// For an ioctl that reads or writes a structure elsewhere, which the caller keeps alive.
    pub(super) fn set_pointer(&mut self, to: *mut libc::c_void) {
        self.raw.ifr_ifru.ifru_data = to.cast();
    }

    fn integer(&self) -> i32 {
        // SAFETY: as in `flags`.
        unsafe { self.raw.ifr_ifru.ifru_mtu }
    }

    fn hardware_kind(&self) -> libc::sa_family_t {
        // SAFETY: as in `flags`.
        unsafe { self.raw.ifr_ifru.ifru_hwaddr }.sa_family
    }

    fn ethernet_address(&self) -> [u8; 6] {
        // SAFETY: as in `flags`.
        let data = unsafe { self.raw.ifr_ifru.ifru_hwaddr }.sa_data;
        std::array::from_fn(|index| data[index] as u8)
    }

    /// A `sockaddr_in` in the place of a `sockaddr`: port 0, then the address in network order.
    fn set_address(&mut self, address: Ipv4Addr) {
        let mut value = libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: [0; 14] };
        for (to, from) in value.sa_data[2..6].iter_mut().zip(address.octets()) {
            *to = from as libc::c_char;
        }
        self.raw.ifr_ifru.ifru_addr = value;
    }

    pub(super) fn call(&mut self, request: libc::Ioctl, action: &'static str) -> Result<(), InterfaceError> {
        let failed = |name: &str, source| InterfaceError::System { name: name.to_owned(), action, source };
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(|source| failed(&self.name, source))?;
        // SAFETY: every request that is passed here reads or writes one `ifreq`, which lives across the call, and what
        // that points to, if it does, lives with its caller.
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), request, self.as_mut_ptr()) };
        Errno::result(answer).map_err(|errno| failed(&self.name, errno.into()))?;
        Ok(())
    }
}

/// The interface is up.
const UP: libc::c_short = libc::IFF_UP as libc::c_short;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_of_any_machine_is_read() {
        assert!(is_up("lo").is_ok());
        assert!(matches!(mtu("lo"), Err(InterfaceError::Mtu { mtu: 65_536, .. }) | Ok(_)));
    }

    #[test]
    fn the_loopback_owns_its_address_and_is_no_ethernet() {
        assert!(matches!(Ethernet::find("lo"), Err(InterfaceError::NotEthernet(_))));
        let owners = owners_of(Ipv4Addr::LOCALHOST.into()).expect("interfaces can be listed");
        // A namespace of its own may have its loopback down, which then has no address.
        assert!(owners.iter().all(|name| name == "lo"));
        assert!(owners_of(Ipv4Addr::new(192, 0, 2, 77).into()).expect("interfaces can be listed").is_empty());
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = mtu("no-such-if").unwrap_err().to_string();
        assert!(error.contains("no-such-if") && error.contains("read the MTU"), "{error}");
    }
}
