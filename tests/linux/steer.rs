//! The steering program by itself: crafted frames, run by the kernel without an interface, and its verdicts.

use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError};

const OURS: [u8; 6] = [0x02, 1, 2, 3, 4, 5];

/// `enum verdict` of xdp/steer.bpf.c.
const PASSED: u32 = 0;
const ADDRESS: u32 = 1;
const ARP: u32 = 2;
const NEIGHBOR: u32 = 3;
const PORT: u32 = 4;
const FRAGMENT: u32 = 5;
const ICMP_ERROR: u32 = 6;
const NO_SOCKET: u32 = 7;

/// An address of our own, one that the kernel keeps, and one that is nobody's here; a peer.
const OWN: [u8; 4] = [10, 0, 0, 2];
const SHARED: [u8; 4] = [10, 0, 0, 3];
const OTHER: [u8; 4] = [10, 0, 0, 4];
const PEER: [u8; 4] = [10, 0, 0, 1];

/// The same in IPv6: the last byte differs.
fn ipv6([.., last]: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[15]) = (0xfd, last);
    address
}

struct Stage {
    bpf: Ebpf,
}

impl Stage {
    /// The committed object with its maps filled; none where this user may not load it, which is said.
    fn new(name: &str) -> Option<Stage> {
        let object = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/xdp/steer.bpf.o")).expect("it is committed");
        let loaded = Ebpf::load(&object).and_then(|mut bpf| {
            let program: &mut Xdp = bpf.program_mut("steer").expect("it is there").try_into()?;
            program.load()?;
            Ok::<_, EbpfError>(bpf)
        });
        let mut bpf = match loaded {
            Ok(bpf) => bpf,
            Err(error) => {
                eprintln!("{name} skipped: needs root to load an XDP program ({error})");
                return None;
            }
        };
        let mut addresses = HashMap::<_, [u8; 16], u32>::try_from(bpf.map_mut("addresses").expect("it is there"))
            .expect("its key is an address");
        for (address, holding) in [(OWN, 1), (SHARED, 2)] {
            let [a, b, c, d] = address;
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
            addresses.insert(mapped, holding, 0).expect("there is room");
            addresses.insert(ipv6(address), holding, 0).expect("there is room");
        }
        let mut ports = Array::<_, u64>::try_from(bpf.map_mut("ports").expect("it is there")).expect("words");
        ports.set(7000 / 64, 1u64 << (7000 % 64), 0).expect("it has a word for each 64 ports");
        let mut settings = Array::<_, [u8; 16]>::try_from(bpf.map_mut("settings").expect("it is there")).expect("one");
        let mut ours = [0; 16];
        ours[..6].copy_from_slice(&OURS);
        settings.set(0, ours, 0).expect("it has one");
        Some(Stage { bpf })
    }

    fn counts(&self) -> [u64; 8] {
        let map = self.bpf.map("verdicts").expect("it is there");
        let verdicts = PerCpuArray::<_, u64>::try_from(map).expect("counters");
        std::array::from_fn(|index| verdicts.get(&(index as u32), 0).expect("one for each").iter().sum())
    }

    /// What the program makes of a frame. Without a socket ours are dropped, and only those.
    fn verdict(&mut self, frame: &[u8]) -> u32 {
        let before = self.counts();
        let program: &Xdp = self.bpf.program("steer").expect("it is there").try_into().expect("XDP");
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        let action = program.test_run(options).expect("it runs").return_value;
        let after = self.counts();
        let grown: Vec<u32> = (0..8).filter(|&index| after[index as usize] > before[index as usize]).collect();
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;
        match grown[..] {
            [PASSED] => assert_eq!(action, XDP_PASS),
            [_, NO_SOCKET] => assert_eq!(action, XDP_DROP),
            _ => panic!("verdicts {grown:?}"),
        }
        grown[0]
    }

    fn check(&mut self, cases: &[(&str, Vec<u8>, u32)]) {
        for (name, frame, expected) in cases {
            assert_eq!(self.verdict(frame), *expected, "{name}");
        }
    }
}

fn ethernet(destination: [u8; 6], ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    let mut frame = [&destination[..], &[2, 9, 9, 9, 9, 9], &ethertype, packet].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn to_us(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    ethernet(OURS, ethertype, packet)
}

/// An IPv4 packet; `fragment` is flags and offset, `options` a number of words.
fn ipv4_packet(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    fragment: u16,
    options: u8,
    rest: &[u8],
) -> Vec<u8> {
    let bytes = (20 + options as usize * 4 + rest.len()) as u16;
    let [high, low] = bytes.to_be_bytes();
    let [flags, offset] = fragment.to_be_bytes();
    let head = [0x45 + options, 0, high, low, 0x12, 0x34, flags, offset, 64, protocol, 0, 0];
    [&head[..], &source, &destination, &vec![1; options as usize * 4], rest].concat()
}

fn ipv6_packet(source: [u8; 4], destination: [u8; 16], next_header: u8, rest: &[u8]) -> Vec<u8> {
    let [high, low] = (rest.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, high, low, next_header, 64][..], &ipv6(source), &destination, rest].concat()
}

