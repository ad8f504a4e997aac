//! Packet sockets of Linux (packet(7)): opened, set and bound, with what `std` and `nix` have no words for.
//!
//! Comes in: an interface and the Ethernet address that is ours on it. Goes out: a socket that receives exactly the
//! frames that are meant for us, each behind a `virtio_net_hdr`, and sends what is written to it behind such a header.
//!
//! Invariant: nothing is received before the socket is set up whole: it is made with the protocol 0, which receives
//! nothing, and gets its protocol when it is bound.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use super::options;
use crate::wire::field::{ethernet, ipv6};

/// A socket for the interface with this index, on which we have the Ethernet address `mac`.
pub(super) fn open(interface_index: u32, mac: [u8; 6]) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    options::set(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, &1i32)?;
    options::set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32)?;
    attach_filter(&socket, &filter(mac))?;
    widen_queues(&socket)?;
    bind(&socket, interface_index)?;
    listen_for(&socket, interface_index, mac)?;
    Ok(socket)
}

/// A socket beside another link to the interface: while it is open, the interface receives for these groups, too. It
/// hands on the advertisements that routers send to all nodes where they are wanted, which the kernel sees as well, and
/// nothing else.
pub(super) fn open_beside(
    interface_index: u32,
    groups: &[[u8; 6]],
    advertisements: Advertisements,
) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
    options::set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32)?;
    match advertisements {
        Advertisements::Wanted => attach_filter(&socket, &advertisement_filter())?,
        Advertisements::Refused => attach_filter(&socket, &[answer(0)])?,
    }
    bind(&socket, interface_index)?;
    for group in groups {
        add_membership(&socket, interface_index, PACKET_MR_MULTICAST, group)?;
    }
    Ok(socket)
}

/// Whether advertisements of routers are handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Advertisements {
    Wanted,
    Refused,
}

/// What `open_beside` takes: router advertisements to all nodes, without a VLAN tag.
fn advertisement_filter() -> [libc::sock_filter; 12] {
    const TAKES: usize = 10;
    const REFUSES: usize = 11;
    [
        load(libc::BPF_B, libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT),
        jump(1, 0, 2, REFUSES),
        load(libc::BPF_W, 0),
        jump(3, IPV6_GROUP << 16, 4, REFUSES),
        load(libc::BPF_H, ETHERTYPE_AT),
        jump(5, libc::ETH_P_IPV6 as u32, 6, REFUSES),
        load(libc::BPF_B, IPV6_NEXT_HEADER_AT),
        jump(7, libc::IPPROTO_ICMPV6 as u32, 8, REFUSES),
        load(libc::BPF_B, ICMPV6_TYPE_AT),
        jump(9, ROUTER_ADVERTISEMENT, TAKES, REFUSES),
        answer(u32::MAX),
        answer(0),
    ]
}

/// How many frames the socket had no room for since this was asked last.
pub(super) fn frames_dropped(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut statistics = Statistics { packets: 0, drops: 0 };
    options::read(&socket, libc::SOL_PACKET, PACKET_STATISTICS, &mut statistics)?;
    Ok(statistics.drops)
}

/// Lets as many bytes wait, either way, as this user may: only root of the machine is not held to
/// `net.core.rmem_max` and `net.core.wmem_max`.
fn widen_queues(socket: &OwnedFd) -> Result<(), Errno> {
    setsockopt(socket, sockopt::RcvBufForce, &QUEUE_BYTES)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &QUEUE_BYTES))?;
    setsockopt(socket, sockopt::SndBufForce, &QUEUE_BYTES)
        .or_else(|_| setsockopt(socket, sockopt::SndBuf, &QUEUE_BYTES))
}

fn bind(socket: &OwnedFd, interface_index: u32) -> Result<(), Errno> {
    // SAFETY: a `sockaddr_ll` is integers and bytes, for all of which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = i32::try_from(interface_index).map_err(|_| Errno::ENODEV)?;
    // SAFETY: the kernel reads one `sockaddr_ll`, which lives across the call and whose length is given.
    let answer = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    Errno::result(answer).map(drop)
}

