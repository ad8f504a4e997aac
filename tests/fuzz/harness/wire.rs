//! Wire: what is known of each connection from its frames, against what may be sent.
//!
//! Held for what comes out: acknowledgments never go back and name nothing that was not sent; the right edge never
//! moves to the left by a unit of the window or more; payload fits the peer's MSS and window; FIN is the end.
//!
//! What goes in is noted generously: a segment counts as taken wherever the stack may have taken it.

use super::ecn;
use super::frame::{ACK, Ends, FIN, Options, RST, SYN, Segment};
use super::sack;
use super::syn::{SHIFT_MAX, Syn, answered};

/// What of a segment that went in counts.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    is_syn: bool,
    seq: u32,
    end: u32,
    ack: Option<u32>,
    window: u16,
}

/// What a tuple is to the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// There is no open connection.
    NotOpen,
    /// One was opened in the operation under way.
    Opening,
    /// One was open before.
    Open,
}

/// One tuple and what was said on it.
#[derive(Clone, Debug)]
pub struct Wire {
    pub ends: Ends,
    syns: Vec<Syn>,
    /// Segments of the operation under way, or of all since the stack has called and not been heard to be answered.
    gone: Vec<Gone>,
    /// The number of an ACK that has left ahead of its SYN-ACK.
    early_seq: Option<u32>,
    /// Payload that went in, wherever it lay.
    sent: Vec<(u32, u32)>,
    pub talk: Option<Talk>,
    /// What SYN-ACKs began, as it was then. Some were cookies, of which the stack kept nothing.
    answers: Vec<Talk>,
    /// The stack was asked to open a connection here.
    pub is_called: bool,
    /// The peer has asked for congestion notification at some time.
    has_asked_ecn: bool,
    /// What a process that died had sent never arrived.
    pub is_over_ipv6: bool,
    pub is_blurred: bool,
}

/// A connection, or one that was, as its frames show it.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    pub irs: u32,
    pub iss: u32,
    /// The sequence number after the last one that the stack has sent.
    pub snd_nxt: u32,
    /// What the peer has acknowledged of it.
    pub snd_una: u32,
    /// What the stack has acknowledged.
    pub rcv_nxt: u32,
    /// Right edge of the window that the stack has offered.
    pub edge: u32,
    /// The sequence number after the last one that the peer has used within the window.
    pub peer_nxt: u32,
    our_shift: u8,
    peer_shift: u8,
    pub mss: u16,
    pub has_sack: bool,
    peer_edge: u32,
    fin_at: Option<u32>,
    /// The stack has sent a SYN that nobody has answered yet; nothing is known of the peer.
    pub is_calling: bool,
    /// The stack's last timestamp and the peer's that it has repeated, where both ends have agreed on them.
    pub timestamps: Option<(u32, u32)>,
    /// The stack holds it, or did.
    was_held: bool,
    /// The stack holds no such connection any more.
    pub is_over: bool,
}

const MSS_DEFAULTS: [u16; 2] = [536, 1_220];
/// The stack makes no segments smaller than this for a peer that asks for it.
const MSS_MIN: u16 = 64;

/// Whether `a` lies to the right of `b`.
pub fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

impl Wire {
    pub fn new(ends: Ends) -> Wire {
        Wire {
            ends,
            syns: Vec::new(),
            gone: Vec::new(),
            early_seq: None,
            sent: Vec::new(),
            talk: None,
            answers: Vec::new(),
            is_called: false,
            has_asked_ecn: false,
            is_blurred: false,
            is_over_ipv6: false,
        }
    }

    /// A segment goes in.
    pub fn on_going(&mut self, segment: &Segment<'_>) {
        self.has_asked_ecn |= ecn::is_asking(segment);
        if segment.has(SYN) {
            let options = Options::read(segment.options);
            self.syns.push(Syn {
                seq: segment.seq,
                mss: options.mss.unwrap_or(MSS_DEFAULTS[usize::from(self.is_over_ipv6)]).max(MSS_MIN),
                shift: options.shift,
                has_timestamps: options.timestamps.is_some(),
                has_sack: options.has_sack_permitted,
                window: segment.window,
            });
        }
        let first = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        self.sent.push((first, first.wrapping_add(segment.payload.len() as u32)));
        let ack = segment.has(ACK).then_some(segment.ack);
        let gone = Gone { is_syn: segment.has(SYN), seq: segment.seq, end: segment.end(), ack, window: segment.window };
        self.gone.push(gone);
        if let Some(talk) = &mut self.talk {
            talk.note(&gone);
        }
    }

