//! SYN cookies: a handshake that costs no memory until it is complete (RFC 4987 §3.6).
//!
//! The initial sequence number of the SYN-ACK is all that is kept of the SYN; the peer brings it back with its ACK.
//!
//! ```text
//!  31 30 | 29 28 27 | 26 25 24 23 | 22  | 21 ... 0
//!  epoch | MSS      | shift, or 15| SACK| keyed hash of tuple, IRS, epoch and the bits to the left
//! ```
//!
//! An epoch is 64 s; a cookie counts in its own and the next. Timestamps need no bit: whether the ACK carries them says
//! whether they were agreed on. The chance of one forged ACK to open a connection is 2^-22, about one in four million.
//!
//! Invariant: what the hash covers is decided here, the hash itself is the caller's, who has the key.

use super::open::on_syn;
use super::window::SHIFT_MAX;
use super::{Active, Flow, Offer, Segment, SeqNum, Time};

/// How long an epoch is, in seconds.
const EPOCH_S: u32 = 64;
/// How long a cookie may count after it was sent, in seconds.
pub const COOKIE_LIFE_S: u32 = 2 * EPOCH_S;
/// The MSS that a cookie can say: it says the largest that is not above the peer's.
const MSS_VALUES: [u16; 8] = [64, 536, 1_220, 1_300, 1_360, 1_400, 1_440, 1_460];
/// The shift that says that windows are not scaled.
const SHIFT_NONE: u32 = 15;
const HASH_BITS: u32 = 22;

/// What a cookie keeps of a SYN, and when it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie {
    /// In whole epochs of the stack's clock.
    pub epoch: u32,
    /// The bits between epoch and hash.
    pub kept: u8,
}

impl Cookie {
    /// Of a SYN that comes now.
    pub fn new(segment: &Segment, offer: Offer, now: Time) -> Cookie {
        let mss = segment.mss.unwrap_or(offer.mss_default);
        let index = MSS_VALUES.iter().rposition(|&value| value <= mss).unwrap_or(0) as u32;
        let shift = segment.window_shift.map_or(SHIFT_NONE, |shift| u32::from(shift.min(SHIFT_MAX)));
        let kept = index << 5 | shift << 1 | u32::from(segment.sack_permitted);
        Cookie { epoch: now.seconds() / EPOCH_S, kept: kept as u8 }
    }

    /// What the acknowledgment of a SYN-ACK says it is, if it is one that still counts. Only the hash tells.
    pub fn read(iss: SeqNum, now: Time) -> Option<Cookie> {
        let present = now.seconds() / EPOCH_S;
        let age = present.wrapping_sub(iss.0 >> 30) & 3;
        let epoch = present.checked_sub(age).filter(|_| age < COOKIE_LIFE_S / EPOCH_S)?;
        Some(Cookie { epoch, kept: (iss.0 >> HASH_BITS) as u8 })
    }

    /// The initial sequence number, with the keyed hash of the tuple, the peer's initial sequence number and `self`.
    pub fn sequence_number(&self, hash: u64) -> SeqNum {
        SeqNum(self.epoch << 30 | u32::from(self.kept) << HASH_BITS | hash as u32 & ((1 << HASH_BITS) - 1))
    }

    fn mss(self) -> u16 {
        MSS_VALUES[usize::from(self.kept >> 5)]
    }

    fn window_shift(self) -> Option<u8> {
        let shift = u32::from(self.kept >> 1) & 0xf;
        (shift != SHIFT_NONE).then_some((shift as u8).min(SHIFT_MAX))
    }

    fn is_sack_permitted(self) -> bool {
        self.kept & 1 == 1
    }
}

/// Makes the connection, in SYN-RECEIVED, to which `segment` brings back the cookie that answered its SYN. The caller
/// fills in addresses, ports and next hop, and then steps the connection over the segment, which completes it.
pub fn on_cookie(slot: u32, flow: &mut Flow, segment: &Segment, cookie: Cookie, offer: Offer, now: Time) -> Active {
    let syn = Segment {
        seq: segment.seq.minus(1),
        mss: Some(cookie.mss()),
        window_shift: cookie.window_shift(),
        sack_permitted: cookie.is_sack_permitted(),
        ..*segment
    };
    let mut active = on_syn(slot, flow, &syn, segment.ack.minus(1), offer, now);
    active.resend_nxt = flow.snd_nxt;
    // When the SYN-ACK left, only the echo of its timestamp can say.
    active.abandon_round_trip();
    active
}

#[cfg(test)]
mod tests {
    use super::super::Control;
    use super::*;

    fn syn(mss: Option<u16>, window_shift: Option<u8>, sack_permitted: bool) -> Segment<'static> {
        Segment { mss, window_shift, sack_permitted, ..Segment::bare(SeqNum(77), SeqNum(0), Control::SYN, 1_000) }
    }

    #[test]
    fn everything_that_is_kept_comes_back() {
        let now = Time::from_ms(1_000_000_000);
        for mss in [1, 64, 535, 536, 1_219, 1_220, 1_460, 9_000] {
            for shift in [None, Some(0), Some(7), Some(14)] {
                for sack in [false, true] {
                    let cookie = Cookie::new(&syn(Some(mss), shift, sack), Offer::default(), now);
                    let read = Cookie::read(cookie.sequence_number(u64::MAX), now).expect("is fresh");
                    assert_eq!(read, cookie);
                    assert_eq!((read.window_shift(), read.is_sack_permitted()), (shift, sack));
                    assert!(read.mss() <= mss.max(64) && read.mss() >= mss.min(1_460) * 3 / 4 || mss < 1_220);
                }
            }
        }
        for mss_default in [536, 1_220] {
            let silent = Cookie::new(&syn(None, None, false), Offer { mss_default, ..Offer::default() }, now);
            assert_eq!(silent.mss(), mss_default, "MUST-15");
        }
    }

    #[test]
    fn a_cookie_counts_in_its_epoch_and_the_next() {
        let made = Time::from_ms(640_000);
        let iss = Cookie::new(&syn(None, None, false), Offer::default(), made).sequence_number(5);
        assert!(Cookie::read(iss, made.plus_ms(127_999)).is_some());
        assert_eq!(Cookie::read(iss, made.plus_ms(128_000)), None);
        let much_later = Cookie::read(iss, made.plus_ms(4 * 64_000));
        assert_ne!(much_later.map(|it| it.epoch), Some(10), "the same two bits, but another epoch for the hash");
    }
}
