//! Sequences: conversations of several steps that matter together, one by one.

use super::cases::{MSS_OPTION, SCALED_OPTIONS, ack, syn};
use super::conversation::{Case, Step};
use super::crafted::{ACK, Ack, Damage, FIN, PSH, SYN, Segment, Seq};
use super::stack::PORT;

const NEXT: Option<Ack> = Some(Ack::Next(0));

fn data(by: i32, bytes: u16) -> Step {
    Step::Send(Segment::new(PSH, Seq::Next(by), NEXT).payload(bytes))
}

fn fin(by: i32, bytes: u16) -> Step {
    Step::Send(Segment::new(FIN, Seq::Next(by), NEXT).payload(bytes))
}

fn acks(ack: Ack) -> Step {
    Step::Send(Segment::new(ACK, Seq::Next(0), Some(ack)))
}

fn window(bytes: u16) -> Step {
    Step::Send(Segment::new(ACK, Seq::Next(0), NEXT).window(bytes))
}

/// A byte with a window.
fn narrow(by: i32, window: u16) -> Step {
    Step::Send(Segment::new(0, Seq::Next(by), NEXT).payload(1).window(window))
}

/// A SYN for a new connection in place of the old one.
fn syn_beyond(by: i32) -> Step {
    Step::Send(Segment::new(SYN, Seq::Next(by), None).options(MSS_OPTION))
}

/// Data with ECE and CWR as these bits say, in a packet with this ECN field.
fn marked(by: i32, bytes: u16, bits: u8, field: u8) -> Step {
    let segment = Segment::new(PSH, Seq::Next(by), NEXT).payload(bytes);
    Step::Send(segment.damaged(Damage::Ecn(bits)).damaged(Damage::Tos(field)))
}

fn echo(ack: Ack) -> Step {
    Step::Send(Segment::new(ACK, Seq::Next(0), Some(ack)).damaged(Damage::Ecn(ECE_BIT)))
}

fn syn_ecn(bits: u8) -> Step {
    Step::Send(Segment::new(SYN, Seq::Start(0), None).options(MSS_OPTION).damaged(Damage::Ecn(bits)))
}

const ECE_BIT: u8 = 1;
const CWR_BIT: u8 = 2;
const SETUP: u8 = ECE_BIT | CWR_BIT;
const CE: u8 = 3;

/// What follows a SYN with these bits of ECN.
fn notified() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("ECN: marked and answered", vec![ack(), marked(0, 10, 0, CE), marked(0, 10, 0, 2), marked(0, 10, CWR_BIT, 2)]),
        (
            "ECN: marked where it says that it is less",
            vec![ack(), marked(0, 9, 0, CE), marked(0, 9, CWR_BIT, CE), ack()],
        ),
        ("ECN: a push in between", vec![ack(), marked(0, 10, 0, CE), Step::Push(50), ack(), marked(0, 9, CWR_BIT, 0)]),
        ("ECN: an echo", vec![ack(), Step::Push(50), echo(Ack::Next(0)), Step::Push(60), ack(), Step::Push(70), ack()]),
        ("ECN: an echo of a part", vec![ack(), Step::Push(90), echo(Ack::Una(40)), Step::Push(60), ack()]),
        ("ECN: marked beyond a gap", vec![ack(), marked(20, 10, 0, CE), marked(0, 20, 0, 2), marked(0, 5, CWR_BIT, 2)]),
        ("ECN: marked left of the window", vec![ack(), data(0, 30), marked(-30, 30, 0, CE), data(0, 5)]),
        ("ECN: a marked FIN", vec![ack(), marked(0, 10, 0, CE), fin(0, 0), Step::Close, ack()]),
        ("ECN: the handshake is completed by marked data", vec![marked(0, 10, 0, CE), data(0, 10)]),
        ("ECN: the SYN again without", vec![syn(MSS_OPTION), ack(), marked(0, 10, 0, CE), Step::Push(9), ack()]),
    ]
}

