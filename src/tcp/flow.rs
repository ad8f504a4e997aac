//! The flow: all that an idle connection is, in one cache line.
//!
//! ```text
//!  0 remote_address      4 both ports           8 local index, generation  12 snd_nxt
//! 16 rcv_nxt            20 irs                 24 ts_recent                28 heard_s
//! 32 opened_s           36 snd_wnd, its max    40 rcv_edge, mss            44 next_hop, flags
//! 48 shifts, state, challenge, probes          52 active or path memory    56 the service's word
//! ```
//!
//! While nothing is in flight SND.UNA equals SND.NXT, so only SND.NXT is kept. What exists only while something is in
//! flight lives in an [`Active`](super::Active) block that the flow borrows.
//!
//! Invariant: plain old data, no padding, no pointer; 64 bytes. Everything in it may be copied to a file or a standby.

use bytemuck::{Pod, Zeroable};

use super::window::SHIFT_MAX;
use super::{PathMemory, SeqNum, Time};

/// The state of a connection (RFC 9293 §3.3.2). LISTEN is not a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::Display, strum::EnumCount, strum::EnumIter, strum::FromRepr)]
#[strum(serialize_all = "SCREAMING-KEBAB-CASE")]
#[repr(u8)]
pub enum State {
    /// No connection: the slot may be used.
    Free,
    /// A SYN was received and answered.
    SynReceived,
    /// Open.
    Established,
    /// Our FIN is sent, not acknowledged.
    #[strum(to_string = "FIN-WAIT-1")]
    FinWait1,
    /// Our FIN is acknowledged, the peer still open.
    #[strum(to_string = "FIN-WAIT-2")]
    FinWait2,
    /// The peer's FIN was received, we are still open.
    CloseWait,
    /// Both FINs were sent at the same time, ours is not acknowledged.
    Closing,
    /// The peer's FIN was received and ours is sent, not acknowledged.
    LastAck,
    /// Both FINs are acknowledged; old segments may still be on the way.
    TimeWait,
    /// We have sent a SYN and wait for the peer's.
    SynSent,
}

/// An idle connection, and the part of a busy one that outlives its business.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// The peer's IPv4 address as a number, or where the record of its IPv6 address is. Our own address tells which.
    pub remote_address: u32,
    /// The peer's port.
    pub remote_port: u16,
    /// Our port.
    pub local_port: u16,
    /// Which of our addresses (low 8 bits), and how often the slot was used before (high 24 bits).
    local_and_generation: u32,
    /// Next sequence number to send. With no active block also SND.UNA.
    pub snd_nxt: SeqNum,
    /// Next sequence number expected.
    pub rcv_nxt: SeqNum,
    /// The peer's initial sequence number.
    pub irs: SeqNum,
    /// TS.Recent, the peer's latest timestamp (RFC 7323 §4.3); zero where none were agreed on.
    pub ts_recent: u32,
    /// When an acceptable segment last came, in seconds; the start of TIME-WAIT and FIN-WAIT-2 in those states.
    pub heard_s: u32,
    /// When the SYN came, in seconds.
    pub opened_s: u32,
    /// The window that the peer last offered, unscaled.
    pub snd_wnd: u16,
    /// The largest window that the peer ever offered, unscaled.
    pub snd_wnd_max: u16,
    /// The right edge that we have promised: units of the window scale right of IRS, modulo 2^16. It is at RCV.NXT or
    /// less than 2^16 units right of it, so it is known to the byte.
    pub(super) rcv_edge: u16,
    /// Largest payload of a segment that we may send.
    pub mss: u16,
    /// Where frames for the peer go: index of a next hop.
    pub next_hop: u16,
    pub(super) flags: u16,
    shifts: u8,
    /// The state (low 4 bits) and the user timeout (high 4 bits).
    pub(super) state: u8,
    /// When a challenge ACK was last sent, in seconds (low 6 bits), and what is agreed on and owed of ECN (high 2).
    pub(super) challenge: u8,
    /// Unanswered keepalive probes (low 6 bits) and whether there are any (high 2 bits).
    pub(super) probes: u8,
    active_or_memory: u32,
    /// What the service keeps with the flow.
    pub word: [u32; 2],
}

const _: () = assert!(size_of::<Flow>() == 64, "an idle connection is one cache line");

