//! Settings: what an application may ask for one connection, beside the configuration.
//!
//! They live in spare bits of the flow, so that an idle connection stays as small as it is; a bit pattern of zero means
//! that the configuration holds.
//!
//! ```text
//! flags    15..10 DSCP            8 Nagle's algorithm
//! state     7..4  user timeout    3..0 the state
//! probes    7..6  keepalive       5..0 unanswered probes
//! challenge 7..6  ECN             5..0 when a challenge ACK was last sent
//! ```

use super::Flow;

/// Whether a silent peer of one connection is probed (RFC 9293 §3.8.4, MUST-24).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keepalive {
    /// As the configuration says.
    Default,
    /// It is.
    On,
    /// It is not.
    Off,
}

/// How long what one connection sends may stay unacknowledged (R2 of RFC 9293 §3.8.3, MUST-21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserTimeout {
    /// As long as the configuration says.
    Default,
    /// So many seconds, rounded up to 15 s times a power of two, at most 34 hours.
    Seconds(u32),
    /// For ever.
    Never,
}

/// Unanswered probes that a flow can count.
pub const PROBES_MAX: u8 = 0x3f;

/// The smallest user timeout that one connection can have.
const USER_TIMEOUT_UNIT_S: u32 = 15;
const USER_TIMEOUT_SHIFT: u32 = 4;
/// As the upper bits of the state byte; the numbers below it, from 1 on, count doublings of the unit.
const USER_TIMEOUT_NEVER: u8 = 15;
const KEEPALIVE_SHIFT: u32 = 6;

impl Flow {
    /// Whether a small segment waits while something is in flight (RFC 9293 §3.7.4).
    pub fn has_nagle(&self) -> bool {
        self.flags & Flow::HAS_NAGLE != 0
    }

    /// Sets that (MUST-17).
    pub fn set_nagle(&mut self, has: bool) {
        self.set_flag(Flow::HAS_NAGLE, has);
    }

    /// The differentiated services codepoint of what we send (RFC 2474 §3).
    pub fn dscp(&self) -> u8 {
        (self.flags >> Flow::DSCP_SHIFT) as u8
    }

    /// Sets it, six bits (MUST-48).
    pub fn set_dscp(&mut self, dscp: u8) {
        assert!(dscp < 64, "a codepoint has six bits");
        self.flags = self.flags & ((1 << Flow::DSCP_SHIFT) - 1) | u16::from(dscp) << Flow::DSCP_SHIFT;
    }

    /// Whether a silent peer is probed.
    pub fn keepalive(&self) -> Keepalive {
        match self.probes >> KEEPALIVE_SHIFT {
            1 => Keepalive::On,
            2 => Keepalive::Off,
            _ => Keepalive::Default,
        }
    }

    /// Sets that (MUST-24).
    pub fn set_keepalive(&mut self, keepalive: Keepalive) {
        let bits = match keepalive {
            Keepalive::Default => 0,
            Keepalive::On => 1,
            Keepalive::Off => 2,
        };
        self.probes = self.unanswered_probes() | bits << KEEPALIVE_SHIFT;
    }

    /// Keepalive probes that the peer has not answered.
    pub fn unanswered_probes(&self) -> u8 {
        self.probes & PROBES_MAX
    }

    /// One more is sent.
    pub(super) fn count_probe(&mut self) {
        assert!(self.unanswered_probes() < PROBES_MAX, "a configuration asks for no more probes than can be counted");
        self.probes += 1;
    }

    /// The peer was heard.
    pub(super) fn forget_probes(&mut self) {
        self.probes &= !PROBES_MAX;
    }

    /// After how many seconds without an acknowledgment the connection is given up, where the configuration says
    /// `default_s`; `u32::MAX` for never. One that nobody has any more is given up no later than the others.
    pub fn user_timeout_s(&self, default_s: u32) -> u32 {
        let asked_s = match self.state >> USER_TIMEOUT_SHIFT {
            0 => default_s,
            USER_TIMEOUT_NEVER => u32::MAX,
            doublings => USER_TIMEOUT_UNIT_S << (doublings - 1),
        };
        if self.is_orphaned() { asked_s.min(default_s) } else { asked_s }
    }

    /// Sets that (MUST-21).
    pub fn set_user_timeout(&mut self, timeout: UserTimeout) {
        let bits = match timeout {
            UserTimeout::Default => 0,
            UserTimeout::Never => USER_TIMEOUT_NEVER,
            UserTimeout::Seconds(seconds) => {
                let enough = (1..USER_TIMEOUT_NEVER).find(|bits| USER_TIMEOUT_UNIT_S << (bits - 1) >= seconds);
                enough.unwrap_or(USER_TIMEOUT_NEVER - 1)
            }
        };
        self.state = self.state & Flow::STATE_BITS | bits << USER_TIMEOUT_SHIFT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::State;

    #[test]
    fn a_user_timeout_is_rounded_up() {
        let mut flow = Flow::free(0);
        flow.set_state(State::LastAck);
        let mut stored = |timeout| {
            flow.set_user_timeout(timeout);
            assert_eq!(flow.state(), State::LastAck);
            flow.user_timeout_s(900)
        };
        assert_eq!(stored(UserTimeout::Seconds(0)), 15);
        assert_eq!(stored(UserTimeout::Seconds(15)), 15);
        assert_eq!(stored(UserTimeout::Seconds(16)), 30);
        assert_eq!(stored(UserTimeout::Seconds(100_000)), 122_880);
        assert_eq!(stored(UserTimeout::Seconds(u32::MAX)), 122_880);
        assert_eq!(stored(UserTimeout::Never), u32::MAX);
        assert_eq!(stored(UserTimeout::Default), 900);
    }

    #[test]
    fn nobody_waits_for_ever_for_a_connection_that_nobody_has() {
        let mut flow = Flow::free(0);
        flow.set_user_timeout(UserTimeout::Never);
        flow.set_orphaned(true);
        assert_eq!(flow.user_timeout_s(900), 900);
        flow.set_user_timeout(UserTimeout::Seconds(30));
        assert_eq!(flow.user_timeout_s(900), 30);
    }

    #[test]
    fn settings_survive_what_else_is_in_their_bytes() {
        let mut flow = Flow::free(0);
        flow.set_user_timeout(UserTimeout::Never);
        flow.set_keepalive(Keepalive::Off);
        flow.set_dscp(63);
        flow.set_nagle(true);
        for state in [State::SynReceived, State::Established, State::SynSent] {
            flow.set_state(state);
            flow.count_probe();
            assert_eq!((flow.state(), flow.keepalive()), (state, Keepalive::Off));
            assert_eq!((flow.user_timeout_s(1), flow.dscp(), flow.has_nagle()), (u32::MAX, 63, true));
        }
        assert_eq!(flow.unanswered_probes(), 3);
        flow.forget_probes();
        assert_eq!((flow.unanswered_probes(), flow.keepalive()), (0, Keepalive::Off));
        flow.set_dscp(0);
        assert!(flow.has_nagle() && flow.is_live() && flow.is_valid());
        flow.set_state(State::Free);
        assert!(!flow.is_live());
    }
}
