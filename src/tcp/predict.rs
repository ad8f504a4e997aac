//! Prediction: the steps that nearly every push to a quiet connection asks for, each in a straight line.
//!
//! In: the flow, its active block, and a segment or what is queued. Out: whether it was what the state of the
//! connection lets expect, a pure acknowledgment of all that is in flight, or one segment for all that is queued; then
//! the step is done. Whatever else it is goes through the steps of the RFC (see `receive` and `send`).
//!
//! Invariant: what is done here is what those steps would do. Tests make both go from the same states.

use super::congestion::open_without_repair;
use super::timestamps::take_timestamp;
use super::window::offer_window;
use super::{Active, Control, Flow, Offer, Outgoing, Segment, State, Time};

/// Takes a segment that acknowledges all that is in flight and says nothing else: [`Rule::AckAdvances`](super::Rule),
/// and what is acknowledged is to be released. `false`, with nothing changed, for any other segment, and where the
/// connection is about more than that. It has no repair block.
#[inline]
pub fn take_expected_ack(flow: &mut Flow, active: &mut Active, segment: &Segment, now: Time) -> bool {
    let is_pure = segment.control == Control::ACK && segment.payload_bytes == 0 && segment.sack.is_empty();
    let acknowledges_all = segment.ack == flow.snd_nxt && active.snd_una != flow.snd_nxt;
    let is_plain = flow.is_in(State::Established) && !flow.is_close_queued() && !flow.has_ecn() && active.is_plain();
    let has_windows = segment.window != 0 && flow.snd_wnd != 0;
    if !(is_pure && segment.seq == flow.rcv_nxt && acknowledges_all && is_plain && has_windows) {
        return false;
    }
    let has_timestamps = flow.has_timestamps();
    let echo = match segment.timestamps {
        Some(timestamps) if has_timestamps && timestamps.value.wrapping_sub(flow.ts_recent) as i32 >= 0 => {
            Some(timestamps.echo)
        }
        None if !has_timestamps => None,
        Some(_) | None => return false,
    };
    flow.heard_s = now.seconds();
    flow.forget_probes();
    take_timestamp(flow, active, segment);
    flow.set_send_window(segment.window);
    let flight = active.in_flight(flow);
    let _ = active.end_round_trip(segment.ack, echo, now);
    active.snd_una = segment.ack;
    active.resend_nxt = segment.ack;
    active.progressed();
    if flight.saturating_mul(2) >= active.cwnd {
        open_without_repair(flow, active, flight);
    }
    active.disarm();
    true
}

/// The segment that takes all that is queued, where nothing is in flight and there is nothing else to think of.
/// `None`, with nothing changed, for any other. The connection has no repair block.
#[inline]
pub(super) fn send_expected(flow: &mut Flow, active: &mut Active, offer: Offer, now: Time) -> Option<Outgoing> {
    let seq = flow.snd_nxt;
    let bytes = active.snd_end.since(seq);
    let room = active.cwnd.min(flow.send_window()).min(flow.mss.into());
    let is_plain = flow.is_in(State::Established) && !flow.is_close_queued() && !flow.has_ecn() && active.marks == 0;
    if !(is_plain && active.snd_una == seq && active.resend_nxt == seq && (1..=room).contains(&bytes)) {
        return None;
    }
    let end = active.snd_end;
    active.time_round_trip(end, now);
    (flow.snd_nxt, active.resend_nxt) = (end, end);
    active.note_size(flow, bytes, end);
    if active.deadline_ms().is_none() {
        active.arm(now);
    }
    active.acknowledge(flow.rcv_nxt);
    offer_window(flow, active, offer);
    let control = Control::ACK.with(Control::PSH);
    let bare = Outgoing::bare(seq, flow.rcv_nxt, control, flow.receive_window_field());
    Some(Outgoing { payload_bytes: bytes, ..bare })
}

#[cfg(test)]
mod tests {
    use super::super::{Effects, Rule, SeqNum, Timestamps, on_segment, send};
    use super::*;

