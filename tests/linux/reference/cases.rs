//! Cases: one connection for each state, segment and position.

use super::conversation::{Case, Step};
use super::crafted::{ACK, Ack, FIN, RST, SYN, Segment, Seq};
use super::stack::PORT;

pub fn all() -> Vec<Case> {
    let syn = Step::Send(Segment::new(SYN, Seq::Start(0), None).options(&[2, 4, 5, 0xb4]));
    let ack = Step::Send(Segment::new(ACK, Seq::Next(0), Some(Ack::Next(0))));
    let mut cases = Vec::new();
    for (name, segment) in [
        ("data", Segment::new(ACK, Seq::Next(0), Some(Ack::Next(0))).payload(10)),
        ("rst", Segment::new(RST, Seq::Next(0), None)),
        ("fin", Segment::new(FIN, Seq::Next(0), Some(Ack::Next(0)))),
    ] {
        let steps = vec![syn.clone(), ack.clone(), Step::Send(segment)];
        cases.push(Case { name: format!("ESTABLISHED {name}"), server_port: PORT, start: 1000, steps });
    }
    cases
}