/// What follows a completed handshake.
fn opened() -> Vec<(&'static str, Vec<Step>)> {
    let close = || Step::Close;
    vec![
        ("bytes again and further", vec![data(0, 20), data(-10, 30), data(-20, 20), data(0, 1)]),
        ("a gap that is filled", vec![data(20, 10), data(0, 20), data(0, 10)]),
        ("a gap that is covered", vec![data(20, 10), data(0, 40)]),
        ("a gap before the FIN", vec![fin(20, 10), data(0, 20), fin(0, 10)]),
        ("the FIN again", vec![fin(0, 10), fin(-11, 10), fin(-1, 0), ack()]),
        ("data after the FIN", vec![fin(0, 10), data(0, 10), data(-1, 10)]),
        ("a push, acknowledged in parts", vec![Step::Push(400), acks(Ack::Una(100)), acks(Ack::Una(0)), ack()]),
        (
            "a push, acknowledged and then again",
            vec![Step::Push(400), ack(), acks(Ack::Next(-1)), acks(Ack::Next(-400))],
        ),
        ("a push into a window that shrank", vec![window(100), Step::Push(250)]),
        (
            "a push into a closed window",
            vec![
                data(0, 1),
                Step::Send(Segment::new(0, Seq::Next(0), NEXT).payload(1).window(0)),
                Step::Push(250),
                window(1_000),
                ack(),
            ],
        ),
        (
            "a close behind a push that waits",
            vec![narrow(0, 50), Step::Push(250), close(), narrow(0, 60_000), ack(), fin(0, 0)],
        ),
        (
            "a close behind a push that waits, half closed",
            vec![fin(0, 0), window(10), Step::Push(250), close(), window(60_000), ack()],
        ),
        (
            "a window that opens right of a gap",
            vec![data(0, 1), data(0, 1), window(13), Step::Push(53), fin(7, 0), ack()],
        ),
        ("two pushes at once in flight", vec![Step::Push(10), Step::Push(20), acks(Ack::Una(10)), ack()]),
        ("a close behind a push", vec![Step::Push(300), close(), acks(Ack::Una(300)), ack(), fin(0, 0)]),
        ("a close and data from the peer", vec![close(), data(0, 10), acks(Ack::Una(0)), ack(), data(0, 9), fin(0, 3)]),
        ("half closed by the peer", vec![fin(0, 0), Step::Push(100), ack(), Step::Push(100), close(), ack()]),
        (
            "closed at the same time",
            vec![close(), Step::Send(Segment::new(FIN, Seq::Next(0), Some(Ack::Una(0)))), ack()],
        ),
        ("the FIN again in TIME-WAIT", vec![close(), ack(), fin(0, 0), fin(-1, 0), fin(-1, 0), ack()]),
        (
            "TIME-WAIT, reopened",
            vec![close(), ack(), fin(0, 0), syn_beyond(5), ack(), data(0, 10), fin(0, 0), close(), ack()],
        ),
        ("TIME-WAIT, an old SYN", vec![close(), ack(), fin(0, 0), syn_beyond(-5), syn_beyond(0), syn_beyond(1), ack()]),
        ("keepalive probes", vec![data(-1, 0), data(-1, 1), data(0, 1), data(-1, 0)]),
        ("FIN and acknowledgment of ours at once", vec![close(), fin(0, 20)]),
        ("closed twice", vec![close(), close(), ack(), close(), fin(0, 0)]),
        ("a push after the close", vec![close(), Step::Push(10), ack()]),
    ]
}

/// All of them, with and without window scaling, in the middle and at the wrap of the client's numbers.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for options in [MSS_OPTION, SCALED_OPTIONS] {
        for start in [1_000, 0xffff_fffa, 0x7fff_fff5] {
            for (name, further) in opened() {
                let steps = [&[syn(options), ack()][..], &further].concat();
                cases.push(Case { name: name.to_owned(), server_port: PORT, start, steps });
            }
            for (name, steps) in [
                ("the SYN again", vec![syn(options), syn(options), ack(), syn(options)]),
                ("data completes the handshake", vec![syn(options), data(0, 10), fin(0, 0)]),
                ("FIN completes the handshake", vec![syn(options), fin(0, 10), Step::Close, ack()]),
                ("data before the handshake is complete", vec![syn(options), data(5, 10), data(0, 5), ack()]),
            ] {
                cases.push(Case { name: name.to_owned(), server_port: PORT, start, steps });
            }
        }
    }
    for bits in [0, ECE_BIT, CWR_BIT, SETUP] {
        for (name, further) in notified() {
            let steps = [&[syn_ecn(bits)][..], &further].concat();
            cases.push(Case { name: name.to_owned(), server_port: PORT, start: 0xffff_fffa, steps });
        }
    }
    cases
}
