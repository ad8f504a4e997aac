//! Matrix: every state x every kind of segment x every position, held to the oracle.
//!
//! A cell is one connection in one state and one segment. `bench` brings a real shard there and sends the segment,
//! `oracle` says what has to follow, in the words of the RFCs; where holdline departs from them on purpose, the table
//! in the oracle's file says so.
//!
//! Invariant: nothing that the stack says decides what is expected of it, but its initial sequence number.

mod bench;
mod connection;
mod oracle;
mod setting;

use std::collections::{BTreeMap, BTreeSet};

use bench::{Bench, CLOCK};
use connection::{Outcome, Seg, State, Tcb};
use oracle::{DEPARTURES, arrives};
use setting::{Setting, Start, Window};
use strum::IntoEnumIterator;

/// Kinds of segments by their letters: S SYN, A ACK, F FIN, R RST, U URG, P PSH, and 10 bytes of data for d.
const KINDS: &[&str] = &[
    "A", "Ad", "APUd", "AF", "AFd", "AR", "ARd", "AS", "ASF", "AFPU", "R", "Rd", "S", "Sd", "SF", "SR", "", "d", "F",
    "Fd", "Ud", "FPU", "SFRPUd", "ASFRPUd",
];
const TEXT_BYTES: u32 = 10;

/// The initial sequence numbers of both sides: in the middle, at the change of sign, and such that the window or what
/// is in flight lies across the wrap.
const NUMBERS: &[(u32, u32)] =
    &[(0x0100_0000, 0x0200_0000), (0x7fff_fff0, 0x7fff_ff00), (0xffff_fffb, 0xffff_fe00), (0xffff_f830, 0xffff_ffff)];

fn segment(kind: &str) -> Seg {
    let has = |letter| kind.contains(letter);
    Seg {
        ack: has('A').then_some(0),
        syn: has('S'),
        fin: has('F'),
        rst: has('R'),
        urg: has('U'),
        psh: has('P'),
        text: if has('d') { TEXT_BYTES } else { 0 },
        ..Seg::default()
    }
}

/// Sequence numbers from far left of the window to far right of it, and on and next to both edges.
fn positions(tcb: &Tcb, length: u32) -> BTreeSet<u32> {
    let (left, right) = (tcb.rcv_nxt, tcb.rcv_nxt.wrapping_add(tcb.rcv_wnd));
    let mut positions = BTreeSet::from([left.wrapping_sub(0x7fff_0000), left.wrapping_sub(100_000), tcb.irs]);
    for edge in [left, right] {
        for by in [-1, 0, 1] {
            positions.insert(edge.wrapping_add_signed(by));
            positions.insert(edge.wrapping_sub(length).wrapping_add_signed(by));
        }
    }
    positions.extend([left.wrapping_add(tcb.rcv_wnd / 2), right.wrapping_add(100_000), left.wrapping_add(0x7fff_0000)]);
    positions
}

/// Acknowledgments from far too old to far too new.
fn acknowledgments(tcb: &Tcb) -> BTreeSet<u32> {
    let oldest = tcb.snd_una.wrapping_sub(tcb.snd_wnd_max);
    let mut acks = BTreeSet::from([oldest.wrapping_sub(1), oldest, tcb.snd_una.wrapping_sub(0x7fff_0000)]);
    for edge in [tcb.snd_una, tcb.snd_nxt] {
        acks.extend([edge.wrapping_sub(1), edge, edge.wrapping_add(1)]);
    }
    acks.insert(tcb.snd_nxt.wrapping_add(0x7000_0000));
    acks
}

/// The segments of one setting: kinds x positions x acknowledgments.
fn segments(tcb: &Tcb) -> Vec<Seg> {
    let mut segments = Vec::new();
    for kind in KINDS {
        let plain = Seg { stamp: tcb.ts_recent, ..segment(kind) };
        for seq in positions(tcb, plain.len()) {
            match plain.ack {
                None => segments.push(Seg { seq, ..plain }),
                Some(_) => {
                    segments.extend(acknowledgments(tcb).into_iter().map(|ack| Seg { seq, ack: Some(ack), ..plain }));
                }
            }
        }
    }
    segments
}

/// The same with timestamps from too old to newer than the latest, and without, where the acknowledgment is good.
fn stamped_segments(tcb: &Tcb) -> Vec<Seg> {
    let stamps = [-0x7fff_0000, -2, -1, 0, 1, 9, 0x7fff_0000].map(|by| Some(CLOCK.wrapping_add_signed(by)));
    let good = segments(tcb).into_iter().filter(|seg| seg.ack.is_none_or(|ack| ack == tcb.snd_nxt));
    good.flat_map(|seg| stamps.into_iter().chain([None]).map(move |stamp| Seg { stamp, ..seg })).collect()
}

