//! Oracle: what the RFCs say of one segment in one state, in the order and close to the words of RFC 9293 §3.10.7.
//!
//! Small, slow and independent: it shares nothing with the stack, keeps one connection in plain numbers (`connection`)
//! and says what is sent, which state follows and how much data is taken. RFC 5961 (blind attacks), RFC 1337 (resets in
//! TIME-WAIT), RFC 6191 (SYNs in TIME-WAIT) and RFC 7323 (timestamps) stand where they change the text.
//!
//! [`DEPARTURES`] is the table of what holdline does otherwise, each with its reason.

use super::connection::{Answer, Outcome, Seg, State, Tcb};
use State::{
    CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent, TimeWait,
};

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn up_to(a: u32, b: u32) -> bool {
    !before(b, a)
}

impl Tcb {
    fn says(&self, answer: Option<Answer>) -> Outcome {
        let (state, snd_una) = (self.state, self.snd_una);
        Outcome { answer, may_be_late: false, state, taken: 0, snd_una }
    }

    fn drops(&self) -> Outcome {
        self.says(None)
    }

    fn acks(&self) -> Outcome {
        self.says(Some(Answer::Ack { seq: self.snd_nxt, ack: self.rcv_nxt }))
    }

    fn enters(&self, state: State) -> Outcome {
        Outcome { state, ..self.drops() }
    }

    fn is_in_window(&self, number: u32) -> bool {
        up_to(self.rcv_nxt, number) && before(number, self.rcv_nxt.wrapping_add(self.rcv_wnd))
    }

    fn is_acceptable(&self, seg: &Seg) -> bool {
        match (seg.len(), self.rcv_wnd) {
            (0, 0) => seg.seq == self.rcv_nxt,
            (0, _) => self.is_in_window(seg.seq),
            (_, 0) => false,
            (len, _) => self.is_in_window(seg.seq) || self.is_in_window(seg.seq.wrapping_add(len - 1)),
        }
    }
}

/// SEGMENT ARRIVES.
pub fn arrives(tcb: &Tcb, seg: &Seg) -> Outcome {
    match tcb.state {
        Closed => closed(tcb, seg),
        Listen => listen(tcb, seg),
        SynSent => syn_sent(tcb, seg),
        SynReceived | Established | FinWait1 | FinWait2 | CloseWait | Closing | LastAck | TimeWait => other(tcb, seg),
    }
}

/// §3.10.7.1.
fn closed(tcb: &Tcb, seg: &Seg) -> Outcome {
    if seg.rst {
        return tcb.drops();
    }
    tcb.says(Some(match seg.ack {
        Some(ack) => Answer::Rst { seq: ack },
        None => Answer::RstAck { ack: seg.seq.wrapping_add(seg.len()) },
    }))
}

/// §3.10.7.2.
fn listen(tcb: &Tcb, seg: &Seg) -> Outcome {
    if seg.rst {
        return tcb.drops();
    }
    if let Some(ack) = seg.ack {
        return tcb.says(Some(Answer::Rst { seq: ack }));
    }
    if seg.syn {
        let answer = Some(Answer::SynAck { ack: seg.seq.wrapping_add(1) });
        return Outcome { answer, state: SynReceived, ..tcb.drops() };
    }
    tcb.drops()
}

/// §3.10.7.3.
fn syn_sent(tcb: &Tcb, seg: &Seg) -> Outcome {
    let iss = tcb.snd_una;
    if let Some(ack) = seg.ack.filter(|ack| !(before(iss, *ack) && up_to(*ack, tcb.snd_nxt))) {
        return if seg.rst { tcb.drops() } else { tcb.says(Some(Answer::Rst { seq: ack })) };
    }
    if seg.rst {
        // RFC 5961 §3.2: it counts where it acknowledges our SYN.
        return if seg.ack.is_some() { tcb.enters(Closed) } else { tcb.drops() };
    }
    if !seg.syn {
        return tcb.drops();
    }
    let rcv_nxt = seg.seq.wrapping_add(1);
    let Some(ack) = seg.ack else {
        return Outcome { answer: Some(Answer::SynAck { ack: rcv_nxt }), state: SynReceived, ..tcb.drops() };
    };
    let tcb = Tcb { state: Established, rcv_nxt, snd_una: ack, ..*tcb };
    // Other controls or text: on with the sixth step.
    let rest = text(&tcb, &Seg { seq: rcv_nxt, syn: false, ..*seg });
    if rest.answer.is_some() { rest } else { tcb.acks() }
}

