//! Conversations: cases that are played to both stacks in lockstep, and what is seen of them.
//!
//! A case is a list of steps on a connection of its own. Many cases are played at once, each from another client port:
//! first the first step of each, then the second. After every step the answers and the states are compared; a case
//! ends at a difference that leaves the stacks with two minds on where the connection stands.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::answer::{self, Answer};
use super::crafted::{ACK, Ack, Place, Segment, Seq, View};
use super::stack::Stack;

/// One step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The client sends a segment.
    Send(Segment),
    /// The client sends data until the window is closed. The windows differ, so only the state is compared.
    Fill,
    /// The server's application closes its direction, and goes on reading.
    Close,
    /// The server's application closes both.
    CloseBoth,
    /// The server's application sends so many bytes.
    Push(u16),
}

impl Step {
    /// The segment that the client sends, if it sends one.
    pub fn segment(&self) -> Option<&Segment> {
        match self {
            Step::Send(segment) => Some(segment),
            Step::Fill | Step::Close | Step::CloseBoth | Step::Push(_) => None,
        }
    }

    /// Puts a timestamp of now on the segment.
    pub fn stamp(&mut self) {
        if let Step::Send(segment) = self {
            segment.stamp = Some(0);
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Send(segment) => write!(f, "{segment}"),
            Step::Fill => write!(f, "data until the window is closed"),
            Step::Close => write!(f, "the application closes its direction"),
            Step::CloseBoth => write!(f, "the application closes"),
            Step::Push(bytes) => write!(f, "the application sends {bytes}"),
        }
    }
}

/// A conversation on one connection.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub server_port: u16,
    /// The client's initial sequence number.
    pub start: u32,
    pub steps: Vec<Step>,
}

/// What one stack did at a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Did {
    pub answers: Vec<Answer>,
    /// The state afterwards.
    pub state: String,
    /// What its application could read, at the last step of a case.
    pub read: Option<Vec<u8>>,
}

impl Did {
    /// The same without these control bits.
    pub fn without(&self, bits: u8) -> Did {
        let mut did = self.clone();
        for answer in &mut did.answers {
            if let Answer::Tcp { control, .. } = answer {
                *control &= !bits;
            }
        }
        did
    }

    pub fn is_silent(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether it answered with nothing but one segment with exactly these control bits and no payload.
    pub fn is_only(&self, bits: u8) -> bool {
        matches!(&self.answers[..], [answer] if answer.is_bare(bits))
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers: Vec<String> = self.answers.iter().map(Answer::to_string).collect();
        let answers = if answers.is_empty() { "silence".to_owned() } else { answers.join(", ") };
        write!(f, "{answers}; {}", self.state)?;
        self.read.as_ref().map_or(Ok(()), |read| write!(f, "; {} bytes read", read.len()))
    }
}

/// A step at which the stacks differ.
#[derive(Clone, Debug)]
pub struct Difference {
    pub case: Case,
    /// Which step of the case.
    pub at: usize,
    /// The state before it, in which they agreed.
    pub state: String,
    /// Where its segment lies, as the kernel sees it.
    pub place: Place,
    pub kernel: Did,
    pub ours: Did,
}

impl Difference {
    pub fn step(&self) -> &Step {
        &self.case.steps[self.at]
    }

    /// The segment that was sent, if one was.
    pub fn segment(&self) -> Option<&Segment> {
        self.step().segment()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:", self.case.name)?;
        for step in &self.case.steps[..self.at] {
            writeln!(f, "    before: {step}")?;
        }
        writeln!(f, "  {} <- {}", self.state, self.step())?;
        writeln!(f, "    kernel: {}", self.kernel)?;
        write!(f, "    ours:   {}", self.ours)
    }
}

/// Options that holdline does not offer; what the kernel says in them is not compared.
const NOT_OFFERED: &[u8] = &[SACK_PERMITTED, SACK];
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// A case that is being played.
struct Player<'a> {
    case: &'a Case,
    port: u16,
    /// What the client knows of the kernel and of ours.
    views: [View; 2],
    state: String,
    /// Where the segment of its last step was put, as the kernel saw it.
    place: Place,
    is_over: bool,
}

/// Two stacks, and what has been compared so far.
pub struct Stage<'a> {
    /// The kernel and ours.
    pub stacks: [&'a mut dyn Stack; 2],
    /// The client port of the next case.
    pub next_port: u16,
    /// How long a batch may take: from then on the kernel repeats what was not acknowledged.
    pub batch_time_max: Duration,
    pub cases: usize,
    pub steps: usize,
}

const BATCH: usize = 128;
/// A client port is used once.
const PORT_FIRST: u16 = 1_024;

