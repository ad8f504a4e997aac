//! Events: what has happened, numbered, the latest of it kept for readers who come back.
//!
//! Comes in: what a worker tells. Goes out: JSON lines from a cursor on, of the kinds that a reader wants. A cursor is
//! the number of an event: 20 bits that count the starts on a state, 44 that count events, so that numbers go on where
//! a state does. A reader whose cursor points to something that is no longer kept is told of the `gap`.
//!
//! Invariant: a reader takes nothing from the ring and holds nothing in it. What it does not read is overwritten.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::shard::{FlowId, Notice, Ticket};

use super::super::teller::Told;
use super::body::write_line;

/// The number of an event; written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cursor(u64);

impl Cursor {
    /// Before the first event that is kept, whatever it is.
    pub(super) const OLDEST: Cursor = Cursor(0);

    fn start(start_number: u64) -> Cursor {
        Cursor((start_number & 0xf_ffff) << COUNT_BITS)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Cursor, ()> {
        let is_hex = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| is_hex).map(Cursor).ok_or(())
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, strum::EnumIter, strum::EnumString, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Kind {
    Opened,
    Received,
    Delivered,
    Undelivered,
    Expired,
    PeerClosed,
    Urgent,
    SoftError,
    Closed,
    Gap,
}

/// A set of kinds. A gap is in every set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kinds(u16);

impl Kinds {
    pub(super) const ALL: Kinds = Kinds(u16::MAX);

    /// The given ones, and gaps.
    pub(super) fn of(kinds: impl IntoIterator<Item = Kind>) -> Kinds {
        Kinds(kinds.into_iter().fold(1 << Kind::Gap as u16, |set, kind| set | 1 << kind as u16))
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

/// The latest events.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Event>,
    received_bytes: usize,
    start: Cursor,
    last: Cursor,
    lost: u64,
}

#[derive(Debug)]
struct Event {
    cursor: Cursor,
    time_ms: u64,
    told: Told,
}

impl Ring {
    /// Empty, for the start of this number on its state.
    pub(super) fn new(start_number: u64) -> Ring {
        let start = Cursor::start(start_number);
        Ring { events: VecDeque::new(), received_bytes: 0, start, last: start, lost: 0 }
    }

    /// Takes in one more; `time_ms` is when, in milliseconds since 1970.
    pub(super) fn put(&mut self, time_ms: u64, told: Told) {
        let (count, bytes) = match &told {
            Told::Happened(notice) => (1, received_bytes(notice)),
            Told::Lost(count) => (*count, 0),
        };
        if matches!(told, Told::Lost(_)) {
            self.lost += count;
        }
        self.last = Cursor(self.last.0 + count);
        self.received_bytes += bytes;
        self.events.push_back(Event { cursor: self.last, time_ms, told });
        while self.events.len() > EVENTS_MAX || self.received_bytes > RECEIVED_BYTES_MAX {
            let Some(Event { told: Told::Happened(notice), .. }) = self.events.pop_front() else { continue };
            self.received_bytes -= received_bytes(&notice);
        }
    }

    /// The latest event.
    pub(super) fn last(&self) -> Cursor {
        self.last
    }

    /// How many events are kept.
    pub(super) fn kept(&self) -> usize {
        self.events.len()
    }

    /// How many never came here, because the worker found no room for them.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Appends to `lines` what comes after `after`, at most `lines_max` lines and little more than `PIECE_BYTES`.
    /// Returns how far that was, and how many lines; where nothing was left to look at, it is the latest event.
    pub(super) fn read(&self, after: Cursor, kinds: Kinds, lines_max: u64, lines: &mut Vec<u8>) -> (Cursor, u64) {
        let mut count = 0;
        let (mut after, gap) = self.behind_gap(after);
        if let Some(gap) = gap.filter(|_| lines_max > 0) {
            write_line(lines, &gap);
            count += 1;
        }
        let first = self.events.partition_point(|event| event.cursor <= after);
        for event in self.events.range(first..).take(LOOKED_AT_MAX) {
            if count >= lines_max || lines.len() >= PIECE_BYTES {
                break;
            }
            let line = event.line();
            if kinds.has(line.kind) {
                write_line(lines, &line);
                count += 1;
            }
            after = event.cursor;
        }
        (after, count)
    }

    /// Where to go on from, and the line that says what is missing up to there, if anything is.
    fn behind_gap(&self, after: Cursor) -> (Cursor, Option<Line>) {
        let oldest = self.events.front().map_or(self.last, |event| match event.told {
            Told::Happened(_) => Cursor(event.cursor.0 - 1),
            Told::Lost(count) => Cursor(event.cursor.0 - count),
        });
        let lost = if after == Cursor::OLDEST {
            Some(oldest.0 - self.start.0)
        } else if (self.start..=self.last).contains(&after) {
            Some(oldest.0.saturating_sub(after.0))
        } else {
            None
        };
        match lost {
            Some(0) => (after.max(oldest), None),
            _ => (oldest, Some(Line { lost: Some(lost), ..Line::new(oldest, 0, Kind::Gap) })),
        }
    }
}

fn received_bytes(notice: &Notice) -> usize {
    match notice {
        Notice::Received { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

/// One event as readers see it. What an event does not have is left out.
#[derive(Serialize)]
struct Line {
    cursor: String,
    #[serde(skip_serializing_if = "is_zero")]
    time_ms: u64,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acked_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// How many; null where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Option<u64>>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Line {
    fn new(cursor: Cursor, time_ms: u64, kind: Kind) -> Line {
        Line {
            cursor: cursor.to_string(),
            time_ms,
            kind,
            id: None,
            local: None,
            remote: None,
            offset: None,
            base64: None,
            ticket: None,
            acked_bytes: None,
            reason: None,
            lost: None,
        }
    }
}

impl Event {
    fn line(&self) -> Line {
        let of = |kind, flow: &FlowId| Line { id: Some(flow.to_string()), ..self.bare(kind) };
        let notice = match &self.told {
            Told::Happened(notice) => notice,
            Told::Lost(count) => return Line { lost: Some(Some(*count)), ..self.bare(Kind::Gap) },
        };
        match notice {
            Notice::Opened { flow, local, remote } => {
                Line { local: Some(*local), remote: Some(*remote), ..of(Kind::Opened, flow) }
            }
            Notice::Received { flow, offset, bytes } => {
                Line { offset: Some(*offset), base64: Some(STANDARD.encode(bytes)), ..of(Kind::Received, flow) }
            }
            // The first two are answers to pushers, which the teller leaves out.
            Notice::Queued { flow, ticket }
            | Notice::Refused { flow, ticket, .. }
            | Notice::Expired { flow, ticket } => {
                Line { ticket: Some(ticket_text(*ticket)), ..of(Kind::Expired, flow) }
            }
            Notice::Delivered { flow, ticket } => {
                Line { ticket: Some(ticket_text(*ticket)), ..of(Kind::Delivered, flow) }
            }
            Notice::Undelivered { flow, ticket, acked_bytes } => Line {
                ticket: Some(ticket_text(*ticket)),
                acked_bytes: Some(*acked_bytes),
                ..of(Kind::Undelivered, flow)
            },
            Notice::PeerClosed { flow } => of(Kind::PeerClosed, flow),
            Notice::Urgent { flow, end } => Line { offset: Some(*end), ..of(Kind::Urgent, flow) },
            Notice::SoftError { flow, error } => Line { reason: Some(error.into()), ..of(Kind::SoftError, flow) },
            Notice::Closed { flow, reason } => Line { reason: Some(reason.into()), ..of(Kind::Closed, flow) },
        }
    }

    fn bare(&self, kind: Kind) -> Line {
        Line::new(self.cursor, self.time_ms, kind)
    }
}

/// A ticket as readers see it: 16 hexadecimal digits.
pub(super) fn ticket_text(ticket: Ticket) -> String {
    format!("{:016x}", ticket.0)
}

/// Bits of a cursor that count events.
const COUNT_BITS: u32 = 44;

/// Events that are kept.
const EVENTS_MAX: usize = 65_536;

/// Received bytes that are kept with them, in bytes.
const RECEIVED_BYTES_MAX: usize = 16 << 20;

/// Where a piece of lines ends, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// Events that one read looks at, wanted or not.
const LOOKED_AT_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(slot: u32) -> Told {
        Told::Happened(Notice::PeerClosed { flow: FlowId::new(0, 1, slot) })
    }

    fn lines(ring: &Ring, after: Cursor, kinds: Kinds) -> (Vec<serde_json::Value>, Cursor) {
        let (mut bytes, mut after) = (Vec::new(), after);
        loop {
            let (next, count) = ring.read(after, kinds, u64::MAX, &mut bytes);
            if next == after && count == 0 {
                break;
            }
            after = next;
            if after == ring.last() {
                break;
            }
        }
        let text = String::from_utf8(bytes).expect("JSON is text");
        (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), after)
    }

    #[test]
    fn a_reader_goes_on_where_it_stopped() {
        let mut ring = Ring::new(3);
        (0..3).for_each(|slot| ring.put(7, closed(slot)));
        let (first, cursor) = lines(&ring, Cursor::OLDEST, Kinds::ALL);
        assert_eq!(first.len(), 3);
        assert_eq!(first[0]["cursor"], "0000300000000001");
        assert_eq!(first[0]["kind"], "peer-closed");
        assert_eq!(first[0]["time_ms"], 7);
        assert_eq!(lines(&ring, cursor, Kinds::ALL).0.len(), 0);
        ring.put(8, closed(3));
        assert_eq!(lines(&ring, cursor, Kinds::ALL).0[0]["id"], "0000000100000003");
    }

    #[test]
    fn what_was_overwritten_is_a_gap() {
        let mut ring = Ring::new(1);
        ring.put(0, closed(0));
        let cursor = ring.last();
        (0..EVENTS_MAX as u32 + 9).for_each(|slot| ring.put(0, closed(slot)));
        let (read, _) = lines(&ring, cursor, Kinds::of([Kind::Opened]));
        assert_eq!(read.len(), 1, "a gap is told whatever kinds are wanted");
        assert_eq!((&read[0]["kind"], &read[0]["lost"]), (&"gap".into(), &9.into()));
        assert_eq!(ring.kept(), EVENTS_MAX);
    }

    #[test]
    fn what_the_worker_lost_is_a_gap_with_numbers_of_its_own() {
        let mut ring = Ring::new(1);
        ring.put(0, closed(0));
        ring.put(0, Told::Lost(5));
        ring.put(0, closed(1));
        let (read, cursor) = lines(&ring, Cursor::OLDEST, Kinds::ALL);
        assert_eq!(read[1]["lost"], 5);
        assert_eq!((ring.lost(), cursor), (5, Cursor(Cursor::start(1).0 + 7)));
    }

    #[test]
    fn a_cursor_of_another_start_is_a_gap_of_unknown_length() {
        let mut ring = Ring::new(2);
        ring.put(0, closed(0));
        for after in [Cursor(Cursor::start(1).0 + 4), Cursor(Cursor::start(2).0 + 4)] {
            let (read, _) = lines(&ring, after, Kinds::ALL);
            assert_eq!((read.len(), &read[0]["lost"]), (2, &serde_json::Value::Null));
        }
    }

    #[test]
    fn received_bytes_are_bounded_together() {
        let mut ring = Ring::new(1);
        for _ in 0..40 {
            let bytes = vec![7; 1 << 20].into_boxed_slice();
            ring.put(0, Told::Happened(Notice::Received { flow: FlowId::new(0, 1, 1), offset: 0, bytes }));
        }
        assert_eq!(ring.kept(), 16);
        let (mut bytes, oldest) = (Vec::new(), Cursor::OLDEST);
        ring.read(oldest, Kinds::of([Kind::Received]), 2, &mut bytes);
        let line = bytes.split(|byte| *byte == b'\n').nth(1).expect("a gap, then bytes");
        let line: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        assert!(line["base64"].as_str().is_some_and(|text| text.starts_with("BwcH")));
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let cursor = Cursor(Cursor::start(5).0 + 77);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!("0".parse(), Ok(Cursor::OLDEST));
        for wrong in ["", "x", "+1", "00000000000000001"] {
            assert_eq!(wrong.parse::<Cursor>(), Err(()), "{wrong}");
        }
    }
}
