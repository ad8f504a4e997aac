//! Explicit congestion notification: the network marks what it would else have dropped (RFC 3168).
//!
//! ```text
//!  sender                         network                        receiver
//!  new data, ECT ---------------> CE ---------------------------> owes ECE
//!  reduces its window <------------------------------------------ ECE on every segment
//!  owes CWR: next new data ----------------------------------->   ECE no more
//! ```
//!
//! In: the bits of segments. Out: what is agreed on and owed, kept in the flow, and what a segment that is sent says of
//! it. How the window is reduced stands in `recovery` and `congestion`.
//!
//! Invariant: ECT stands on new payload only: never on a SYN, an ACK alone, a probe or what is sent again (§6.1.1,
//! §6.1.4 to §6.1.6).

use super::{Active, Control, Flow, Rule, Segment};

/// Whether the peer is offered ECN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ecn {
    /// Never.
    Off,
    /// A peer that asks for it gets it; we ask nobody.
    #[default]
    Answers,
    /// And the peers that we connect to are asked for it.
    Asks,
}

/// What one segment says of congestion, beside what decided its fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Signals(u8);

impl Signals {
    /// Its payload was marked, and ECE is owed from now on.
    const MARKED: Signals = Signals(1 << 0);
    /// The peer knows: ECE is owed no longer.
    const ANSWERED: Signals = Signals(1 << 1);
    /// What we sent was marked, and our window is reduced for it.
    pub(super) const ECHOED: Signals = Signals(1 << 2);

    pub(super) fn add(&mut self, other: Signals) {
        self.0 |= other.0;
    }

    /// The rules by which it counts.
    pub fn rules(self) -> impl Iterator<Item = Rule> {
        let rules = [
            (Signals::ANSWERED, Rule::CongestionAnswered),
            (Signals::MARKED, Rule::CongestionMarked),
            (Signals::ECHOED, Rule::CongestionEchoed),
        ];
        rules.into_iter().filter(move |(signal, _)| self.0 & signal.0 != 0).map(|(_, rule)| rule)
    }
}

/// A SYN that asks for ECN (§6.1.1: an ECN-setup SYN).
pub(super) fn is_setup_syn(segment: &Segment) -> bool {
    let asking = Control::SYN.with(Control::ECE).with(Control::CWR);
    segment.control.has(asking) && !segment.control.has(Control::ACK)
}

/// A SYN-ACK that grants it. One with both bits is the work of a host that returns what it does not know.
pub(super) fn is_setup_syn_ack(segment: &Segment) -> bool {
    let granting = Control::SYN.with(Control::ACK).with(Control::ECE);
    segment.control.has(granting) && !segment.control.has(Control::CWR)
}

/// The bits of a segment that acknowledges: ECE stands on each until the peer has answered (§6.1.3).
pub(super) fn ack_control(flow: &Flow) -> Control {
    Control::ACK.with(Control::ECE.when(flow.owes_ece()))
}

/// Payload has come that lies within the window, or what it says does not count (§6.1.5): CWR ends the echo, and CE on
/// the same segment begins it anew (§6.1.3). The peer learns of either at once.
pub(super) fn take_marks(flow: &mut Flow, active: &mut Active, segment: &Segment) -> Signals {
    let mut signals = Signals::default();
    if !flow.has_ecn() || segment.payload_bytes == 0 {
        return signals;
    }
    if segment.control.has(Control::CWR) && flow.owes_ece() {
        flow.set_owes_ece(false);
        active.owe_ack();
        signals.add(Signals::ANSWERED);
    }
    if segment.is_congested && !flow.owes_ece() {
        flow.set_owes_ece(true);
        active.owe_ack();
        signals.add(Signals::MARKED);
    }
    signals
}

impl Flow {
    /// Both bits stand in the byte that keeps when a challenge was last sent.
    const HAS_ECN: u8 = 1 << 6;
    const OWES_ECE: u8 = 1 << 7;

    /// Whether both ends have agreed on ECN; in SYN-SENT, whether we ask for it.
    pub fn has_ecn(&self) -> bool {
        self.challenge & Flow::HAS_ECN != 0
    }

    pub(super) fn begin_ecn(&mut self) {
        self.challenge |= Flow::HAS_ECN;
    }

    pub(super) fn end_ecn(&mut self) {
        self.challenge &= !(Flow::HAS_ECN | Flow::OWES_ECE);
    }

    /// Whether the peer is to be told that what it sent was marked.
    pub fn owes_ece(&self) -> bool {
        self.challenge & Flow::OWES_ECE != 0
    }

    fn set_owes_ece(&mut self, owes: bool) {
        self.challenge = self.challenge & !Flow::OWES_ECE | if owes { Flow::OWES_ECE } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{SeqNum, Time};

    fn segment(control: Control) -> Segment<'static> {
        Segment::bare(SeqNum(0), SeqNum(0), control, 0)
    }

    #[test]
    fn a_syn_ack_with_both_bits_grants_nothing() {
        let syn_ack = Control::SYN.with(Control::ACK);
        let both = Control::ECE.with(Control::CWR);
        assert!(is_setup_syn_ack(&segment(syn_ack.with(Control::ECE))));
        for control in [syn_ack, syn_ack.with(both), syn_ack.with(Control::CWR), Control::ACK.with(Control::ECE)] {
            assert!(!is_setup_syn_ack(&segment(control)), "{control:?}");
        }
        assert!(is_setup_syn(&segment(Control::SYN.with(both))));
        for control in [Control::SYN.with(Control::ECE), Control::SYN.with(Control::CWR), syn_ack.with(both), both] {
            assert!(!is_setup_syn(&segment(control)), "{control:?}");
        }
    }

    #[test]
    fn challenges_and_ecn_share_a_byte_without_touching() {
        let mut flow = Flow::free(0);
        flow.begin_ecn();
        flow.set_owes_ece(true);
        for second in 0..200 {
            let now = Time::from_ms(second * 1_000);
            flow.allow_challenge(now);
            assert!(flow.may_challenge(now) && !flow.may_challenge(now));
            assert!(flow.has_ecn() && flow.owes_ece());
        }
        flow.set_owes_ece(false);
        assert!(!flow.may_challenge(Time::from_ms(199_999)) && flow.has_ecn());
        flow.end_ecn();
        assert!(!flow.may_challenge(Time::from_ms(199_999)) && !flow.has_ecn());
    }
}
