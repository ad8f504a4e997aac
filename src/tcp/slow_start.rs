//! The end of slow start before anything is lost: HyStart++ (RFC 9406), and the acknowledgment trains of HyStart.
//!
//! In: acknowledgments, and how long their round trips took. Out: how fast the window may grow. When the round trips of
//! one round are longer than those of the round before, a queue is filling: the window grows more slowly for a few
//! rounds, and slow start is over unless the round trips become shorter again. That comes too late where the queue
//! holds about as much as the path: its first half is filled and emptied within a round, whose first segments see
//! nothing of it. Such a path shows by acknowledgments that follow each other closely for half of a round trip: the
//! bottleneck works half of the time, and will work all of it when the window has doubled. Then slow start is over at
//! once.
//!
//! Invariant: only for the first slow start of a connection; later ones have a threshold to go by.

use super::recovery::OPEN;
use super::repair::Run;
use super::runs::Delivery;
use super::{Active, Flow, Repair, SeqNum, Time};

/// What is remembered of round trips; all zero at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct SlowStart {
    /// The round ends when this has arrived.
    round_end: SeqNum,
    /// The shortest round trip of the round before, 0 for none, in microseconds.
    last_min_us: u32,
    /// The shortest of this round, 0 for none.
    min_us: u32,
    /// The shortest when growth was slowed down, 0 while it is not.
    baseline_us: u32,
    /// Round trips that were measured in this round.
    samples: u16,
    /// Rounds of slower growth.
    slower_rounds: u16,
    /// When the round began, and when the last acknowledgment of the train that began with it came.
    began_us: u32,
    train_us: u32,
}

/// Something has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The furthest byte that has arrived: what comes late does not make a round longer.
    pub furthest: SeqNum,
    pub snd_nxt: SeqNum,
    /// How long ago it was sent.
    pub round_trip_us: u32,
    /// The shortest round trip of the connection.
    pub min_rtt_us: u32,
    pub now_us: u32,
}

/// How fast the window grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// By what is acknowledged.
    Full,
    /// By a quarter of that (RFC 9406, CSS_GROWTH_DIVISOR).
    Quarter,
    /// Slow start is over.
    Over,
}

/// Round trips that make a round's shortest believable (N_RTT_SAMPLE).
const SAMPLES_MIN: u16 = 8;
/// How much longer they must be: an eighth within these bounds (MIN_RTT_THRESH, MAX_RTT_THRESH, MIN_RTT_DIVISOR).
const LONGER_US_MIN: u32 = 4_000;
const LONGER_US_MAX: u32 = 16_000;
/// Rounds of slower growth before slow start is over (CSS_ROUNDS).
const SLOWER_ROUNDS: u16 = 5;
/// Acknowledgments so close to each other are one train.
const TRAIN_GAP_US: u32 = 2_000;

impl Repair {
    /// How fast slow start is after this delivery.
    pub(super) fn pace(&mut self, flow: &Flow, active: &Active, delivery: &Delivery, now: Time) -> Pace {
        let is_first = active.ssthresh == u32::MAX && self.phase == OPEN;
        let Some(Run { sent_us, is_resent: 0, .. }) = delivery.latest.filter(|_| is_first) else { return Pace::Full };
        let now_us = now.wrapping_us();
        self.slow_start.on_ack(Arrival {
            furthest: self.furthest,
            snd_nxt: flow.snd_nxt,
            round_trip_us: now_us.wrapping_sub(sent_us),
            min_rtt_us: self.min_rtt_us,
            now_us,
        })
    }
}

