//! Table of the differences between Linux and holdline, each with the reason why ours is right.
//!
//! An entry's name says what Linux does.

use super::conversation::Step;
use super::crafted::{ACK, CWR, Damage, ECE, FIN, RST, SYN, Segment};
use super::differences::{Entry, Kernels};

/// The table.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "In SYN-RECEIVED the acknowledgment is looked at first, and a wrong one is answered by a reset",
        reason: "RFC 9293 §3.10.7.4 has the sequence number first and SYN fourth: both are answered by an ACK",
        kernels: Kernels::All,
        is_it: |it| {
            let is_other = it.has(ACK) && it.place.ack_nxt != 0 && (!it.place.is_acceptable() || it.has(SYN));
            it.is_in(&["SYN-RECEIVED"])
                && is_other
                && it.kernel.is_only(RST)
                && it.ours.is_only(ACK)
                && !it.is_changed()
        },
    },
    Entry {
        name: "A SYN in the window ends a half-open connection, with a reset",
        reason: "RFC 5961 §4.2: a peer that has begun anew answers our ACK with an exact reset, which frees the \
                 place; a forger does not. RFC 9293 keeps the old way for SYN-RECEIVED, where it lets one blind SYN \
                 end a handshake",
        kernels: Kernels::All,
        is_it: |it| {
            let is_taken = it.is_in(&["SYN-RECEIVED"]) && it.has(SYN) && !it.has(RST) && it.place.is_acceptable();
            is_taken && it.kernel.state == "CLOSED" && it.ours.state == it.state && it.ours.is_only(ACK)
        },
    },
    Entry {
        name: "A reset on the right edge is answered",
        reason: "RFC 9293 §3.10.7.4: SEG.SEQ = RCV.NXT + RCV.WND is outside the window, and a reset from outside is \
                 dropped silently (RFC 5961 §3.2, case 3)",
        kernels: Kernels::All,
        is_it: |it| {
            let is_on_edge = it.has(RST) && it.place.seq == it.place.window && it.place.window > 0;
            is_on_edge && it.kernel.is_only(ACK) && it.ours.is_silent() && !it.is_changed()
        },
    },
    Entry {
        name: "A reset that ends at RCV.NXT is answered",
        reason: "Its last byte lies left of the window: RFC 5961 §3.2, case 3, drops it silently",
        kernels: Kernels::All,
        is_it: |it| {
            let is_left = it.has(RST) && it.place.seq < 0 && it.place.end() == 0;
            is_left && it.kernel.is_only(ACK) && it.ours.is_silent() && !it.is_changed()
        },
    },
    Entry {
        name: "A reset one left of RCV.NXT ends a connection whose peer has closed",
        reason: "Linux bends RFC 5961 §3.2 for clients that forget their FIN's number; a second number that resets \
                 is half the work for a forger. Our ACK, or our next segment, gets such a client's exact reset",
        kernels: Kernels::All,
        is_it: |it| {
            let is_left = it.has(RST) && it.place.seq == -1 && it.is_in(AFTER_FIN);
            is_left && it.kernel.is_silent() && it.kernel.state == "CLOSED" && it.ours.state == it.state
        },
    },
    Entry {
        name: "In SYN-RECEIVED any reset in the window ends the connection",
        reason: "RFC 5961 §3.2: one that is not exact is answered by an ACK. Newer kernels do so, too",
        kernels: Kernels::Some,
        is_it: |it| {
            let is_near = it.is_in(&["SYN-RECEIVED"]) && it.has(RST) && it.place.seq != 0 && it.place.touches_window();
            is_near && it.kernel.is_silent() && it.kernel.state == "CLOSED" && it.ours.state == it.state
        },
    },
    Entry {
        name: "With a closed window an exact reset that carries data is ignored",
        reason: "RFC 9293 §3.4, MUST-66: resets are processed with a window of zero; SHLD-2: a reset may carry data",
        kernels: Kernels::Some,
        is_it: |it| {
            let is_exact = it.has(RST) && it.place.seq == 0 && it.place.window == 0;
            is_exact && it.kernel.is_silent() && it.kernel.state == it.state && it.ours.state == "CLOSED"
        },
    },
    Entry {
        name: "An acknowledgment of bytes that were never sent, older than SND.UNA, is rejected",
        reason: "RFC 5961 §5 takes all of SND.UNA - MAX.SND.WND; newer kernels only what was sent since the \
                 handshake. The 64 bytes of a flow have no place for the number of the first byte; such an ACK moves \
                 nothing",
        kernels: Kernels::Some,
        is_it: |it| {
            let is_ghost = it.has(ACK) && it.place.ack_una < 0 && it.place.end() >= 0;
            is_ghost && it.kernel.is_only(ACK) && it.kernel.state == it.state && it.ours != it.kernel
        },
    },
    Entry {
        name: "Data with a far too old acknowledgment is taken, on the kernel's fast path only",
        reason: "RFC 5961 §5: it is discarded, and answered by an ACK",
        kernels: Kernels::Some,
        is_it: |it| {
            let is_old = it.has(ACK) && it.place.ack_una < 0 && it.has_payload();
            is_old && it.ours.is_only(ACK) && it.ours.state == it.state
        },
    },
    Entry {
        name: "A segment without ACK is dropped before its sequence number is looked at",
        reason: "RFC 9293 §3.10.7.4: outside the window it is answered by an ACK, the ACK bit is looked at fifth; \
                 the same for an old timestamp, which RFC 7323 §5.3 has before all",
        kernels: Kernels::All,
        is_it: |it| {
            let is_plain = it.segment().is_some_and(|segment| segment.control & (ACK | RST | SYN) == 0);
            is_plain && it.kernel.is_silent() && it.ours.is_only(ACK) && !it.is_changed()
        },
    },
    Entry {
        name: "What only touches the window, from either side, still acknowledges our FIN",
        reason: "RFC 9293 §3.10.7.4: no byte of it lies in the window, so it is answered and dropped; the answer \
                 gets the peer's present acknowledgment",
        kernels: Kernels::All,
        is_it: |it| {
            let touches = it.place.end() == 0 || it.place.seq == it.place.window;
            let is_outside = touches && !it.place.is_acceptable() && it.has(ACK) && it.place.ack_nxt == 0;
            is_outside && it.kernel.state != it.state && it.ours.is_only(ACK) && it.ours.state == it.state
        },
    },
    Entry {
        name: "What begins on the right edge is not answered after the peer's FIN",
        reason: "RFC 9293 §3.10.7.4: no byte of it lies in the window, so it is answered by an ACK",
        kernels: Kernels::All,
        is_it: |it| {
            let is_outside = it.is_in(AFTER_FIN) && it.place.length > 0 && it.place.seq == it.place.window;
            is_outside && it.kernel.is_silent() && it.ours.is_only(ACK) && !it.is_changed()
        },
    },
    Entry {
        name: "What reaches over the right edge is dropped whole, its acknowledgment too",
        reason: "RFC 9293 §3.10.7.4: a part lies in the window, so the segment is acceptable; its acknowledgment is \
                 taken, and of its data what fits. Older kernels do so, too",
        kernels: Kernels::Some,
        is_it: |it| {
            let is_over = it.place.seq < it.place.window && it.place.end() > it.place.window && it.place.seq >= 0;
            let is_dropped = it.kernel.is_only(ACK) || it.has(RST) && it.kernel.is_silent();
            is_over && is_dropped && it.kernel.state == it.state && it.ours != it.kernel
        },
    },
    Entry {
        name: "Data that begins left of the peer's FIN and ends right of it is answered by a reset",
        reason: "RFC 9293 §3.10.7.4, seventh: after a FIN segment text is ignored. A forged one must not end a \
                 connection",
        kernels: Kernels::All,
        is_it: |it| {
            let is_beyond = it.is_in(AFTER_FIN) && it.has_payload() && it.place.seq < 0 && it.place.end() > 0;
            is_beyond && it.kernel.is_only(RST) && it.kernel.state == "CLOSED" && !it.ours.is_only(RST)
        },
    },
    Entry {
        name: "A second FIN, one right of the first, is acknowledged",
        reason: "RFC 9293 §3.10.7.4, eighth: in CLOSE-WAIT, CLOSING and LAST-ACK a FIN changes nothing",
        kernels: Kernels::All,
        is_it: |it| {
            let is_second = it.is_in(AFTER_FIN) && it.has(FIN) && it.place.end() == 1;
            is_second && it.kernel.is_only(ACK) && it.ours != it.kernel && it.ours.state == it.state
        },
    },
    Entry {
        name: "In TIME-WAIT the acknowledgment is not looked at",
        reason: "RFC 5961 §5: one that is too old, or of what was never sent, is answered by an ACK",
        kernels: Kernels::All,
        is_it: |it| {
            let is_wrong = it.has(ACK) && (it.place.ack_una < 0 || it.place.ack_nxt > 0) && it.place.seq == 0;
            is_wrong && it.kernel.is_silent() && it.ours.is_only(ACK) && it.both_are_in("TIME-WAIT")
        },
    },
    Entry {
        name: "In TIME-WAIT whatever is not exactly at RCV.NXT is acknowledged",
        reason: "RFC 9293 §3.10.7.4, fifth: without ACK it is dropped; an ACK in the window asks for nothing, and \
                 answering it invites an endless exchange",
        kernels: Kernels::All,
        is_it: |it| {
            let asks_nothing = !it.has(ACK) || it.place.length == 0;
            let is_it = asks_nothing && it.place.touches_window() && it.kernel.is_only(ACK);
            is_it && it.ours.is_silent() && it.both_are_in("TIME-WAIT")
        },
    },
    Entry {
        name: "In TIME-WAIT a SYN with FIN ends the connection and opens none",
        reason: "RFC 1337 §3: nothing that opens no connection may cut TIME-WAIT short",
        kernels: Kernels::All,
        is_it: |it| {
            let is_both = it.is_in(&["TIME-WAIT"]) && it.has(SYN | FIN);
            is_both && it.kernel.is_silent() && it.kernel.state == "CLOSED" && it.ours.state == it.state
        },
    },
    Entry {
        name: "A segment without timestamps is taken where both ends have agreed on them",
        reason: "RFC 7323 §3.2: it should be dropped silently, as it is not the peer's",
        kernels: Kernels::All,
        is_it: |it| {
            let lacks_stamp = it.segment().is_some_and(|segment| segment.stamp.is_none());
            it.has_stamps() && lacks_stamp && it.ours.is_silent() && it.ours.state == it.state
        },
    },
    Entry {
        name: "In SYN-RECEIVED a reset with an old timestamp is dropped",
        reason: "RFC 7323 §5.3: resets are exempt",
        kernels: Kernels::All,
        is_it: |it| {
            let is_old = it.segment().and_then(|segment| segment.stamp).is_some_and(|stamp| stamp < 0);
            it.is_in(&["SYN-RECEIVED"]) && is_old && it.has(RST) && it.kernel.is_silent() && it.kernel.state == it.state
        },
    },
    Entry {
        name: "The SYN again, with an old timestamp, is answered by an ACK",
        reason: "The SYN-ACK says all that the ACK would, and helps where it was lost",
        kernels: Kernels::All,
        is_it: |it| {
            let is_again = it.is_in(&["SYN-RECEIVED"]) && it.has(SYN) && it.place.seq == -1;
            is_again && it.kernel.is_only(ACK) && it.ours.is_only(SYN | ACK) && !it.is_changed()
        },
    },
    Entry {
        name: "A pure ACK with an old timestamp is not answered",
        reason: "RFC 7323 §5.3, R1: it is answered by an ACK, at most one a second",
        kernels: Kernels::Some,
        is_it: |it| {
            let is_old = it.segment().and_then(|segment| segment.stamp).is_some_and(|stamp| stamp < 0);
            let is_it = is_old && it.place.length == 0 && it.place.seq <= 0 && it.kernel.is_silent();
            is_it && it.ours.is_only(ACK) && !it.is_changed()
        },
    },
    Entry {
        name: "An ACK that echoes the timestamp of another segment than the SYN-ACK completes no handshake",
        reason: "RFC 7323 §4.3: a peer echoes the latest timestamp, which may be that of an ACK of ours",
        kernels: Kernels::Some,
        is_it: |it| {
            let is_waiting = it.is_in(&["SYN-RECEIVED"]) && it.has_stamps() && it.place.touches_window();
            let is_rejected = it.kernel.is_only(ACK) || it.has(RST) && it.kernel.is_silent();
            is_waiting && it.at > 1 && is_rejected && it.kernel.state == it.state
        },
    },
    Entry {
        name: "A source address in 0.0.0.0/8 is a peer like others",
        reason: "RFC 1122 §3.2.1.3: such an address is only that of a host which does not know its own yet",
        kernels: Kernels::All,
        is_it: |it| {
            let is_nobody = it.is_damaged(|damage| matches!(damage, Damage::From(from) if from.octets()[0] == 0));
            is_nobody && it.ours.is_silent() && !it.is_changed()
        },
    },
    Entry {
        name: "A window that becomes smaller, with nothing else that is new, is not believed",
        reason: "RFC 9293 §3.10.7.4, fifth: a segment with the latest sequence number and acknowledgment says the \
                 latest window, smaller or not",
        kernels: Kernels::All,
        is_it: |it| {
            let was_small = it.segments_before().any(|segment| segment.window < 300);
            was_small && it.segment().is_none() && it.ours.is_silent() && !it.kernel.is_silent()
        },
    },
    Entry {
        name: "A close behind data that waits for the window changes the state at once",
        reason: "The state is what was said on the wire: with our FIN unsent, a FIN of the peer's is the first, and \
                 the peer keeps TIME-WAIT. RFC 9293 §3.10.4 has it so in CLOSE-WAIT, in ESTABLISHED the other way",
        kernels: Kernels::All,
        is_it: |it| {
            let is_close =
                matches!(it.step(), Step::Close | Step::CloseBoth) && it.kernel.is_silent() && it.ours.is_silent();
            is_close && it.kernel.state != it.state && it.ours.state == it.state
        },
    },
    Entry {
        name: "What lies right of a gap and opens the window is answered by data only",
        reason: "RFC 5681 §2 and §4.2: the duplicate acknowledgment leaves at once, and one with data would not \
                 count",
        kernels: Kernels::All,
        is_it: |it| {
            let is_ahead = it.place.seq > 0 && it.place.length > 0 && it.place.is_acceptable();
            let is_more = it.ours.answers.first().is_some_and(|first| first.is_bare(ACK));
            is_ahead && is_more && it.ours.answers[1..] == it.kernel.answers && !it.kernel.is_silent()
        },
    },
    Entry {
        name: "With our FIN not acknowledged, data that nobody reads, or a FIN right of a gap, is answered by a reset",
        reason: "The reset would take with it what was queued before the close. RFC 9293 §3.6.1, SHLD-3, is followed \
                 from FIN-WAIT-2 on, when the peer has it all",
        kernels: Kernels::All,
        is_it: |it| {
            let is_for_nobody = it.is_in(&["FIN-WAIT-1"]) && it.is_orphaned() && it.place.length > 0;
            is_for_nobody && it.kernel.is_only(RST) && it.kernel.state == "CLOSED" && it.ours.is_only(ACK)
        },
    },
    Entry {
        name: "The reset for data that nobody reads has the number that the data acknowledged",
        reason: "RFC 9293 §3.10.5: a reset of a connection has SND.NXT, which the peer takes whatever it has \
                 acknowledged",
        kernels: Kernels::All,
        is_it: |it| {
            let are_resets = it.kernel.is_only(RST) && it.ours.is_only(RST) && it.both_are_in("CLOSED");
            are_resets && it.is_orphaned() && it.has_payload()
        },
    },
    Entry {
        name: "FIN-WAIT-2 that nobody reads is a bare record: a SYN, a FIN or a reset in the window ends it, and so do \
               wrong acknowledgments",
        reason: "RFC 5961 and RFC 9293 §3.10.7.4 hold in FIN-WAIT-2, whoever reads; nobody off the path shall end it",
        kernels: Kernels::All,
        is_it: |it| {
            let is_bare = it.is_orphaned() && (it.is_in(&["FIN-WAIT-2"]) || it.ours.state == "FIN-WAIT-2");
            is_bare && it.ours.state == "FIN-WAIT-2" && (it.ours.is_silent() || it.ours.is_only(ACK))
        },
    },
    Entry {
        name: "A SYN that comes again without asking for ECN is answered as the first, and ECN is spoken",
        reason: "RFC 3168 §6.1.1: who has received a SYN that is not for ECN should not set ECT. Such a peer has given \
                 ECN up, and has sent a SYN that is not for it itself",
        kernels: Kernels::All,
        is_it: |it| {
            let is_plain = |segment: &Segment| segment.has(SYN) && segment.damage.is_empty();
            let was_plain = it.segment().is_some_and(is_plain) || it.segments_before().any(is_plain);
            was_plain && it.kernel != it.ours && it.kernel.without(ECE | CWR) == it.ours
        },
    },
    Entry {
        name: "A packet of an unknown protocol is answered by ICMP",
        reason: "RFC 1122 §3.2.2.1 says SHOULD; holdline answers nobody whom it does not serve, as who asks is not \
                 known",
        kernels: Kernels::All,
        is_it: |it| it.is_damaged(|damage| matches!(damage, Damage::Protocol(_))) && it.is_told_by_icmp(),
    },
    Entry {
        name: "IPv4 options of an impossible length are answered by ICMP",
        reason: "RFC 1122 §3.2.2.5 says SHOULD; as above. Both drop the packet",
        kernels: Kernels::All,
        is_it: |it| {
            let has_options = it.is_damaged(|damage| matches!(damage, Damage::IpOptions(_)));
            has_options && it.is_told_by_icmp()
        },
    },
];

/// The states in which the peer has closed and the connection still is one.
const AFTER_FIN: &[&str] = &["CLOSE-WAIT", "CLOSING", "LAST-ACK"];