impl Flow {
    const HAS_ACTIVE: u16 = 1 << 0;
    const CLOSE_QUEUED: u16 = 1 << 1;
    const PAUSED: u16 = 1 << 2;
    const HAS_ATTACHMENT: u16 = 1 << 3;
    const HAS_TIMESTAMPS: u16 = 1 << 4;
    const TAKES_SACK: u16 = 1 << 5;
    const HAS_WINDOW_SCALING: u16 = 1 << 6;
    const IS_ORPHANED: u16 = 1 << 7;
    pub(super) const HAS_NAGLE: u16 = 1 << 8;
    const IS_ACTIVE_OPEN: u16 = 1 << 9;
    /// The upper six bits of the flags are the DSCP.
    pub(super) const DSCP_SHIFT: u32 = 10;
    /// These bits of the challenge byte are a second.
    const CHALLENGE_BITS: u8 = 0x3f;
    /// These bits of the state byte are the state.
    pub(super) const STATE_BITS: u8 = 0x0f;

    /// A slot without a connection whose next connection gets this generation.
    pub fn free(generation: u32) -> Flow {
        let mut flow = Flow::zeroed();
        flow.local_and_generation = generation << 8;
        flow
    }

    /// The state.
    pub fn state(&self) -> State {
        State::from_repr(self.state & Flow::STATE_BITS)
            .expect("these bits are written by set_state only, and checked when a state is opened")
    }

    /// Whether the state and the shifts are ones that this version writes.
    pub fn is_valid(&self) -> bool {
        State::from_repr(self.state & Flow::STATE_BITS).is_some()
            && self.peer_shift() <= SHIFT_MAX
            && self.our_shift() <= SHIFT_MAX
    }

    /// Moves to another state.
    pub fn set_state(&mut self, state: State) {
        self.state = self.state & !Flow::STATE_BITS | state as u8;
    }

    /// Whether this is its state.
    #[inline]
    pub fn is_in(&self, state: State) -> bool {
        self.state & Flow::STATE_BITS == state as u8
    }

    /// Whether our SYN is still to be acknowledged.
    #[inline]
    pub fn is_half_open(&self) -> bool {
        self.is_in(State::SynSent) || self.is_in(State::SynReceived)
    }

    /// Whether our SYN is acknowledged and our FIN not sent.
    pub(super) fn is_open(&self) -> bool {
        self.is_in(State::Established) || self.is_in(State::CloseWait)
    }

    /// Whether this slot holds a connection.
    pub fn is_live(&self) -> bool {
        self.state & Flow::STATE_BITS != State::Free as u8
    }

    /// Which of our addresses the connection is on.
    pub fn local_index(&self) -> u8 {
        self.local_and_generation as u8
    }

    /// Sets it.
    pub fn set_local_index(&mut self, index: u8) {
        self.local_and_generation = self.local_and_generation & !0xff | u32::from(index);
    }

    /// How often the slot was used before; 24 bits.
    pub fn generation(&self) -> u32 {
        self.local_and_generation >> 8
    }

    /// Sets it.
    pub fn set_generation(&mut self, generation: u32) {
        self.local_and_generation = generation << 8 | u32::from(self.local_index());
    }

    /// Shift of the window field in the peer's segments.
    pub fn peer_shift(&self) -> u8 {
        self.shifts & 0x0f
    }

    /// Shift of the window field in our segments.
    pub fn our_shift(&self) -> u8 {
        self.shifts >> 4
    }

    /// Whether both SYNs had the window scale option.
    pub fn has_window_scaling(&self) -> bool {
        self.flags & Flow::HAS_WINDOW_SCALING != 0
    }

    /// Agrees on window scaling.
    pub fn begin_window_scaling(&mut self, peer: u8, ours: u8) {
        assert!(peer <= SHIFT_MAX && ours <= SHIFT_MAX, "RFC 7323 §2.3 limits the shift to 14");
        self.set_flag(Flow::HAS_WINDOW_SCALING, true);
        self.shifts = peer | ours << 4;
    }

    /// The peer knows no window scaling.
    pub fn end_window_scaling(&mut self) {
        self.set_flag(Flow::HAS_WINDOW_SCALING, false);
        self.shifts = 0;
    }

    /// Whether the application has closed and our FIN is still to be sent.
    pub fn is_close_queued(&self) -> bool {
        self.flags & Flow::CLOSE_QUEUED != 0
    }

    /// Sets that.
    pub fn set_close_queued(&mut self, is_queued: bool) {
        self.set_flag(Flow::CLOSE_QUEUED, is_queued);
    }

    /// Whether received bytes are kept from the service.
    pub fn is_paused(&self) -> bool {
        self.flags & Flow::PAUSED != 0
    }