impl SlowStart {
    /// A round trip has ended.
    pub(super) fn on_ack(&mut self, arrival: Arrival) -> Pace {
        let Arrival { furthest, snd_nxt, round_trip_us, min_rtt_us, now_us } = arrival;
        if !(furthest.before(self.round_end) && self.round_end.at_or_before(snd_nxt)) {
            self.slower_rounds += u16::from(self.baseline_us != 0);
            (self.last_min_us, self.min_us, self.samples) = (self.min_us, 0, 0);
            self.round_end = snd_nxt;
            (self.began_us, self.train_us) = (now_us, now_us);
        }
        if now_us.wrapping_sub(self.train_us) <= TRAIN_GAP_US {
            self.train_us = now_us;
        }
        let round_trip_us = round_trip_us.max(1);
        self.min_us = if self.min_us == 0 { round_trip_us } else { self.min_us.min(round_trip_us) };
        self.samples = self.samples.saturating_add(1);
        if self.samples >= SAMPLES_MIN {
            self.compare();
        }
        let train_us = self.train_us.wrapping_sub(self.began_us);
        match self.baseline_us {
            _ if self.samples >= SAMPLES_MIN && min_rtt_us > 0 && train_us > min_rtt_us / 2 => Pace::Over,
            0 => Pace::Full,
            _ if self.slower_rounds >= SLOWER_ROUNDS => Pace::Over,
            _ => Pace::Quarter,
        }
    }

    fn compare(&mut self) {
        let longer_us = (self.last_min_us / 8).clamp(LONGER_US_MIN, LONGER_US_MAX);
        if self.baseline_us != 0 {
            // Shorter again: it was no queue of ours.
            self.baseline_us = if self.min_us < self.baseline_us { 0 } else { self.baseline_us };
        } else if self.last_min_us != 0 && self.min_us >= self.last_min_us.saturating_add(longer_us) {
            (self.baseline_us, self.slower_rounds) = (self.min_us, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    const MIN_RTT_US: u32 = 20_000;

    /// Rounds of ten acknowledgments that come `gap_us` after each other, with these round trips in ms. Returns the
    /// pace at the end of each.
    fn paces(round_trips_ms: &[u32], gap_us: u32) -> Vec<Pace> {
        let mut slow_start = SlowStart::zeroed();
        let mut una = SeqNum(u32::MAX - 2_000);
        let mut now_us = u32::MAX - 30_000;
        let mut paces = Vec::new();
        for round_trip_ms in round_trips_ms {
            let snd_nxt = una.plus(1_000);
            let mut pace = Pace::Full;
            for _ in 0..10 {
                let round_trip_us = round_trip_ms * 1_000;
                pace = slow_start.on_ack(Arrival {
                    furthest: una,
                    snd_nxt,
                    round_trip_us,
                    min_rtt_us: MIN_RTT_US,
                    now_us,
                });
                una = una.plus(100);
                now_us = now_us.wrapping_add(gap_us);
            }
            paces.push(pace);
            now_us = now_us.wrapping_add(round_trip_ms * 1_000 - 10 * gap_us);
        }
        paces
    }

    #[test]
    fn a_queue_that_fills_ends_slow_start_after_five_rounds() {
        use Pace::{Full, Over, Quarter};
        let paces = paces(&[20, 21, 23, 27, 30, 35, 40, 45, 50], 100);
        assert_eq!(paces, [Full, Full, Full, Quarter, Quarter, Quarter, Quarter, Quarter, Over]);
    }

    #[test]
    fn shorter_round_trips_resume_it() {
        use Pace::{Full, Quarter};
        assert_eq!(paces(&[20, 30, 31, 22, 22, 23], 100), [Full, Quarter, Quarter, Full, Full, Full]);
    }

    #[test]
    fn a_train_of_half_a_round_trip_ends_it_at_once() {
        assert_eq!(paces(&[20, 20], 1_100), [Pace::Full, Pace::Full]);
        assert_eq!(paces(&[20], 1_200), [Pace::Over]);
        assert_eq!(paces(&[22], 2_100), [Pace::Full], "what comes one by one is no train");
    }

    #[test]
    fn too_few_round_trips_say_nothing() {
        let mut slow_start = SlowStart::zeroed();
        for round in 0..20_u32 {
            let una = SeqNum(round * 1_000);
            let arrival = Arrival {
                furthest: una,
                snd_nxt: una.plus(1_000),
                round_trip_us: MIN_RTT_US << round.min(10),
                min_rtt_us: MIN_RTT_US,
                now_us: round * MIN_RTT_US,
            };
            for ack in 0..7 {
                let pace = slow_start.on_ack(Arrival { furthest: una.plus(ack * 100), ..arrival });
                assert_eq!(pace, Pace::Full);
            }
        }
    }
}
