//! Planted breaches: the oracle sees each of them.

use holdline::shard::{FlowId, Ticket};

use super::book::{Book, Pushed, peer_bytes, server_bytes};
use super::ecn::{CE, ECT_0};
use super::frame::{self, ACK, CWR, Came, ECE, Ends, FIN, RST, SYN, Segment};
use super::profile::LOCALS;
use super::wire::{Standing, Wire};

const ENDS: Ends = Ends { mac: [2; 6], remote: [10, 0, 0, 2], remote_port: 40_000, local: LOCALS[0], local_port: 80 };
const ISS: u32 = u32::MAX - 50;
const IRS: u32 = 1_000;

fn segment(seq: u32, ack: u32, control: u8, payload: &[u8]) -> Segment<'_> {
    Segment { seq, ack, control, window: 1_000, urgent: 0, ecn: 0, options: &[], payload }
}

/// A connection whose peer has an MSS and a window of 100, has sent 10 bytes and was told of a window of 1,000.
fn opened() -> Wire {
    let mut wire = Wire::new(ENDS);
    wire.on_going(&Segment { options: &[2, 4, 0, 100], window: 100, ..segment(IRS, 0, SYN, b"") });
    wire.on_coming(&segment(ISS, IRS + 1, SYN | ACK, b""), Standing::NotOpen).expect("a SYN is answered");
    wire.on_going(&Segment { window: 100, ..segment(IRS + 1, ISS.wrapping_add(1), ACK, &[7; 10]) });
    wire.on_coming(&segment(ISS.wrapping_add(1), IRS + 11, ACK, b""), Standing::Open)
        .expect("what was sent is acknowledged");
    wire.end_operation(true);
    wire
}