/// §3.10.7.4.
fn other(tcb: &Tcb, seg: &Seg) -> Outcome {
    // RFC 6191 §2, RFC 9293 §3.6.1 (MAY-2).
    if tcb.state == TimeWait && reopens(tcb, seg) {
        let answer = Some(Answer::SynAck { ack: seg.seq.wrapping_add(1) });
        return Outcome { answer, state: SynReceived, ..tcb.drops() };
    }
    // RFC 7323 §3.2 and §5.3, R1. A SYN without a timestamp is answered as any other (RFC 5961 §4.2): its sender has
    // lost the connection, and would never learn of it.
    if let Some(recent) = tcb.ts_recent.filter(|_| !seg.rst) {
        match seg.stamp {
            None if seg.syn => {}
            None => return tcb.drops(),
            Some(stamp) if before(stamp, recent) => return tcb.acks(),
            Some(_) => {}
        }
    }
    // First. With a closed window ACKs, URGs and RSTs at RCV.NXT are still processed (MUST-66).
    let is_allowed = tcb.rcv_wnd == 0 && seg.seq == tcb.rcv_nxt && (seg.ack.is_some() || seg.rst || seg.urg);
    if !tcb.is_acceptable(seg) && !is_allowed {
        return if seg.rst { tcb.drops() } else { tcb.acks() };
    }
    // Second (RFC 5961 §3.2; RFC 1337 §3).
    if seg.rst {
        return match tcb.state {
            TimeWait => tcb.drops(),
            SynReceived if seg.seq == tcb.rcv_nxt && !tcb.is_active => tcb.enters(Listen),
            _ if seg.seq == tcb.rcv_nxt => tcb.enters(Closed),
            _ => tcb.acks(),
        };
    }
    // Fourth (RFC 5961 §4.2).
    if seg.syn {
        return if tcb.state == SynReceived && !tcb.is_active { tcb.enters(Listen) } else { tcb.acks() };
    }
    // Fifth.
    let Some(ack) = seg.ack else { return tcb.drops() };
    if tcb.state == SynReceived {
        if !(before(tcb.snd_una, ack) && up_to(ack, tcb.snd_nxt)) {
            return tcb.says(Some(Answer::Rst { seq: ack }));
        }
        return text(&Tcb { state: Established, snd_una: ack, ..*tcb }, seg);
    }
    // RFC 5961 §5.2.
    if !(up_to(tcb.snd_una.wrapping_sub(tcb.snd_wnd_max), ack) && up_to(ack, tcb.snd_nxt)) {
        return tcb.acks();
    }
    let mut tcb = Tcb { snd_una: if before(tcb.snd_una, ack) { ack } else { tcb.snd_una }, ..*tcb };
    let is_fin_acknowledged = tcb.snd_una == tcb.snd_nxt;
    match tcb.state {
        FinWait1 if is_fin_acknowledged => tcb.state = FinWait2,
        Closing if is_fin_acknowledged => tcb.state = TimeWait,
        LastAck if is_fin_acknowledged => return tcb.enters(Closed),
        Closing => return tcb.drops(),
        // "The only thing that can arrive in this state is a retransmission of the remote FIN. Acknowledge it".
        TimeWait if seg.len() > 0 => return tcb.acks(),
        _ => {}
    }
    text(&tcb, seg)
}

/// A SYN that opens a new connection in place of one in TIME-WAIT.
fn reopens(tcb: &Tcb, seg: &Seg) -> bool {
    let is_beyond = before(tcb.rcv_nxt, seg.seq);
    let is_new = match (tcb.ts_recent, seg.stamp) {
        (Some(recent), Some(stamp)) => before(recent, stamp) || recent == stamp && is_beyond,
        _ => is_beyond,
    };
    seg.syn && seg.ack.is_none() && !seg.rst && !seg.fin && is_new
}