/// Has the interface receive frames for our Ethernet address, too, and for all groups, for as long as the socket is
/// open. The kernel's own stack passes them by; an interface that can filter no second address is made promiscuous by
/// the kernel. Which groups neighbours are asked for by depends on IP addresses, which a link knows nothing of.
fn listen_for(socket: &OwnedFd, interface_index: u32, mac: [u8; 6]) -> Result<(), Errno> {
    add_membership(socket, interface_index, PACKET_MR_UNICAST, &mac)?;
    add_membership(socket, interface_index, PACKET_MR_ALLMULTI, &[])
}

fn add_membership(socket: &OwnedFd, interface_index: u32, kind: u16, address: &[u8]) -> Result<(), Errno> {
    let mut mr_address = [0; 8];
    mr_address[..address.len()].copy_from_slice(address);
    let membership = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface_index).map_err(|_| Errno::ENODEV)?,
        mr_type: kind,
        mr_alen: address.len() as u16,
        mr_address,
    };
    options::set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// What reaches us: frames to our address, broadcast ARP, and ICMPv6 to groups, by which neighbours are asked for; none
/// of them with a VLAN tag that the kernel has taken out. All else, such as the machine's own traffic on the interface,
/// is not even copied.
fn filter([a, b, c, d, e, f]: [u8; 6]) -> [libc::sock_filter; REFUSES + 1] {
    const TAKES: usize = REFUSES - 1;
    const BROADCAST: usize = 6;
    const GROUP: usize = 11;
    let head = u32::from_be_bytes([a, b, c, d]);
    let tail = u32::from(u16::from_be_bytes([e, f]));
    [
        load(libc::BPF_B, libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT),
        jump(1, 0, 2, REFUSES),
        load(libc::BPF_W, 0),
        jump(3, head, 4, BROADCAST),
        load(libc::BPF_H, 4),
        jump(5, tail, TAKES, REFUSES),
        jump(BROADCAST, u32::MAX, 7, GROUP),
        load(libc::BPF_H, 4),
        jump(8, 0xffff, 9, REFUSES),
        load(libc::BPF_H, ETHERTYPE_AT),
        jump(10, libc::ETH_P_ARP as u32, TAKES, REFUSES),
        load(libc::BPF_H, 0),
        jump(12, IPV6_GROUP, 13, REFUSES),
        load(libc::BPF_H, ETHERTYPE_AT),
        jump(14, libc::ETH_P_IPV6 as u32, 15, REFUSES),
        load(libc::BPF_B, IPV6_NEXT_HEADER_AT),
        jump(16, libc::IPPROTO_ICMPV6 as u32, TAKES, REFUSES),
        answer(u32::MAX),
        answer(0),
    ]
}

/// The instruction of the filter that refuses a frame, the last one.
const REFUSES: usize = 18;
const ETHERTYPE_AT: i32 = ethernet::TYPE as i32;
const IPV6_NEXT_HEADER_AT: i32 = (ethernet::BYTES + ipv6::NEXT_HEADER) as i32;
const ICMPV6_TYPE_AT: i32 = (ethernet::BYTES + ipv6::BYTES) as i32;
/// RFC 4861 §4.2.
const ROUTER_ADVERTISEMENT: u32 = 134;
const IPV6_GROUP: u32 = u16::from_be_bytes(ethernet::IPV6_GROUP) as u32;

/// Loads a value of the frame, in network order.
fn load(size: u32, offset: i32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | size | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset as u32 }
}

/// The instruction `at` goes on with the instruction `then` where the value is this one, and with `otherwise` where it
/// is not.
fn jump(at: usize, value: u32, then: usize, otherwise: usize) -> libc::sock_filter {
    let skipped = |target: usize| (target - at - 1) as u8;
    let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    libc::sock_filter { code, jt: skipped(then), jf: skipped(otherwise), k: value }
}

/// Ends: how many bytes of the frame are taken.
fn answer(bytes: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: bytes }
}

