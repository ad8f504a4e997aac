//! Wire: what is known of each connection from its frames, against what may be sent.
//!
//! Held for what comes out: acknowledgments never go back and name nothing that was not sent; the right edge never
//! moves to the left by a unit of the window or more; payload fits the peer's MSS and window; FIN is the end.
//!
//! What goes in is noted generously: a segment counts as taken wherever the stack may have taken it.

use super::frame::{ACK, Ends, FIN, RST, SYN, Segment, handshake_options};

/// A SYN that went in.
#[derive(Clone, Copy, Debug)]
struct Syn {
    seq: u32,
    mss: u16,
    shift: Option<u8>,
    window: u16,
}

/// What of a segment that went in counts.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    is_syn: bool,
    seq: u32,
    end: u32,
    ack: Option<u32>,
    window: u16,
}

/// One tuple and what was said on it.
#[derive(Clone, Debug)]
pub struct Wire {
    pub ends: Ends,
    syns: Vec<Syn>,
    /// Segments of the operation under way.
    gone: Vec<Gone>,
    /// The number of an ACK that has left ahead of its SYN-ACK.
    early_seq: Option<u32>,
    pub talk: Option<Talk>,
    /// What a process that died had sent never arrived.
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
    mss: u16,
    peer_edge: u32,
    fin_at: Option<u32>,
    /// The stack holds no such connection any more.
    pub is_over: bool,
}

const MSS_DEFAULT: u16 = 536;
/// The stack makes no segments smaller than this for a peer that asks for it.
const MSS_MIN: u16 = 64;
const SHIFT_MAX: u8 = 14;

/// Whether `a` lies to the right of `b`.
pub fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

impl Wire {
    pub fn new(ends: Ends) -> Wire {
        Wire { ends, syns: Vec::new(), gone: Vec::new(), early_seq: None, talk: None, is_blurred: false }
    }

    /// A segment goes in.
    pub fn on_going(&mut self, segment: &Segment<'_>) {
        if segment.has(SYN) {
            let (mss, shift) = handshake_options(segment.options);
            let mss = mss.unwrap_or(MSS_DEFAULT).max(MSS_MIN);
            self.syns.push(Syn { seq: segment.seq, mss, shift, window: segment.window });
        }
        let ack = segment.has(ACK).then_some(segment.ack);
        let gone = Gone { is_syn: segment.has(SYN), seq: segment.seq, end: segment.end(), ack, window: segment.window };
        self.gone.push(gone);
        if let Some(talk) = &mut self.talk {
            talk.note(&gone);
        }
    }

    /// The operation is over.
    pub fn end_operation(&mut self, is_held: bool) {
        self.gone.clear();
        self.early_seq = None;
        if let (false, Some(talk)) = (is_held, &mut self.talk) {
            talk.is_over = true;
        }
    }

    /// A segment comes out. `is_open`: the stack holds an open connection here. Returns the offset of its payload or
    /// FIN in the stream.
    pub fn on_coming(&mut self, segment: &Segment<'_>, is_open: bool) -> Result<Option<u32>, &'static str> {
        if segment.has(RST) {
            return Ok(None);
        }
        if !segment.has(ACK) {
            return Err("a segment comes out without ACK");
        }
        let is_known = self.syns.iter().any(|syn| syn.seq == segment.ack.wrapping_sub(1));
        if self.is_blurred && segment.has(SYN) && is_known && !is_open {
            // With a new connection everything is known again.
            (self.is_blurred, self.talk) = (false, None);
        }
        if self.is_blurred {
            self.talk.iter_mut().for_each(|talk| talk.follow(segment));
            return Ok(None);
        }
        if segment.has(SYN) {
            return self.on_coming_syn(segment, is_open).map(|()| None);
        }
        if !is_open && self.is_early(segment) {
            self.early_seq = Some(segment.seq);
            return Ok(None);
        }
        match &mut self.talk {
            None => Err("a segment comes out before any SYN"),
            Some(talk) if talk.is_over => Err("a segment comes out of a connection that is over"),
            Some(talk) => talk.on_coming(segment),
        }
    }

    /// An ACK of a half-open connection that leaves in the batch in which its SYN came, ahead of the SYN-ACK.
    fn is_early(&self, segment: &Segment<'_>) -> bool {
        let is_bare = segment.payload.is_empty() && !segment.has(FIN);
        is_bare && self.gone.iter().any(|gone| gone.is_syn && gone.seq.wrapping_add(1) == segment.ack)
    }

    fn on_coming_syn(&mut self, segment: &Segment<'_>, is_open: bool) -> Result<(), &'static str> {
        let irs = segment.ack.wrapping_sub(1);
        if self.talk.is_some_and(|talk| talk.iss == segment.seq && talk.irs == irs && !talk.is_over) {
            return Ok(());
        }
        if is_open {
            return Err("a second initial sequence number for a connection that is open");
        }
        let same = self.syns.iter().filter(|syn| syn.seq == irs);
        let answered = same.copied().reduce(|one, other| Syn {
            mss: one.mss.max(other.mss),
            shift: one.shift.max(other.shift),
            window: one.window.max(other.window),
            ..one
        });
        if self.early_seq.take().is_some_and(|seq| seq != segment.seq.wrapping_add(1)) {
            return Err("an ACK has left with another sequence number than that behind the SYN");
        }
        let syn = answered.ok_or("a SYN comes out that answers none")?;
        let our_shift = handshake_options(segment.options).1;
        let is_scaled = syn.shift.is_some() && our_shift.is_some();
        let peer_shift = if is_scaled { syn.shift.unwrap_or(0).min(SHIFT_MAX) } else { 0 };
        let next = segment.seq.wrapping_add(1);
        let mut talk = Talk {
            irs,
            iss: segment.seq,
            snd_nxt: next,
            snd_una: segment.seq,
            rcv_nxt: segment.ack,
            edge: segment.ack.wrapping_add(u32::from(segment.window)),
            peer_nxt: segment.ack,
            our_shift: if is_scaled { our_shift.unwrap_or(0) } else { 0 },
            peer_shift,
            mss: syn.mss,
            peer_edge: next.wrapping_add(u32::from(syn.window)),
            fin_at: None,
            is_over: false,
        };
        self.gone.iter().for_each(|gone| talk.note(gone));
        self.talk = Some(talk);
        Ok(())
    }
}

impl Talk {
    /// A segment goes in that the stack may take.
    fn note(&mut self, gone: &Gone) {
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
        self.snd_nxt = segment.end();
        self.rcv_nxt = segment.ack;
        self.edge = segment.ack.wrapping_add(u32::from(segment.window) << self.our_shift);
    }

    fn on_coming(&mut self, segment: &Segment<'_>) -> Result<Option<u32>, &'static str> {
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
