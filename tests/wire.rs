//! The wire code against an independent one.
//!
//! Segments at random are written by ours and read by smoltcp's views; their frames, broken at random, are read by
//! both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use holdline::tcp::{Control, Outgoing, Rule, SackBlocks, SeqNum, Timestamps};
use holdline::wire::{Addressing, Packet, Sum, TcpPacket, emit_tcp, parse};
use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpOption, TcpPacket as TcpView,
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ETHERNET_BYTES: usize = 14;
const ROUNDS: u64 = 40_000;

fn some<T>(random: &mut Xoshiro256PlusPlus, value: T) -> Option<T> {
    random.random_bool(0.5).then_some(value)
}

/// From a peer to us, so that what is written can be read again.
fn any_ends(random: &mut Xoshiro256PlusPlus) -> Addressing {
    let is_ipv4 = random.random_bool(0.5);
    let address = |first: u8, random: &mut Xoshiro256PlusPlus| match is_ipv4 {
        true => IpAddr::V4(Ipv4Addr::new(first, random.random(), random.random(), random.random())),
        false => IpAddr::V6(Ipv6Addr::from_bits(u128::from(first) << 120 | u128::from(random.next_u64()))),
    };
    Addressing {
        source_mac: PEER_MAC,
        destination_mac: MAC,
        local: address(10, random),
        remote: address(11, random),
        local_port: random.random(),
        remote_port: random.random(),
        ttl: random.random(),
        dscp: random.random_range(0..64),
    }
}

fn any_segment(random: &mut Xoshiro256PlusPlus, payload_bytes: u32) -> Outgoing {
    let control = Control(random.random());
    let timestamps = Timestamps { value: random.random(), echo: random.random() };
    let (mss, shift) = (random.random(), random.random_range(0..15));
    let mut outgoing = Outgoing {
        payload_bytes,
        is_ecn_capable: random.random(),
        urgent: random.random(),
        timestamps: some(random, timestamps),
        ..Outgoing::bare(SeqNum(random.random()), SeqNum(random.random()), control, random.random())
    };
    if control.has(Control::SYN) {
        (outgoing.mss, outgoing.window_shift) = (some(random, mss), some(random, shift));
        outgoing.sack_permitted = random.random();
    } else {
        let most = if outgoing.timestamps.is_some() { 3 } else { 4 };
        let mut sack = SackBlocks::default();
        for _ in 0..random.random_range(0..=most) {
            sack.push(SeqNum(random.random()), SeqNum(random.random()), most);
        }
        outgoing.sack = sack;
    }
    outgoing
}

fn written(ends: &Addressing, outgoing: &Outgoing, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    emit_tcp(&mut frame, ends, outgoing, |out| out.extend_from_slice(payload));
    frame
}

/// What smoltcp's views say of a frame whose addresses may be ours and a peer's.
struct Seen<'a> {
    source: IpAddress,
    destination: IpAddress,
    traffic_class: u8,
    ttl: u8,
    segment: TcpView<&'a [u8]>,
}

/// `None` where any length or checksum is wrong, or it is not one whole segment without extension headers.
fn look(frame: &[u8]) -> Option<Seen<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let packet = &frame[ETHERNET_BYTES..];
    let (source, destination, traffic_class, ttl, bytes) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let view = Ipv4Packet::new_checked(packet).ok()?;
            let (header_bytes, total_bytes) = (usize::from(view.header_len()), usize::from(view.total_len()));
            let is_whole = !view.more_frags() && view.frag_offset() == 0;
            let is_taken = view.version() == 4 && header_bytes == 20 && is_whole && view.verify_checksum();
            (is_taken && view.next_header() == IpProtocol::Tcp).then(|| {
                let traffic_class = view.dscp() << 2 | view.ecn();
                let ends = (view.src_addr().into(), view.dst_addr().into());
                (ends.0, ends.1, traffic_class, view.hop_limit(), &packet[header_bytes..total_bytes])
            })?
        }
        EthernetProtocol::Ipv6 => {
            let view = Ipv6Packet::new_checked(packet).ok()?;
            let is_taken = view.version() == 6 && view.next_header() == IpProtocol::Tcp;
            is_taken.then(|| {
                let ends = (view.src_addr().into(), view.dst_addr().into());
                (ends.0, ends.1, view.traffic_class(), view.hop_limit(), &packet[40..view.total_len()])
            })?
        }
        _ => return None,
    };
    let segment = TcpView::new_checked(bytes).ok()?;
    segment.verify_checksum(&source, &destination).then_some(Seen { source, destination, traffic_class, ttl, segment })
}