/// Seventh and eighth; the sixth, URG, tells the user only.
fn text(tcb: &Tcb, seg: &Seg) -> Outcome {
    if seg.len() == 0 {
        return tcb.drops();
    }
    let takes_text = matches!(tcb.state, Established | FinWait1 | FinWait2);
    if !takes_text && !seg.fin {
        return tcb.drops();
    }
    // §3.6.1, SHLD-3: new data that nobody reads is answered by a reset, to show that it was lost.
    if tcb.is_orphan && takes_text && seg.text > 0 && before(tcb.rcv_nxt, seg.seq.wrapping_add(seg.text)) {
        return Outcome { answer: Some(Answer::Rst { seq: tcb.snd_nxt }), ..tcb.enters(Closed) };
    }
    if before(tcb.rcv_nxt, seg.seq) {
        // Right of RCV.NXT: held back or dropped (SHLD-31), and RCV.NXT is told.
        return if takes_text { tcb.acks() } else { tcb.drops() };
    }
    let old = tcb.rcv_nxt.wrapping_sub(seg.seq);
    let new = seg.text.saturating_sub(old);
    let taken = if takes_text { new.min(tcb.rcv_wnd) } else { 0 };
    // The FIN counts where nothing before it is missing, and only inside the window.
    let fin_at = seg.seq.wrapping_add(seg.text);
    let next = tcb.rcv_nxt.wrapping_add(taken);
    let has_fin = seg.fin && fin_at == next && tcb.is_in_window(fin_at);
    let state = match tcb.state {
        Established if has_fin => CloseWait,
        FinWait1 if has_fin => Closing,
        FinWait2 if has_fin => TimeWait,
        state => state,
    };
    let tcb = Tcb { state, rcv_nxt: next.wrapping_add(u32::from(has_fin)), ..*tcb };
    if !takes_text && !has_fin {
        return tcb.drops();
    }
    Outcome { taken, may_be_late: true, ..tcb.acks() }
}

/// Something that holdline does otherwise.
pub struct Departure {
    pub name: &'static str,
    pub reason: &'static str,
    /// What it does, for the segments that the departure is about.
    pub does: fn(&Tcb, &Seg) -> Option<Outcome>,
}

/// With less of its window left than this a connection has bytes that are not read yet.
const UNREAD_BELOW: u32 = 10;

/// What becomes of an end that would take bytes with it.
fn unread(tcb: &Tcb, outcome: &Outcome) -> Option<Outcome> {
    let is_unread = tcb.rcv_wnd < UNREAD_BELOW;
    match (tcb.state, outcome.state) {
        (LastAck, Closed) if is_unread => Some(Outcome { state: TimeWait, ..*outcome }),
        (TimeWait, SynReceived) if is_unread => Some(tcb.acks()),
        _ => None,
    }
}