    /// Numbers that seem random, the same in every run (xorshift).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as u32
        }

        fn is_one_in(&mut self, count: u32) -> bool {
            self.next().is_multiple_of(count)
        }

        /// One of a few values, each as often as the others.
        fn any<T: Copy>(&mut self, values: &[T]) -> T {
            values[self.next() as usize % values.len()]
        }

        /// Mostly the usual value.
        fn mostly(&mut self, usual: u32, others: &[u32]) -> u32 {
            if self.is_one_in(10) { self.any(others) } else { usual }
        }
    }

    /// A connection with something in flight, mostly a plain one, and a segment that is mostly the expected one.
    fn conversation(random: &mut Random) -> (Flow, Active, Segment<'static>, Offer, Time) {
        let now = Time::from_ms(random.any(&[90_000, 5_000_000_000]));
        let mut flow = Flow::free(0);
        flow.set_state(if !random.is_one_in(10) {
            State::Established
        } else {
            random.any(&[State::FinWait1, State::CloseWait, State::SynReceived, State::LastAck, State::Closing])
        });
        flow.mss = random.any(&[536, 1_460]);
        flow.begin_receiving(SeqNum(random.next()));
        flow.extend_receive_window(random.any(&[0, 1_000, 65_535]));
        flow.set_send_window(random.any(&[0, 1, 500, 65_535, 65_535, 65_535]));
        let anywhere = random.next();
        flow.snd_nxt = SeqNum(random.any(&[7, u32::MAX - 20, anywhere]));
        flow.heard_s = random.any(&[0, 80, 89]);
        if random.is_one_in(2) {
            flow.begin_timestamps(random.any(&[3, u32::MAX - 1]));
        }
        flow.set_close_queued(random.is_one_in(20));
        let mut active = Active::quiet(0, &flow);
        let flight = random.any(&[0, 1, 300, 1_460, 20_000]);
        flow.snd_nxt = flow.snd_nxt.plus(flight);
        active.resend_nxt = active.snd_una.plus(random.any(&[flight, flight, flight, flight / 2, 0]));
        active.snd_end = flow.snd_nxt.plus(random.mostly(0, &[1, 5_000]));
        active.cwnd = random.any(&[536, 2_920, 14_600, 1 << 20]);
        active.ssthresh = random.any(&[1_000, u32::MAX]);
        active.rcv_acked = flow.rcv_nxt.minus(random.mostly(0, &[10]));
        active.retries = random.mostly(0, &[1, 3]) as u8;
        if random.is_one_in(2) {
            active.time_round_trip(flow.snd_nxt.minus(random.mostly(0, &[1])), Time(now.0 - 700));
        } else if random.is_one_in(2) {
            active.abandon_round_trip();
        }
        active.arm(now);
        active.marks = if random.is_one_in(10) { random.next() as u8 } else { 0 };
        active.path = random.any(&[0, 1, 2, 3]);
        let mut segment = Segment::bare(flow.rcv_nxt, flow.snd_nxt, Control::ACK, random.any(&[0, 1, 400, 65_535]));
        segment.seq = segment.seq.plus(random.mostly(0, &[1, u32::MAX, 70_000]));
        segment.ack = segment.ack.plus(random.mostly(0, &[1, u32::MAX, 70_000]));
        segment.control = Control(random.mostly(Control::ACK.0.into(), &[0, 2, 4, 17, 20, 48, 24, 80, 144]) as u8);
        segment.payload_bytes = random.mostly(0, &[1, 100]);
        if flow.has_timestamps() != random.is_one_in(20) {
            let value = flow.ts_recent.wrapping_add(random.any(&[0, 1, 1, 500, u32::MAX]));
            segment.timestamps = Some(Timestamps { value, echo: now.wrapping_ms().wrapping_sub(40) });
        }
        let offer = Offer { mss: 1_460, window_bytes: 65_535, ..Offer::default() };
        (flow, active, segment, offer, now)
    }

    #[test]
    fn an_expected_acknowledgment_does_what_the_steps_do() {
        let mut random = Random(7);
        let mut expected = 0;
        for _ in 0..200_000 {
            let (flow, active, segment, offer, now) = conversation(&mut random);
            let (mut short_flow, mut short_active) = (flow, active);
            if !take_expected_ack(&mut short_flow, &mut short_active, &segment, now) {
                assert_eq!((short_flow, short_active), (flow, active), "nothing is changed");
                continue;
            }
            expected += 1;
            let (mut long_flow, mut long_active) = (flow, active);
            let effects = on_segment(&mut long_flow, &mut long_active, None, &segment, offer, now);
            assert_eq!(effects, Effects { is_acknowledged: true, ..Effects::only(Rule::AckAdvances) }, "{segment:?}");
            assert_eq!((short_flow, short_active), (long_flow, long_active), "{segment:?}");
        }
        assert!(expected > 20_000, "{expected}");
    }

    #[test]
    fn an_expected_push_does_what_the_steps_do() {
        let mut random = Random(9);
        let mut expected = 0;
        for _ in 0..200_000 {
            let (mut flow, mut active, _, offer, now) = conversation(&mut random);
            if !random.is_one_in(10) {
                (active.snd_una, active.resend_nxt) = (flow.snd_nxt, flow.snd_nxt);
            }
            active.snd_end = flow.snd_nxt.plus(random.any(&[0, 1, 64, 536, 1_460, 1_461, 70_000, u32::MAX]));
            flow.set_nagle(random.is_one_in(3));
            random.is_one_in(2).then(|| active.disarm());
            let (mut short_flow, mut short_active) = (flow, active);
            let Some(outgoing) = send_expected(&mut short_flow, &mut short_active, offer, now) else {
                assert_eq!((short_flow, short_active), (flow, active), "nothing is changed");
                continue;
            };
            expected += 1;
            let (mut long_flow, mut long_active) = (flow, active);
            let by_steps = send::poll_state(&mut long_flow, &mut long_active, None, offer, now);
            assert_eq!(by_steps, Some(outgoing));
            assert_eq!((short_flow, short_active), (long_flow, long_active), "{outgoing:?}");
        }
        assert!(expected > 20_000, "{expected}");
    }
}