fn options<'a>(segment: &'a TcpView<&[u8]>) -> impl Iterator<Item = TcpOption<'a>> {
    let mut rest = segment.options();
    std::iter::from_fn(move || {
        let (next, option) = TcpOption::parse(rest).ok().filter(|_| !rest.is_empty())?;
        rest = next;
        Some(option)
    })
}

#[test]
fn what_is_written_is_what_was_asked_for() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for round in 0..ROUNDS {
        let ends = any_ends(&mut random);
        let mut payload = vec![0; random.random_range(0..1_400)];
        random.fill_bytes(&mut payload);
        let outgoing = any_segment(&mut random, payload.len() as u32);
        let frame = written(&ends, &outgoing, &payload);
        let seen = look(&frame).unwrap_or_else(|| panic!("round {round}: {frame:02x?} of {outgoing:?}"));
        let view = &seen.segment;
        assert_eq!((IpAddr::from(seen.source), IpAddr::from(seen.destination)), (ends.local, ends.remote));
        assert_eq!(seen.traffic_class, ends.dscp << 2 | u8::from(outgoing.is_ecn_capable) << 1);
        assert_eq!((seen.ttl, view.src_port(), view.dst_port()), (ends.ttl, ends.local_port, ends.remote_port));
        let control = outgoing.control;
        let (ack, urgent) = (control.has(Control::ACK), control.has(Control::URG));
        assert_eq!(view.seq_number().0 as u32, outgoing.seq.0);
        assert_eq!(view.ack_number().0 as u32, if ack { outgoing.ack.0 } else { 0 });
        assert_eq!(view.urgent_at(), if urgent { outgoing.urgent } else { 0 });
        assert_eq!((frame_control(view), view.window_len()), (control.0, outgoing.window));
        assert_eq!(view.payload(), payload);
        let mut expected = outgoing;
        for option in options(view) {
            match option {
                TcpOption::MaxSegmentSize(mss) => assert_eq!(expected.mss.take(), Some(mss)),
                TcpOption::WindowScale(shift) => assert_eq!(expected.window_shift.take(), Some(shift)),
                TcpOption::SackPermitted => assert!(std::mem::take(&mut expected.sack_permitted)),
                TcpOption::TimeStamp { tsval: value, tsecr: echo } => {
                    assert_eq!(expected.timestamps.take(), Some(Timestamps { value, echo }));
                }
                // The view knows three blocks only.
                TcpOption::SackRange(ranges) => {
                    for (range, block) in ranges.iter().zip(expected.sack.iter().map(Some)) {
                        assert_eq!(range.map(|(start, end)| (SeqNum(start), SeqNum(end))), block);
                    }
                    expected.sack = SackBlocks::default();
                }
                TcpOption::NoOperation => {}
                TcpOption::EndOfList | TcpOption::Unknown { .. } => panic!("round {round}: {option:?}"),
            }
        }
        let rest = (expected.mss, expected.window_shift, expected.sack_permitted, expected.timestamps);
        assert_eq!((rest, expected.sack.len()), ((None, None, false, None), 0), "round {round}: not written");
    }
}

fn frame_control(view: &TcpView<&[u8]>) -> u8 {
    let bits = [view.fin(), view.syn(), view.rst(), view.psh(), view.ack(), view.urg(), view.ece(), view.cwr()];
    bits.iter().enumerate().map(|(at, &bit)| u8::from(bit) << at).sum()
}