fn attach_filter(socket: &OwnedFd, filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel only reads it.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    options::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// `tpacket_stats`: what a socket has counted since it was asked last.
#[repr(C)]
struct Statistics {
    packets: u32,
    drops: u32,
}

/// linux/if_packet.h: counters, a `virtio_net_hdr` in front of each frame, no frames that this machine sends (Linux
/// 4.20), a further Ethernet address, and all groups.
const PACKET_STATISTICS: i32 = 6;
const PACKET_VNET_HDR: i32 = 15;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const PACKET_MR_MULTICAST: u16 = 0;
const PACKET_MR_ALLMULTI: u16 = 2;
const PACKET_MR_UNICAST: u16 = 3;

/// Bytes that may wait, as the kernel counts them: some 800 for the smallest frame, some 70,000 for the largest.
const QUEUE_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [u8; 6] = [0x02, 0x80, 0xfe, 3, 4, 5];

    /// What the kernel makes of a filter. A load outside the frame refuses it.
    fn is_taken(frame: &[u8], has_vlan_tag: bool) -> bool {
        is_taken_by(&filter(OURS), frame, has_vlan_tag)
    }

    fn is_taken_by(program: &[libc::sock_filter], frame: &[u8], has_vlan_tag: bool) -> bool {
        let (mut at, mut value) = (0, 0);
        let mut steps = 0..100;
        while steps.next().is_some() {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let code = u32::from(code);
            let size = match code & 0x18 {
                libc::BPF_W => 4,
                libc::BPF_H => 2,
                _ => 1,
            };
            match code & 7 {
                libc::BPF_RET => return k > 0,
                libc::BPF_JMP => at += usize::from(if value == k { jt } else { jf }),
                _ if k as i32 == libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT => value = has_vlan_tag.into(),
                _ => match frame.get(k as usize..k as usize + size) {
                    Some(bytes) => value = bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)),
                    None => return false,
                },
            }
        }
        panic!("the filter does not end");
    }

    fn frame(destination: [u8; 6], ethertype: [u8; 2]) -> Vec<u8> {
        [&destination[..], &[2, 0, 0, 0, 0, 1], &ethertype, &[0; 46]].concat()
    }

    #[test]
    fn only_what_is_for_us_is_taken() {
        const IPV4: [u8; 2] = [8, 0];
        const ARP: [u8; 2] = [8, 6];
        const EVERYBODY: [u8; 6] = [0xff; 6];
        assert!(is_taken(&frame(OURS, IPV4), false));
        assert!(is_taken(&frame(OURS, ARP), false));
        assert!(is_taken(&frame(EVERYBODY, ARP), false));
        assert!(!is_taken(&frame(EVERYBODY, IPV4), false));
        for destination in [OURS, EVERYBODY] {
            assert!(!is_taken(&frame(destination, ARP), true), "a tagged frame is another network's");
        }
        for index in 0..6 {
            for start in [OURS, EVERYBODY] {
                let mut destination = start;
                destination[index] ^= 1;
                assert!(!is_taken(&frame(destination, ARP), false), "{destination:?}");
            }
        }
        for length in 0..14 {
            assert!(!is_taken(&frame(EVERYBODY, ARP)[..length], false));
        }
        const GROUP: [u8; 6] = [0x33, 0x33, 0xff, 1, 2, 3];
        let mut solicitation = frame(GROUP, [0x86, 0xdd]);
        assert!(!is_taken(&solicitation, false), "a group is heard of ICMPv6 only");
        solicitation[20] = 58;
        assert!(is_taken(&solicitation, false));
        assert!(!is_taken(&solicitation, true) && !is_taken(&solicitation[..20], false));
        for (at, byte) in [(0, 0x32), (1, 0x32), (12, 8), (13, 0)] {
            let mut other = solicitation.clone();
            other[at] = byte;
            assert!(!is_taken(&other, false), "byte {at}");
        }
    }

    #[test]
    fn only_advertisements_to_all_nodes_are_taken_beside_another_link() {
        let mut advertisement = frame([0x33, 0x33, 0, 0, 0, 1], [0x86, 0xdd]);
        advertisement[20] = 58;
        advertisement[54] = 134;
        let filter = advertisement_filter();
        assert!(is_taken_by(&filter, &advertisement, false));
        assert!(!is_taken_by(&filter, &advertisement, true) && !is_taken_by(&filter, &advertisement[..54], false));
        for (at, byte) in [(0, 0x32), (3, 1), (12, 8), (20, 6), (54, 135)] {
            let mut other = advertisement.clone();
            other[at] = byte;
            assert!(!is_taken_by(&filter, &other, false), "byte {at}");
        }
    }
}