/// Whether there is such a thing: a window can be filled after the handshake only.
fn is_possible(setting: &Setting) -> bool {
    let before_data = [Start::Closed, Start::Listen, Start::SynSent, Start::SynReceived, Start::SynReceivedActive];
    let has_data = !before_data.contains(&setting.start);
    let is_plain = setting.window == Window::Open;
    (has_data || is_plain)
        && (!setting.is_stamped || is_plain && !matches!(setting.start, Start::Closed | Start::Listen | Start::SynSent))
}

/// What the RFCs say, or the table instead of them: its index then.
fn expected(tcb: &Tcb, seg: &Seg) -> (Outcome, Option<usize>) {
    let departed = DEPARTURES.iter().enumerate();
    let departed = departed.filter_map(|(index, departure)| (departure.does)(tcb, seg).map(|does| (does, Some(index))));
    departed.into_iter().next().unwrap_or_else(|| (arrives(tcb, seg), None))
}

#[derive(Default)]
struct Results {
    cells: usize,
    wrong: BTreeMap<String, (usize, String)>,
    /// How often each departure was shown.
    departed: [usize; DEPARTURES.len()],
}

impl Results {
    /// Plays one cell.
    fn play(&mut self, bench: &mut Bench, setting: &Setting, seg: &Seg) -> Result<(), String> {
        let tcb = bench.reach(setting)?;
        let (outcome, departure) = expected(&tcb, seg);
        if let Some(index) = departure {
            self.departed[index] += 1;
        }
        let did = bench.send(setting, &tcb, seg, outcome.may_be_late)?;
        bench.clear()?;
        self.cells += 1;
        // Without a connection there is LISTEN or CLOSED, whichever was there before.
        let state = if outcome.state == State::Listen { State::Closed } else { outcome.state };
        let in_flight = tcb.snd_nxt.wrapping_sub(outcome.snd_una).saturating_sub(u32::from(has_our_fin(&tcb)));
        let is_gone = matches!(state, State::Closed | State::SynSent | State::SynReceived);
        let is_right = did.answers.iter().copied().eq(outcome.answer)
            && did.state == state
            && did.taken == outcome.taken
            && (is_gone || did.unacked_bytes == in_flight);
        if !is_right {
            let kind = format!("{:?} {:?} stamped {}", setting.start, setting.window, setting.is_stamped);
            let what =
                format!("{tcb:x?}\n  {seg:x?}\n  expected {outcome:x?} {in_flight} in flight\n  did      {did:x?}");
            let key = format!("{kind} {} {:?}", seg_letters(seg), did.answers.is_empty());
            self.wrong.entry(key).or_insert((0, what)).0 += 1;
        }
        Ok(())
    }
}

fn has_our_fin(tcb: &Tcb) -> bool {
    matches!(tcb.state, State::FinWait1 | State::Closing | State::LastAck)
}

fn seg_letters(seg: &Seg) -> String {
    let letters =
        [(seg.ack.is_some(), 'A'), (seg.syn, 'S'), (seg.fin, 'F'), (seg.rst, 'R'), (seg.urg, 'U'), (seg.text > 0, 'd')];
    letters.iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| *letter).collect()
}

#[test]
fn every_cell_is_as_the_rfcs_say() {
    let mut results = Results::default();
    for &(irs, iss) in NUMBERS {
        for window in Window::iter() {
            let mut bench = Bench::new(window, iss);
            for start in Start::iter() {
                for is_stamped in [false, true] {
                    let setting = Setting { start, window, is_stamped, irs };
                    if !is_possible(&setting) {
                        continue;
                    }
                    let tcb = bench.reach(&setting).expect("a way into the state");
                    bench.clear().expect("an end of the connection");
                    let segments = if is_stamped { stamped_segments(&tcb) } else { segments(&tcb) };
                    for seg in segments {
                        let played = results.play(&mut bench, &setting, &seg);
                        played.unwrap_or_else(|what| panic!("{setting:x?} <- {seg:x?}: {what}"));
                    }
                }
            }
        }
    }
    println!("{} cells", results.cells);
    for (departure, count) in DEPARTURES.iter().zip(&results.departed) {
        println!("{count:>7} x {}: {}", departure.name, departure.reason);
    }
    let wrong: Vec<String> =
        results.wrong.iter().map(|(kind, (count, what))| format!("{count} x {kind}\n  {what}")).collect();
    assert!(wrong.is_empty(), "{} kinds of cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let unshown = DEPARTURES.iter().zip(&results.departed).filter(|(_, count)| **count == 0);
    let unshown: Vec<&str> = unshown.map(|(departure, _)| departure.name).collect();
    assert!(unshown.is_empty(), "no cell shows these departures: {unshown:?}");
    assert!(results.cells > 100_000, "{} cells are too few to be all of them", results.cells);
}