    /// Sets that.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.set_flag(Flow::PAUSED, is_paused);
    }

    /// Whether the service has attached something to the flow.
    pub fn has_attachment(&self) -> bool {
        self.flags & Flow::HAS_ATTACHMENT != 0
    }

    /// Sets that.
    pub fn set_has_attachment(&mut self, has: bool) {
        self.set_flag(Flow::HAS_ATTACHMENT, has);
    }

    /// Whether the application has closed for good: what the peer still sends has no reader.
    pub fn is_orphaned(&self) -> bool {
        self.flags & Flow::IS_ORPHANED != 0
    }

    /// Sets that.
    pub fn set_orphaned(&mut self, is_orphaned: bool) {
        self.set_flag(Flow::IS_ORPHANED, is_orphaned);
    }

    /// Whether we have opened the connection (MUST-11).
    pub fn is_active_open(&self) -> bool {
        self.flags & Flow::IS_ACTIVE_OPEN != 0
    }

    /// Sets that.
    pub fn set_active_open(&mut self, is_active: bool) {
        self.set_flag(Flow::IS_ACTIVE_OPEN, is_active);
    }

    /// Whether both ends have agreed on timestamps (RFC 7323 §3.2).
    pub fn has_timestamps(&self) -> bool {
        self.flags & Flow::HAS_TIMESTAMPS != 0
    }

    /// The peer knows no timestamps.
    pub fn end_timestamps(&mut self) {
        self.set_flag(Flow::HAS_TIMESTAMPS, false);
        self.ts_recent = 0;
    }

    /// Agrees on timestamps; the peer's first one is this.
    pub fn begin_timestamps(&mut self, value: u32) {
        self.set_flag(Flow::HAS_TIMESTAMPS, true);
        self.ts_recent = value;
    }

    /// Whether the peer reads selective acknowledgments (RFC 2018 §2).
    pub fn takes_sack(&self) -> bool {
        self.flags & Flow::TAKES_SACK != 0
    }

    /// Sets that.
    pub fn set_takes_sack(&mut self, takes: bool) {
        self.set_flag(Flow::TAKES_SACK, takes);
    }

    /// The index of the active block, while there is one.
    pub fn active(&self) -> Option<u32> {
        (self.flags & Flow::HAS_ACTIVE != 0).then_some(self.active_or_memory)
    }

    /// Borrows an active block; what is remembered of the path must have been read before.
    pub fn set_active(&mut self, index: u32) {
        self.set_flag(Flow::HAS_ACTIVE, true);
        self.active_or_memory = index;
    }

    /// What is remembered of the path; nothing while there is an active block, which knows better.
    pub fn path_memory(&self) -> PathMemory {
        match self.active() {
            Some(_) => PathMemory::default(),
            None => PathMemory::unpack(self.active_or_memory),
        }
    }

    /// Gives the active block back and remembers this of the path.
    pub fn set_path_memory(&mut self, memory: PathMemory) {
        self.set_flag(Flow::HAS_ACTIVE, false);
        self.active_or_memory = memory.pack();
    }

    /// Whether a challenge ACK may be sent now; if so it counts as sent. At most one a second and connection
    /// (RFC 5961 §7, but never by a counter that connections share).
    pub fn may_challenge(&mut self, now: Time) -> bool {
        let second = now.seconds() as u8 & Flow::CHALLENGE_BITS;
        let may = second != self.challenge & Flow::CHALLENGE_BITS;
        self.challenge = self.challenge & !Flow::CHALLENGE_BITS | second;
        may
    }

    /// Lets the next challenge ACK pass whenever it comes.
    pub fn allow_challenge(&mut self, now: Time) {
        let second = (now.seconds() as u8).wrapping_sub(1) & Flow::CHALLENGE_BITS;
        self.challenge = self.challenge & !Flow::CHALLENGE_BITS | second;
    }

    /// Whether the peer has sent its FIN.
    pub fn has_peer_fin(&self) -> bool {
        match self.state() {
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait => true,
            State::Free
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2 => false,
        }
    }

    /// Whether our FIN was sent.
    pub fn has_our_fin(&self) -> bool {
        match self.state() {
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck | State::TimeWait => true,
            State::Free | State::SynSent | State::SynReceived | State::Established | State::CloseWait => false,
        }
    }

    pub(super) fn set_flag(&mut self, flag: u16, is_set: bool) {
        if is_set {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_passes_once_a_second() {
        let mut flow = Flow::free(0);
        let now = Time::from_ms(300_000);
        flow.allow_challenge(now);
        assert!(flow.may_challenge(now));
        assert!(!flow.may_challenge(now.plus_ms(400)));
        assert!(flow.may_challenge(now.plus_ms(1_000)));
    }

    #[test]
    fn generation_and_local_index_share_a_word_without_touching() {
        let mut flow = Flow::free(0xff_ffff);
        flow.set_local_index(7);
        assert_eq!((flow.generation(), flow.local_index()), (0xff_ffff, 7));
    }
}