#[test]
fn what_is_read_is_what_the_other_reads() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let ends = any_ends(&mut random);
        let payload = vec![7; random.random_range(0..64)];
        let mut frame = written(&ends, &any_segment(&mut random, payload.len() as u32), &payload);
        break_it(&mut random, &mut frame);
        match (parse(&frame, &MAC), look(&frame)) {
            (Ok(Packet::Tcp(packet)), Some(seen)) => {
                compare(&packet, &seen);
                taken += 1;
            }
            // What only ours takes has options or extension headers; what only the other takes, addresses of no peer.
            (Ok(Packet::Tcp(_)), None) => assert!(frame[14] != 0x45 && frame[20] != 6, "round {round}: {frame:02x?}"),
            (Err(Rule::SourceAddressInvalid | Rule::FrameNotForUs), _) => refused += 1,
            (other, Some(_)) => panic!("round {round}: {other:?} of {frame:02x?}"),
            _ => refused += 1,
        }
    }
    assert!(taken > ROUNDS / 10 && refused > ROUNDS / 10, "{taken} taken, {refused} refused");
}

fn compare(packet: &TcpPacket<'_>, seen: &Seen<'_>) {
    let (segment, view) = (&packet.segment, &seen.segment);
    let ends = (packet.addresses.remote(), packet.addresses.local());
    assert_eq!(ends, (IpAddr::from(seen.source), IpAddr::from(seen.destination)));
    assert_eq!((packet.remote_port, packet.local_port), (view.src_port(), view.dst_port()));
    assert_eq!((segment.seq.0, segment.ack.0), (view.seq_number().0 as u32, view.ack_number().0 as u32));
    assert_eq!((segment.control.0, segment.window), (frame_control(view), view.window_len()));
    assert_eq!((segment.urgent, segment.is_congested), (view.urgent_at(), seen.traffic_class & 3 == 3));
    assert_eq!((packet.payload, segment.payload_bytes as usize), (view.payload(), view.payload().len()));
}

/// Cuts, extends or changes a frame, and most often mends its checksums, so that it gets beyond them.
fn break_it(random: &mut Xoshiro256PlusPlus, frame: &mut Vec<u8>) {
    match random.random_range(0..8) {
        0 => frame.truncate(random.random_range(0..=frame.len())),
        1 => frame.extend_from_slice(&[0; 9][..random.random_range(0..9)]),
        _ => {}
    }
    for _ in 0..random.random_range(0..3) {
        let at = random.random_range(0..frame.len().max(1));
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= 1 << random.random_range(0..8);
        }
    }
    if random.random_bool(0.8) {
        mend(frame);
    }
}

/// Puts right checksums in where there is room for them.
fn mend(frame: &mut [u8]) {
    let Some((_, packet)) = frame.split_at_mut_checked(ETHERNET_BYTES) else { return };
    let (header_bytes, total_bytes, addresses) = match packet {
        [first, ..] if *first >> 4 == 4 && packet.len() >= 20 => {
            let header_bytes = usize::from(packet[0] & 15) * 4;
            (header_bytes, usize::from(u16::from_be_bytes([packet[2], packet[3]])), 12..20)
        }
        [first, ..] if *first >> 4 == 6 && packet.len() >= 40 => {
            (40, 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])), 8..40)
        }
        _ => return,
    };
    if header_bytes < 20 || total_bytes > packet.len() || total_bytes < header_bytes + 20 {
        return;
    }
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let checksum = Sum::default().add_bytes(&packet[..header_bytes]).finish();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    packet[header_bytes + 16..header_bytes + 18].fill(0);
    let pseudo = [6 << 16 | (total_bytes - header_bytes) as u32];
    let sum = Sum::default().add_words(&pseudo).add_bytes(&packet[addresses]);
    let checksum = sum.add_bytes(&packet[header_bytes..total_bytes]).finish();
    packet[header_bytes + 16..header_bytes + 18].copy_from_slice(&checksum.to_be_bytes());
}