fn segment(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0; 16]].concat()
}

fn icmp(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], rest].concat()
}

fn arp(target: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1, 2, 9, 9, 9, 9, 9][..], &PEER, &[0; 6], &target].concat()
}

/// An extension header of 8 bytes.
fn extension(next_header: u8, rest: &[u8]) -> Vec<u8> {
    [&[next_header, 0, 0, 0, 0, 0, 0, 0], rest].concat()
}

fn fragment_header(next_header: u8, offset_and_more: u16, id: u8, rest: &[u8]) -> Vec<u8> {
    let [high, low] = offset_and_more.to_be_bytes();
    [&[next_header, 0, high, low, 0, 0, 0, id], rest].concat()
}

const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn all_that_is_sent_to_an_address_of_our_own_is_ours() {
    let Some(mut stage) = Stage::new("all_that_is_sent_to_an_address_of_our_own_is_ours") else { return };
    const ALL: [u8; 6] = [0xff; 6];
    let syn = segment(1, 22);
    let solicited = |target: [u8; 4], kind| {
        let mut group = [0; 16];
        (group[0], group[1], group[15]) = (0xff, 2, 1);
        let packet = ipv6_packet(PEER, group, 58, &icmp(kind, &ipv6(target)));
        ethernet([0x33, 0x33, 0xff, 0, 0, target[3]], [0x86, 0xdd], &packet)
    };
    let later = ipv4_packet(PEER, OWN, UDP, 0x0010, 0, &[0; 40]);
    let mut tagged = to_us(&ipv4_packet(PEER, OWN, TCP, 0, 0, &syn));
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    stage.check(&[
        ("TCP to any port", to_us(&ipv4_packet(PEER, OWN, TCP, 0, 0, &syn)), ADDRESS),
        ("any protocol", to_us(&ipv4_packet(PEER, OWN, UDP, 0, 0, &syn)), ADDRESS),
        ("a later fragment", to_us(&later), ADDRESS),
        ("over IPv6", to_us(&ipv6_packet(PEER, ipv6(OWN), TCP, &syn)), ADDRESS),
        ("over IPv6 with unknown headers", to_us(&ipv6_packet(PEER, ipv6(OWN), 139, &syn)), ADDRESS),
        ("ARP", ethernet(ALL, [8, 6], &arp(OWN)), ARP),
        ("an answer of ARP", ethernet(OURS, [8, 6], &arp(OWN)), ARP),
        ("ARP for the kernel", ethernet(ALL, [8, 6], &arp(SHARED)), PASSED),
        ("ARP for others", ethernet(ALL, [8, 6], &arp(OTHER)), PASSED),
        ("ARP, cut", ethernet(ALL, [8, 6], &arp(OWN))[..40].to_vec(), PASSED),
        ("a neighbour's question", solicited(OWN, 135), NEIGHBOR),
        ("a neighbour's question to the kernel", solicited(SHARED, 135), PASSED),
        ("a neighbour's announcement", solicited(OWN, 136), PASSED),
        ("TCP to others", to_us(&ipv4_packet(PEER, OTHER, TCP, 0, 0, &segment(1, 7000))), PASSED),
        ("over IPv6 to others", to_us(&ipv6_packet(PEER, ipv6(OTHER), TCP, &segment(1, 7000))), PASSED),
        ("to another machine", ethernet([2, 1, 2, 3, 4, 6], [8, 0], &ipv4_packet(PEER, OWN, TCP, 0, 0, &syn)), PASSED),
        ("in another network", tagged, PASSED),
        ("a runt", to_us(&ipv4_packet(PEER, OWN, TCP, 0, 0, &syn))[..33].to_vec(), PASSED),
    ]);
}