/// The table. Each holds for exactly the segments that it names, and is shown by at least one of them.
pub const DEPARTURES: &[Departure] = &[
    Departure {
        name: "An ACK from the right edge is taken",
        reason: "A peer that has filled our window sends its ACKs from there, and if the last segment is lost they \
                 are all that comes: dropping them stops our own direction. Linux takes them, too",
        does: |tcb, seg| {
            let is_on_edge = seg.seq == tcb.rcv_nxt.wrapping_add(tcb.rcv_wnd) && seg.len() == 0 && !seg.rst;
            let is_it = is_on_edge && tcb.is_connection() && tcb.rcv_wnd > 0 && tcb.takes_stamp(seg);
            let outcome = arrives(tcb, &Seg { seq: tcb.rcv_nxt, ..*seg });
            is_it.then(|| unread(tcb, &outcome).unwrap_or(outcome))
        },
    },
    Departure {
        name: "The SYN again is answered by the SYN-ACK again",
        reason: "RFC 9293 has an ACK sent, as it lies left of the window; the SYN-ACK is one, and our first was lost",
        does: |tcb, seg| {
            let is_again = tcb.state == SynReceived && seg.seq == tcb.irs && seg.syn && seg.ack.is_none() && !seg.rst;
            is_again.then(|| tcb.says(Some(Answer::SynAckAgain { ack: tcb.rcv_nxt })))
        },
    },
    Departure {
        name: "In SYN-RECEIVED a SYN in the window gets a challenge ACK",
        reason: "RFC 9293 goes back to LISTEN, which lets one blind SYN end a handshake; RFC 5961 §4.2 is as good \
                 here: a peer that has begun anew answers with an exact reset",
        does: |tcb, seg| {
            let is_passive = tcb.state == SynReceived && !tcb.is_active;
            let is_in_window = seg.syn && !seg.rst && tcb.is_acceptable(seg);
            (is_passive && is_in_window && tcb.takes_stamp(seg)).then(|| tcb.acks())
        },
    },
    Departure {
        name: "In a simultaneous open the peer's SYN-ACK completes the handshake",
        reason: "RFC 9293 §3.5, figure 8, has it so; in the words of §3.10.7.4 its SYN lies left of the window",
        does: |tcb, seg| {
            let is_simultaneous = tcb.state == SynReceived && tcb.is_active && seg.syn && !seg.rst;
            let is_answer = seg.seq == tcb.irs && seg.ack == Some(tcb.snd_nxt);
            let opened = Tcb { state: Established, snd_una: tcb.snd_nxt, ..*tcb };
            (is_simultaneous && is_answer).then(|| opened.acks())
        },
    },
    Departure {
        name: "Text and FIN on a SYN-ACK are not taken",
        reason: "They come again, as our ACK says that nothing behind the SYN was received; no server sends them, and \
                 a forged SYN-ACK shall bring no text along",
        does: |tcb, seg| {
            let is_answer = tcb.state == SynSent && seg.syn && !seg.rst && seg.ack == Some(tcb.snd_nxt);
            (is_answer && seg.len() > 1).then(|| arrives(tcb, &Seg { text: 0, fin: false, ..*seg }))
        },
    },
    Departure {
        name: "LISTEN drops a SYN with FIN",
        reason: "No client sends it, scanners do. Linux drops it, too",
        does: |tcb, seg| {
            let is_both = tcb.state == Listen && seg.syn && seg.fin && seg.ack.is_none() && !seg.rst;
            is_both.then(|| tcb.drops())
        },
    },
    Departure {
        name: "A connection whose bytes are not read yet does not end",
        reason: "They would be lost, though the peer was told that they have arrived: LAST-ACK becomes TIME-WAIT, and \
                 a SYN does not take its place before all is read. With Linux they stay readable, too",
        does: |tcb, seg| {
            let outcome = arrives(tcb, seg);
            if seg.rst { None } else { unread(tcb, &outcome) }
        },
    },
    Departure {
        name: "A second FIN is ignored",
        reason: "RFC 9293 §3.10.7.4, eighth, has RCV.NXT advance over any FIN; a stream has one end. Linux says \
                 nothing",
        does: |tcb, seg| {
            let is_second = matches!(tcb.state, CloseWait | Closing | LastAck) && seg.fin;
            let outcome = arrives(tcb, seg);
            (is_second && outcome.may_be_late).then_some(Outcome { answer: None, may_be_late: false, ..outcome })
        },
    },
    Departure {
        name: "A FIN is taken with a closed window",
        reason: "It takes no room, and a peer that has nothing else to say would have to probe with it for ever. \
                 Linux takes it, too",
        does: |tcb, seg| {
            let is_open = matches!(tcb.state, Established | FinWait1 | FinWait2);
            let is_at_edge = tcb.rcv_wnd == 0 && seg.seq == tcb.rcv_nxt && seg.fin && seg.text == 0;
            let opened = arrives(&Tcb { rcv_wnd: 1, ..*tcb }, seg);
            (is_open && is_at_edge && opened.may_be_late).then_some(opened)
        },
    },
    Departure {
        name: "Until our FIN is acknowledged, data for nobody is taken and lost, not answered by a reset",
        reason: "The reset would take with it what was queued before the close and is still on its way; SHLD-3 is \
                 followed from FIN-WAIT-2 on, and by then the peer has it all",
        does: |tcb, seg| {
            let is_waiting = tcb.state == FinWait1 && tcb.is_orphan && seg.ack != Some(tcb.snd_nxt);
            let is_reset = matches!(arrives(tcb, seg), Outcome { answer: Some(Answer::Rst { .. }), .. });
            (is_waiting && is_reset).then(|| arrives(&Tcb { is_orphan: false, ..*tcb }, seg))
        },
    },
    Departure {
        name: "With a closed window a segment at RCV.NXT without ACK is dropped",
        reason: "MUST-66 has what is at RCV.NXT looked at for its ACK, URG and RST; without ACK it is dropped where \
                 it would be with an open window. No peer sends it",
        does: |tcb, seg| {
            let is_there = tcb.rcv_wnd == 0 && seg.seq == tcb.rcv_nxt && tcb.is_connection() && tcb.takes_stamp(seg);
            (is_there && seg.ack.is_none() && !seg.rst && !seg.syn).then(|| tcb.drops())
        },
    },
];

impl Tcb {
    fn is_connection(&self) -> bool {
        !matches!(self.state, Closed | Listen | SynSent)
    }

    /// Whether the timestamp lets the segment through.
    fn takes_stamp(&self, seg: &Seg) -> bool {
        match (self.ts_recent, seg.stamp) {
            (None, _) => true,
            (Some(_), None) => seg.syn,
            (Some(recent), Some(stamp)) => !before(stamp, recent),
        }
    }
}