    /// The operation is over.
    pub fn end_operation(&mut self, is_held: bool) {
        if !self.talk.is_some_and(|talk| talk.is_calling) {
            self.gone.clear();
        }
        self.early_seq = None;
        if let Some(talk) = &mut self.talk {
            talk.was_held |= is_held;
            talk.is_over |= !is_held && (talk.was_held || talk.is_calling);
        }
    }

    /// A connection is opened, says a notice. Where the stack had kept nothing of it a cookie was brought back: finds
    /// out which. Returns the peer's initial sequence number, if it is known.
    pub fn on_opened(&mut self) -> Option<u32> {
        if self.is_blurred {
            return None;
        }
        let held = self.talk.filter(|talk| talk.was_held && !talk.is_over);
        if let Some(talk) = held {
            return Some(talk.irs).filter(|_| !talk.is_calling);
        }
        if self.is_answer_guessed() {
            // Of a SYN-ACK that was still to leave, and now never will.
            self.is_blurred = true;
            return None;
        }
        let brings = |talk: &&Talk| self.gone.iter().any(|gone| talk.is_brought_back_by(gone));
        let talk = self.answers.iter().rev().find(brings).copied();
        if let Some(mut talk) = talk {
            self.gone.iter().for_each(|gone| talk.note(gone));
            talk.was_held = true;
            self.talk = Some(talk);
        } else if self.is_called {
            // Somebody has guessed the number of a SYN that waits for ARP.
            self.is_blurred = true;
        }
        talk.map(|talk| talk.irs)
    }

    /// Whether the operation under way has a SYN and, behind it, an acknowledgment of what answers it.
    fn is_answer_guessed(&self) -> bool {
        let mut behind = self.gone.iter().skip_while(|gone| !gone.is_syn);
        behind.any(|gone| !gone.is_syn && gone.ack.is_some())
    }