#[test]
fn of_an_address_of_the_kernels_only_our_ports_are_ours() {
    let Some(mut stage) = Stage::new("of_an_address_of_the_kernels_only_our_ports_are_ours") else { return };
    let v4 = |protocol, options, rest: &[u8]| to_us(&ipv4_packet(PEER, SHARED, protocol, 0, options, rest));
    let v6 = |next, rest: &[u8]| to_us(&ipv6_packet(PEER, ipv6(SHARED), next, rest));
    let (ours, ssh) = (segment(1, 7000), segment(7000, 22));
    let chain = extension(43, &extension(60, &extension(TCP, &ours)));
    let mut endless = ours.clone();
    (0..7).for_each(|_| endless = extension(60, &endless));
    stage.check(&[
        ("a port of ours", v4(TCP, 0, &ours), PORT),
        ("behind options", v4(TCP, 5, &ours), PORT),
        ("over IPv6", v6(TCP, &ours), PORT),
        ("behind headers of IPv6", v6(0, &chain), PORT),
        ("ssh", v4(TCP, 0, &ssh), PASSED),
        ("ssh over IPv6", v6(TCP, &ssh), PASSED),
        ("UDP to the same number", v4(UDP, 0, &ours), PASSED),
        ("UDP over IPv6", v6(UDP, &ours), PASSED),
        ("a ping", v4(1, 0, &icmp(8, &[0; 32])), PASSED),
        ("a ping over IPv6", v6(58, &icmp(128, &[0; 32])), PASSED),
        ("more headers than are followed", v6(60, &endless), PASSED),
        ("cut before the ports", v6(60, &extension(TCP, &ours))[..63].to_vec(), PASSED),
    ]);
}

#[test]
fn fragments_follow_their_first() {
    let Some(mut stage) = Stage::new("fragments_follow_their_first") else { return };
    let v4 = |destination, port, fragment| to_us(&ipv4_packet(PEER, destination, TCP, fragment, 0, &segment(1, port)));
    let v6 = |port, offset, id| {
        to_us(&ipv6_packet(PEER, ipv6(SHARED), 44, &fragment_header(TCP, offset, id, &segment(1, port))))
    };
    stage.check(&[
        ("a later one whose first has not come", v4(SHARED, 7000, 0x0003), PASSED),
        ("a first one", v4(SHARED, 7000, 0x2000), FRAGMENT),
        ("the next, whatever lies there", v4(SHARED, 22, 0x2003), FRAGMENT),
        ("the last", v4(SHARED, 22, 0x0006), FRAGMENT),
        ("of another packet", v4(OTHER, 22, 0x0006), PASSED),
        ("a first one for the kernel", v6(22, 1, 7), PASSED),
        ("and its next", v6(7000, 0x0019, 7), PASSED),
        ("a first one over IPv6", v6(7000, 1, 8), FRAGMENT),
        ("and its last", v6(22, 0x0018, 8), FRAGMENT),
        ("one that is whole", v6(7000, 0, 9), PORT),
    ]);
}

#[test]
fn icmp_errors_follow_what_they_quote() {
    let Some(mut stage) = Stage::new("icmp_errors_follow_what_they_quote") else { return };
    let quoted = |source, port, fragment| ipv4_packet(source, PEER, TCP, fragment, 0, &segment(port, 9));
    let v4 = |kind, quoted: &[u8]| to_us(&ipv4_packet(PEER, SHARED, 1, 0, 0, &icmp(kind, quoted)));
    let v6 = |kind, source: [u8; 4], port| {
        let quoted = ipv6_packet(source, ipv6(PEER), 60, &extension(TCP, &segment(port, 9)));
        to_us(&ipv6_packet(PEER, ipv6(SHARED), 58, &icmp(kind, &quoted)))
    };
    let datagram = ipv4_packet(SHARED, PEER, UDP, 0, 0, &segment(7000, 9));
    stage.check(&[
        ("too large", v4(3, &quoted(SHARED, 7000, 0x4000)), ICMP_ERROR),
        ("time exceeded", v4(11, &quoted(SHARED, 7000, 0)), ICMP_ERROR),
        ("a bad parameter", v4(12, &quoted(SHARED, 7000, 0)), ICMP_ERROR),
        ("a redirect", v4(5, &quoted(SHARED, 7000, 0)), PASSED),
        ("about a port of the kernel's", v4(3, &quoted(SHARED, 22, 0)), PASSED),
        ("about a later fragment", v4(3, &quoted(SHARED, 7000, 3)), PASSED),
        ("about another address", v4(3, &quoted(OTHER, 7000, 0)), PASSED),
        ("about a datagram", v4(3, &datagram), PASSED),
        ("too large over IPv6", v6(2, SHARED, 7000), ICMP_ERROR),
        ("unreachable over IPv6", v6(1, SHARED, 7000), ICMP_ERROR),
        ("about a port of the kernel's over IPv6", v6(1, SHARED, 22), PASSED),
        ("about another address over IPv6", v6(1, OTHER, 7000), PASSED),
        ("no error", v6(129, SHARED, 7000), PASSED),
    ]);
}