fn breach(coming: Segment<'_>) -> Option<&'static str> {
    opened().on_coming(&coming, Standing::Open).err()
}

#[test]
fn a_breach_on_the_wire_is_seen() {
    let next = ISS.wrapping_add(1);
    let fine = segment(next, IRS + 11, ACK, &[1; 100]);
    assert_eq!(breach(fine), None);
    assert_eq!(breach(Segment { control: ACK | FIN, ..fine }), None);
    let breaches = [
        Segment { control: 0, ..fine },
        Segment { control: ACK | SYN, ..fine },
        Segment { ack: IRS + 12, ..fine },
        Segment { ack: IRS + 10, window: 2_000, ..fine },
        Segment { window: 999, ..fine },
        Segment { payload: &[1; 101], ..fine },
        Segment { seq: next.wrapping_add(1), ..fine },
        Segment { seq: ISS, ..fine },
    ];
    for coming in breaches {
        assert!(breach(coming).is_some(), "{coming:?}");
    }
    let mut wire = opened();
    wire.on_coming(&segment(next, IRS + 11, ACK | FIN, b""), Standing::Open).expect("a FIN is sent");
    assert!(wire.on_coming(&segment(next, IRS + 11, ACK, b"x"), Standing::Open).is_err(), "bytes behind the FIN");
    let mut wire = opened();
    wire.end_operation(false);
    assert!(
        wire.on_coming(&segment(next, IRS + 11, ACK, b""), Standing::NotOpen).is_err(),
        "a connection that is over speaks"
    );
}

/// SACK blocks as an option.
fn sack(blocks: &[(u32, u32)]) -> Vec<u8> {
    let mut option = vec![5, 2 + 8 * blocks.len() as u8];
    blocks.iter().for_each(|(start, end)| option.extend([start.to_be_bytes(), end.to_be_bytes()].concat()));
    option
}

#[test]
fn a_breach_in_sack_blocks_is_seen() {
    const PERMITTED: &[u8] = &[4, 2];
    let next = ISS.wrapping_add(1);
    let look = |permitted: &[u8], blocks: &[(u32, u32)]| {
        let mut wire = Wire::new(ENDS);
        wire.on_going(&Segment { options: permitted, ..segment(IRS, 0, SYN, b"") });
        let answer = Segment { options: PERMITTED, ..segment(ISS, IRS + 1, SYN | ACK, b"") };
        wire.on_coming(&answer, Standing::NotOpen).expect("a SYN is answered");
        for (offset, bytes) in [(0, 10), (20, 10), (30, 10), (50, 10), (70, 10), (90, 10)] {
            wire.on_going(&segment(IRS + 1 + offset, next, ACK, &[7; 100][..bytes]));
        }
        let blocks: Vec<_> = blocks.iter().map(|(start, end)| (IRS + 1 + start, IRS + 1 + end)).collect();
        let options = sack(&blocks);
        let coming = Segment { options: &options, ..segment(next, IRS + 11, ACK, b"") };
        wire.on_coming(&coming, Standing::Open)
    };
    assert_eq!(look(PERMITTED, &[(90, 100), (70, 80), (50, 60), (20, 40)]), Ok(None));
    assert_eq!(look(PERMITTED, &[(0, 10), (20, 40)]), Ok(None), "the first of them came twice");
    assert_eq!(look(PERMITTED, &[(22, 30), (20, 40)]), Ok(None), "it came twice beyond the gap");
    assert!(look(&[], &[(20, 40)]).is_err(), "nobody has agreed");
    let breaches: [&[(u32, u32)]; 9] = [
        &[(20, 41)],
        &[(10, 20)],
        &[(40, 20)],
        &[(20, 20)],
        &[(20, 40), (0, 10)],
        &[(5, 15)],
        &[(20, 40), (20, 40), (30, 40)],
        &[(50, 60), (20, 30), (30, 40)],
        &[(90, 100), (70, 80), (50, 60), (20, 40), (0, 10)],
    ];
    for blocks in breaches {
        assert!(look(PERMITTED, blocks).is_err(), "{blocks:?}");
    }
}

fn book() -> Book {
    let mut book = Book::new(FlowId::new(0, 0, 0), 0, Some(IRS));
    book.pushes.extend([Pushed::new(Ticket(1), 20, 5), Pushed::new(Ticket(2), 10, 6)]);
    book
}

#[test]
fn a_breach_in_what_is_sent_is_seen() {
    let both = [server_bytes(5, 20), server_bytes(6, 10)].concat();
    assert_eq!(book().on_wire(0, &both, true), Ok(()));
    assert!(book().on_wire(1, &both[1..], false).is_err(), "a gap");
    assert!(book().on_wire(0, &both[..20], true).is_err(), "a FIN ahead of a push");
    assert!(book().on_wire(0, &both[20..], false).is_err(), "the second push first");
    for at in 0..both.len() {
        let mut wrong = both.clone();
        wrong[at] ^= 1;
        assert!(book().on_wire(0, &wrong, false).is_err(), "byte {at} is another");
    }
    let mut sent = book();
    sent.on_wire(0, &both[..20], false).expect("the first push is sent");
    assert!(sent.clone().on_expired(Ticket(1)).is_err(), "what was begun expires");
    assert!(sent.clone().on_delivered(Ticket(2), Some(30)).is_err(), "the second is delivered first");
    assert!(sent.clone().on_delivered(Ticket(1), Some(19)).is_err(), "it is delivered and not acknowledged");
    assert!(sent.clone().on_closed().is_err(), "pushes have no fate");
    assert_eq!(sent.on_delivered(Ticket(1), Some(20)), Ok(()));
    assert!(sent.clone().on_delivered(Ticket(1), Some(20)).is_err(), "it is delivered twice");
    assert!(sent.clone().on_wire(0, &both[..1], false).is_err(), "it is sent again after that");
    assert!(sent.on_undelivered(Ticket(2), 11).is_err(), "more is acknowledged than there was");
}

#[test]
fn a_breach_in_what_is_received_is_seen() {
    let first = peer_bytes(IRS + 1, 10);
    let mut book = book();
    assert!(book.clone().on_received(1, first, true).is_err(), "a gap");
    assert!(book.clone().on_received(0, peer_bytes(IRS + 2, 10), true).is_err(), "other bytes");
    assert_eq!(book.on_received(0, first, true), Ok(()));
    assert!(book.clone().on_received(0, first, true).is_err(), "the same bytes twice");
    assert_eq!(book.on_peer_closed(), Ok(()));
    assert!(book.clone().on_peer_closed().is_err(), "two ends");
    assert!(book.on_received(10, peer_bytes(IRS + 11, 1), true).is_err(), "bytes behind the end");
}

#[test]
fn every_broken_frame_is_seen() {
    let mut frame = Vec::new();
    frame::write_segment(&mut frame, &ENDS, &segment(1, 2, ACK, b"payload"));
    frame[6..12].copy_from_slice(&frame::SERVER_MAC);
    assert!(matches!(frame::read_coming(&frame, 1500), Ok(Came::Tcp(..))));
    assert!(frame::read_coming(&frame, 46).is_err(), "larger than the MTU");
    for at in 6..frame.len() {
        let mut wrong = frame.clone();
        wrong[at] ^= 1;
        assert!(frame::read_coming(&wrong, 1500).is_err(), "byte {at} is another");
    }
}

#[test]
fn ecn_where_it_may_not_be_is_seen() {
    let next = ISS.wrapping_add(1);
    let talk = |asks: u8| {
        let mut wire = Wire::new(ENDS);
        wire.on_going(&segment(IRS, 0, SYN | asks, b""));
        wire.on_coming(&segment(ISS, IRS + 1, SYN | ACK | asks & ECE, b""), Standing::NotOpen).map(|_| wire)
    };
    let fine = Segment { ecn: ECT_0, ..segment(next, IRS + 1, ACK | ECE | CWR, &[1; 100]) };
    let mut wire = talk(ECE | CWR).expect("ECN is granted");
    wire.on_coming(&fine, Standing::Open).expect("new payload may have it all");
    let after = next.wrapping_add(100);
    let breaches = [
        fine,
        Segment { seq: after, ecn: CE, ..fine },
        Segment { seq: after, ecn: 0, ..fine },
        Segment { seq: after, payload: b"", ..fine },
        Segment { seq: after, control: RST | ACK, ..fine },
    ];
    for coming in breaches {
        assert!(wire.on_coming(&coming, Standing::Open).is_err(), "{coming:?}");
    }
    assert!(talk(ECE).is_err(), "granted to one that has not asked");
    let mut wire = talk(0).expect("no ECN");
    for control in [ACK | ECE, ACK | CWR] {
        assert!(wire.on_coming(&segment(next, IRS + 1, control, b""), Standing::Open).is_err());
    }
}