impl<'a> Stage<'a> {
    pub fn new(kernel: &'a mut dyn Stack, ours: &'a mut dyn Stack, batch_time_max: Duration) -> Stage<'a> {
        Stage { stacks: [kernel, ours], next_port: PORT_FIRST, batch_time_max, cases: 0, steps: 0 }
    }

    /// Plays cases; answers where the stacks differ.
    pub fn play(&mut self, cases: &[Case]) -> Vec<Difference> {
        let batches = cases.chunks(BATCH);
        batches.flat_map(|batch| self.play_in_time(batch)).collect()
    }

    /// Plays a batch, or smaller ones where this machine has other things to do: while it is played the kernel must not
    /// repeat itself.
    fn play_in_time(&mut self, batch: &[Case]) -> Vec<Difference> {
        let begun = Instant::now();
        let (steps, found) = self.play_batch(batch);
        if begun.elapsed() < self.batch_time_max {
            self.cases += batch.len();
            self.steps += steps;
            return found;
        }
        assert!(batch.len() > 1, "this machine is too busy: a single case takes {:?}", begun.elapsed());
        let (first, second) = batch.split_at(batch.len() / 2);
        [self.play_in_time(first), self.play_in_time(second)].concat()
    }

    /// Answers how many steps were compared, too.
    fn play_batch(&mut self, cases: &[Case]) -> (usize, Vec<Difference>) {
        let mut players: Vec<Player<'_>> = Vec::new();
        for case in cases {
            let port = self.next_port;
            self.next_port = port.checked_add(1).expect("there are not more cases than client ports");
            let views = [View::new(case.start); 2];
            players.push(Player {
                case,
                port,
                views,
                state: "CLOSED".to_owned(),
                place: Place::default(),
                is_over: false,
            });
        }
        let (mut steps, mut differences) = (0, Vec::new());
        let steps_max = cases.iter().map(|case| case.steps.len()).max().unwrap_or(0);
        for at in 0..steps_max {
            let kernel = self.step(0, at, &mut players);
            let ours = self.step(1, at, &mut players);
            for (player, (kernel, ours)) in players.iter_mut().zip(kernel.into_iter().zip(ours)) {
                if player.is_over || at >= player.case.steps.len() {
                    continue;
                }
                steps += 1;
                let before = std::mem::replace(&mut player.state, kernel.state.clone());
                let is_same = match player.case.steps[at] {
                    Step::Fill => kernel.state == ours.state,
                    Step::Send(_) | Step::Close | Step::CloseBoth | Step::Push(_) => kernel == ours,
                };
                if !is_same {
                    player.is_over = kernel.state != ours.state || !player.views[0].agrees(&player.views[1]);
                    let (case, place) = (player.case.clone(), player.place);
                    differences.push(Difference { case, at, state: before, place, kernel, ours });
                }
            }
        }
        for stack in &mut self.stacks {
            stack.forget();
        }
        (steps, differences)
    }

    /// Has all players make their step `at` with one of the stacks.
    fn step(&mut self, side: usize, at: usize, players: &mut [Player<'_>]) -> Vec<Did> {
        let stack = &mut *self.stacks[side];
        let before: Vec<View> = players.iter().map(|player| player.views[side]).collect();
        for player in players.iter_mut().filter(|player| !player.is_over) {
            match player.case.steps.get(at) {
                Some(Step::Send(segment)) => {
                    let ends = stack.ends(player.port, player.case.server_port);
                    if side == 0 {
                        player.place = player.views[side].place(segment);
                    }
                    let frame = player.views[side].frame(segment, &ends);
                    stack.inject(&frame);
                }
                Some(Step::Close) => stack.close(player.port),
                Some(Step::CloseBoth) => stack.close_both(player.port),
                Some(Step::Push(bytes)) => stack.push(player.port, *bytes),
                Some(Step::Fill) => fill(stack, &mut player.views[side], player.port, player.case.server_port),
                None => {}
            }
        }
        let mut answers = take_answers(stack, side, &before, players);
        let states: HashMap<u16, String> = stack.states().into_iter().collect();
        let mut did = Vec::new();
        for player in players.iter() {
            let state = states.get(&player.port).map_or("CLOSED", String::as_str).to_owned();
            let is_last = at + 1 == player.case.steps.len();
            let has_small_window = player.case.steps.contains(&Step::Fill);
            let read = (is_last && !has_small_window && !player.is_over).then(|| stack.read(player.port));
            did.push(Did { answers: answers.remove(&player.port).unwrap_or_default(), state, read });
        }
        did
    }
}

/// What came out for each client port.
fn take_answers(
    stack: &mut dyn Stack,
    side: usize,
    before: &[View],
    players: &mut [Player<'_>],
) -> HashMap<u16, Vec<Answer>> {
    let mut answers: HashMap<u16, Vec<Answer>> = HashMap::new();
    let first = players.first().map_or(0, |player| player.port);
    for came in stack.settle().iter().filter_map(|frame| answer::open(frame)) {
        let index = usize::from(came.port.wrapping_sub(first));
        // What belongs to an earlier batch is no answer of this one.
        if let Some(player) = players.get_mut(index) {
            let answer = came.answer(&before[index], &mut player.views[side]).without(NOT_OFFERED);
            answers.entry(came.port).or_default().push(answer);
        }
    }
    answers
}

/// Sends data until the window is closed, or gives up after some: then the states will show it.
fn fill(stack: &mut dyn Stack, view: &mut View, port: u16, server_port: u16) {
    const SEGMENT_BYTES: u32 = 1_000;
    const SEGMENTS_MAX: usize = 64;
    let ends = stack.ends(port, server_port);
    for _ in 0..SEGMENTS_MAX {
        let room = view.edge.wrapping_sub(view.rcv_nxt).min(SEGMENT_BYTES);
        if room == 0 {
            return;
        }
        let segment = Segment::new(ACK, Seq::Next(0), Some(Ack::Next(0))).payload(room as u16);
        let frame = view.frame(&segment, &ends);
        stack.inject(&frame);
        let before = *view;
        for came in stack.settle().iter().filter_map(|frame| answer::open(frame)).filter(|came| came.port == port) {
            came.answer(&before, view);
        }
    }
}