    /// A segment comes out. Returns the offset of its payload or FIN in the stream.
    pub fn on_coming(&mut self, segment: &Segment<'_>, standing: Standing) -> Result<Option<u32>, &'static str> {
        ecn::look(segment, self.has_asked_ecn)?;
        if segment.has(RST) {
            return Ok(None);
        }
        let is_call = segment.has(SYN) && !segment.has(ACK);
        if !(segment.has(ACK) || is_call && self.is_called) {
            return Err("a segment comes out without ACK");
        }
        let is_known = is_call || self.syns.iter().any(|syn| syn.seq == segment.ack.wrapping_sub(1));
        if self.is_blurred && segment.has(SYN) && is_known && standing == Standing::NotOpen {
            // With a new connection everything is known again.
            (self.is_blurred, self.talk) = (false, None);
        }
        if self.is_blurred {
            self.talk.iter_mut().for_each(|talk| talk.follow(segment));
            return Ok(None);
        }
        if is_call {
            return self.on_call(segment, standing).map(|()| None);
        }
        if segment.has(SYN) {
            return self.on_coming_syn(segment, standing).map(|()| None);
        }
        if standing == Standing::NotOpen && self.is_early(segment) {
            self.early_seq = Some(segment.seq);
            return Ok(None);
        }
        match &mut self.talk {
            // A SYN, or what answered the peer's, may have been lost to ARP.
            None if self.is_called => Ok(None),
            None => Err("a segment comes out before any SYN"),
            Some(talk) if talk.is_over => Err("a segment comes out of a connection that is over"),
            Some(talk) if talk.is_calling => {
                // What followed the SYN in the same batch is acknowledged with it.
                let nearest = self.syns.iter().min_by_key(|syn| segment.ack.wrapping_sub(syn.seq.wrapping_add(1)));
                let first = nearest.map_or(0, |syn| syn.seq.wrapping_add(1));
                let syn = answered(&self.syns, first).ok_or("an acknowledgment of a SYN that was never sent")?;
                let mut answer = Talk::new(talk.iss, syn, (Some(talk.our_shift), talk.has_sack), talk.timestamps);
                answer.edge = segment.ack.wrapping_add(u32::from(segment.window) << answer.our_shift);
                self.gone.iter().for_each(|gone| answer.note(gone));
                *talk = answer;
                talk.on_coming(segment, &self.sent)
            }
            Some(talk) => talk.on_coming(segment, &self.sent),
        }
    }

    /// The stack's own SYN.
    fn on_call(&mut self, segment: &Segment<'_>, standing: Standing) -> Result<(), &'static str> {
        let is_again = self.talk.is_some_and(|talk| talk.is_calling && talk.iss == segment.seq);
        if standing != Standing::NotOpen || (!is_again && self.talk.is_some_and(|talk| talk.was_held && !talk.is_over))
        {
            return Err("a SYN comes out of a connection that has begun");
        }
        let options = Options::read(segment.options);
        let nobody = Syn { seq: 0, mss: MSS_MIN, shift: Some(0), has_timestamps: true, has_sack: true, window: 0 };
        let talk = Talk::new(segment.seq, nobody, (options.shift, options.has_sack_permitted), options.timestamps);
        self.talk = Some(Talk { is_calling: true, was_held: true, ..talk });
        Ok(())
    }

    /// An ACK of a half-open connection that leaves in the batch in which its SYN came, ahead of the SYN-ACK.
    fn is_early(&self, segment: &Segment<'_>) -> bool {
        let is_bare = segment.payload.is_empty() && !segment.has(FIN);
        is_bare && self.gone.iter().any(|gone| gone.is_syn && gone.seq.wrapping_add(1) == segment.ack)
    }

    fn on_coming_syn(&mut self, segment: &Segment<'_>, standing: Standing) -> Result<(), &'static str> {
        let irs = segment.ack.wrapping_sub(1);
        let is_same = |talk: Talk| talk.iss == segment.seq && talk.irs == irs && !talk.is_over && !talk.is_calling;
        if self.talk.is_some_and(is_same) {
            return Ok(());
        }
        if standing == Standing::Open {
            return Err("a second initial sequence number for a connection that is open");
        }
        if self.early_seq.take().is_some_and(|seq| seq != segment.seq.wrapping_add(1)) {
            return Err("an ACK has left with another sequence number than that behind the SYN");
        }
        let syn = answered(&self.syns, segment.ack).ok_or("a SYN comes out that answers none")?;
        let options = Options::read(segment.options);
        let mut talk = Talk::new(segment.seq, syn, (options.shift, options.has_sack_permitted), options.timestamps);
        talk.edge = segment.ack.wrapping_add(u32::from(segment.window));
        self.answers.push(talk);
        if standing == Standing::Opening {
            // A cookie, before another was brought back in the same batch.
            return Ok(());
        }
        self.gone.iter().for_each(|gone| talk.note(gone));
        self.talk = Some(talk);
        Ok(())
    }
}

impl Talk {
    /// Of the stack's SYN with this number, shift, wish for SACK and timestamps, and the peer's.
    fn new(iss: u32, syn: Syn, (our_shift, has_our_sack): (Option<u8>, bool), timestamps: Option<(u32, u32)>) -> Talk {
        let (next, first) = (iss.wrapping_add(1), syn.seq.wrapping_add(1));
        let shifts = syn.shift.zip(our_shift);
        Talk {
            irs: syn.seq,
            iss,
            snd_nxt: next,
            snd_una: iss,
            rcv_nxt: first,
            edge: first,
            peer_nxt: first,
            our_shift: shifts.map_or(0, |(_, ours)| ours),
            peer_shift: shifts.map_or(0, |(peer, _)| peer.min(SHIFT_MAX)),
            mss: syn.mss,
            has_sack: syn.has_sack && has_our_sack,
            peer_edge: next.wrapping_add(u32::from(syn.window)),
            fin_at: None,
            is_calling: false,
            timestamps: timestamps.filter(|_| syn.has_timestamps),
            was_held: false,
            is_over: false,
        }
    }

    fn is_brought_back_by(&self, gone: &Gone) -> bool {
        gone.ack == Some(self.iss.wrapping_add(1)) && gone.seq == self.irs.wrapping_add(1)
    }

    /// A segment goes in that the stack may take.
    fn note(&mut self, gone: &Gone) {
        if self.is_calling {
            return;
        }
        let unit = 1 << self.our_shift;
        let is_within = !is_after(gone.seq, self.edge.wrapping_add(unit));
        let (ahead, known) = (gone.end.wrapping_sub(self.rcv_nxt), self.peer_nxt.wrapping_sub(self.rcv_nxt));
        if is_within && ahead > known && ahead < 1 << 31 {
            self.peer_nxt = gone.end;
        }
        let Some(ack) = gone.ack.filter(|&ack| !is_after(self.iss, ack) && !is_after(ack, self.snd_nxt)) else {
            return;
        };
        if is_after(ack, self.snd_una) {
            self.snd_una = ack;
        }
        let peer_edge = ack.wrapping_add(u32::from(gone.window) << self.peer_shift);
        if is_after(peer_edge, self.peer_edge) {
            self.peer_edge = peer_edge;
        }
    }

    /// Believes a segment, so that the next ones can be aimed.
    fn follow(&mut self, segment: &Segment<'_>) {
        if segment.has(SYN) {
            (self.iss, self.snd_una) = (segment.seq, segment.seq);
            self.irs = segment.ack.wrapping_sub(1);
        }
        self.take_timestamp(segment);
        self.snd_nxt = segment.end();
        self.rcv_nxt = segment.ack;
        self.edge = segment.ack.wrapping_add(u32::from(segment.window) << self.our_shift);
    }

    fn take_timestamp(&mut self, segment: &Segment<'_>) {
        if let (Some(last), Some(next)) = (&mut self.timestamps, Options::read(segment.options).timestamps) {
            *last = next;
        }
    }

    fn on_coming(&mut self, segment: &Segment<'_>, sent: &[(u32, u32)]) -> Result<Option<u32>, &'static str> {
        self.take_timestamp(segment);
        sack::look(segment, self.has_sack, sent)?;
        ecn::look_again(segment, self.snd_nxt)?;
        if is_after(segment.ack, self.peer_nxt) {
            return Err("an acknowledgment of something that was never sent");
        }
        if is_after(self.rcv_nxt, segment.ack) {
            return Err("an acknowledgment that goes back");
        }
        self.rcv_nxt = segment.ack;
        let edge = segment.ack.wrapping_add(u32::from(segment.window) << self.our_shift);
        // The field is rounded down to its unit, the edge behind it is not (RFC 7323 §2.4).
        if is_after(self.edge, edge.wrapping_add((1 << self.our_shift) - 1)) {
            return Err("a window whose right edge has moved to the left");
        }
        if is_after(edge, self.edge) {
            self.edge = edge;
        }
        if segment.payload.is_empty() && !segment.has(FIN) {
            return Ok(None);
        }
        if segment.payload.len() + segment.options.len() > usize::from(self.mss) {
            return Err("a segment larger than the peer's MSS");
        }
        let end = segment.seq.wrapping_add(segment.payload.len() as u32);
        if !segment.payload.is_empty() && is_after(end, self.peer_edge) {
            return Err("payload beyond the window that the peer has opened");
        }
        if self.fin_at.is_some_and(|at| is_after(end, at) || (segment.has(FIN) && end != at)) {
            return Err("something beyond its FIN, or a FIN in another place");
        }
        if segment.has(FIN) {
            self.fin_at = Some(end);
        }
        if is_after(segment.end(), self.snd_nxt) {
            self.snd_nxt = segment.end();
        }
        if !is_after(segment.seq, self.iss) {
            return Err("payload from before its initial sequence number");
        }
        Ok(Some(segment.seq.wrapping_sub(self.iss).wrapping_sub(1)))
    }
}
