//! Bench: a shard in memory with one connection at a time, brought into a state by a conversation.

use std::net::SocketAddr;

use holdline::flows::{Capacity, FlowId, Storage};
use holdline::shard::{CloseHow, Config, Context, FlowView, Push, Service, Shard, Ticket};
use holdline::tcp::Time;

use super::super::frame::{Ends, build, parse};
use super::super::packet::{Packet, Tcp};
use super::super::script::CLIENT_PORT;
use super::super::script::Family;
use super::connection::{Answer, Seg, State, Tcb};
use super::setting::{Setting, Start, Window};

const ENDS: Ends = Ends::new(Family::Ipv4, PORT);
const PORT: u16 = 80;
const PORT_CLOSED: u16 = 81;
/// The window that the client offers.
pub const CLIENT_WINDOW: u16 = 50_000;
/// What is pushed where bytes of ours are to be in flight.
const PUSH_BYTES: usize = 1_000;
/// The client's timestamp clock.
pub const CLOCK: u32 = 0xffff_fff8;

/// What the stack did with a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Did {
    pub answers: Vec<Answer>,
    pub state: State,
    /// How many bytes the application has read, or could.
    pub taken: u32,
    /// How many pushed bytes are not acknowledged.
    pub unacked_bytes: u32,
}

/// Reads everything, or nothing until it is told to.
#[derive(Default)]
struct Application {
    reads: bool,
    received_bytes: u32,
}

impl Service for Application {
    fn received(&mut self, _context: &mut Context<'_>, _flow: FlowId, bytes: &[u8]) -> usize {
        let consumed = if self.reads { bytes.len() } else { 0 };
        self.received_bytes += consumed as u32;
        consumed
    }

    fn peer_closed(&mut self, _context: &mut Context<'_>, _flow: FlowId) {}
}

/// See the module.
pub struct Bench {
    shard: Shard<Application>,
    start: Time,
    now: Time,
    window: Window,
    /// The latest timestamp of the stack's.
    echo: u32,
    /// How many bytes were sent to fill the window.
    filled: u32,
}

impl Bench {
    /// A bench whose connections begin with this initial sequence number of ours.
    pub fn new(window: Window, iss: u32) -> Bench {
        let first = Time::from_ms(1_000);
        let setting = Setting { start: Start::SynReceived, window, is_stamped: false, irs: 7 };
        let mut probe = Bench::at(window, first);
        let seen = probe.reach(&setting).expect("a SYN is answered").snd_una;
        // The stack's own numbers come from a clock that goes on by one in 4 microseconds (MUST-8).
        Bench::at(window, Time(first.0 + 4 * u64::from(iss.wrapping_sub(seen))))
    }

    fn at(window: Window, start: Time) -> Bench {
        let mut config = Config::new(ENDS.server, 24, &[PORT]);
        config.mac = ENDS.server_mac;
        config.window_bytes = window.bytes();
        let storage = Storage::in_memory(Capacity::for_connections(100)).expect("memory");
        let application = Application { reads: window == Window::Open, received_bytes: 0 };
        let shard = Shard::new(config, storage, application, [7; 32], start).expect("it starts");
        Bench { shard, start, now: start, window, echo: 0, filled: 0 }
    }

    /// Sends a segment and returns what comes out.
    fn exchange(&mut self, port: u16, seg: &Seg, window: u16) -> Result<Vec<Tcp>, String> {
        let tcp = Tcp {
            server_port: Some(port),
            syn: seg.syn,
            fin: seg.fin,
            rst: seg.rst,
            psh: seg.psh,
            urgent: seg.urg.then_some(seg.text as u16),
            seq: Some(seg.seq),
            ack: seg.ack,
            bytes: seg.text,
            window: Some(window),
            mss: seg.syn.then_some(1460),
            timestamps: seg.stamp.map(|stamp| (stamp, self.echo)),
            ..Tcp::default()
        };
        let frame = build(&Packet::Tcp(tcp), &ENDS, &vec![b'x'; seg.text as usize]);
        self.shard.receive(self.now, &[&frame]);
        self.came()
    }

    fn came(&mut self) -> Result<Vec<Tcp>, String> {
        let mut frames = Vec::new();
        self.shard.transmit(|frame| {
            frames.push(frame.to_vec());
            true
        });
        let mut came = Vec::new();
        for frame in frames {
            match parse(&frame, &ENDS)? {
                (Packet::Tcp(tcp), ..) => {
                    self.echo = tcp.timestamps.map_or(self.echo, |(value, _)| value);
                    came.push(tcp);
                }
                (Packet::Arp { is_request: true, .. }, ..) => {}
                (other, ..) => return Err(format!("{other} came out")),
            }
        }
        Ok(came)
    }

    fn view(&self) -> Option<FlowView> {
        let mut found = None;
        self.shard.flows(self.now, 0, |view| {
            found = Some(view);
            false
        });
        found
    }

    fn close(&mut self, how: CloseHow) {
        let id = self.view().expect("a connection").id;
        self.shard.close(self.now, id, how).expect("it is open");
    }

    fn push(&mut self) {
        let id = self.view().expect("a connection").id;
        self.shard.push(self.now, &[Push::new(id, Ticket::NONE, &[b'y'; PUSH_BYTES])]);
    }

    /// Brings a connection into the state of the setting.
    pub fn reach(&mut self, setting: &Setting) -> Result<Tcb, String> {
        let state = setting.start.state();
        let mut tcb = Tcb {
            state,
            is_active: matches!(setting.start, Start::SynSent | Start::SynReceivedActive),
            is_orphan: matches!(setting.start, Start::FinWait1Orphan | Start::FinWait2Orphan),
            snd_una: 0x1111_2222,
            snd_nxt: 0x1111_2222,
            snd_wnd_max: u32::from(CLIENT_WINDOW),
            rcv_nxt: setting.irs,
            rcv_wnd: 0,
            irs: setting.irs,
            ts_recent: None,
        };
        if matches!(setting.start, Start::Closed | Start::Listen) {
            return Ok(tcb);
        }
        let stamp = setting.is_stamped.then_some(CLOCK);
        if tcb.is_active {
            tcb.snd_una = self.connect()?;
            tcb.snd_nxt = tcb.snd_una.wrapping_add(1);
            tcb.rcv_wnd = self.window.bytes();
        }
        if setting.start == Start::SynSent {
            return Ok(tcb);
        }
        tcb.ts_recent = stamp;
        let syn = Seg { seq: setting.irs, syn: true, stamp, ..Seg::default() };
        let answers = self.exchange(PORT, &syn, CLIENT_WINDOW)?;
        let [Tcp { syn: true, seq: Some(iss), .. }] = answers[..] else {
            return Err(format!("a SYN is answered by {answers:?}"));
        };
        (tcb.snd_una, tcb.snd_nxt) = (iss, iss.wrapping_add(1));
        tcb.rcv_nxt = setting.irs.wrapping_add(1);
        let edge = tcb.rcv_nxt.wrapping_add(self.window.bytes());
        if state != State::SynReceived {
            self.open(&mut tcb, stamp)?;
            self.go_on(setting.start, &mut tcb, stamp)?;
        }
        tcb.rcv_wnd = (edge.wrapping_sub(tcb.rcv_nxt) as i32).max(0) as u32;
        let reached = self.state();
        if reached != state {
            return Err(format!("the way to {state} leads to {reached}"));
        }
        Ok(tcb)
    }

    /// Asks the client for a connection. Returns our initial sequence number.
    fn connect(&mut self) -> Result<u32, String> {
        let client = SocketAddr::new(ENDS.client, CLIENT_PORT);
        self.shard.connect(self.now, None, PORT, client).map_err(|error| error.to_string())?;
        let mut came = self.came()?;
        if came.is_empty() {
            // It asks where the client is first.
            let answer = Packet::Arp { is_request: false, address: ENDS.client, faults: Vec::new() };
            self.shard.receive(self.now, &[&build(&answer, &ENDS, &[])]);
            came = self.came()?;
        }
        match came[..] {
            [Tcp { syn: true, ack: None, seq: Some(iss), .. }] => Ok(iss),
            _ => Err(format!("a connection is asked for by {came:?}")),
        }
    }

    /// Completes the handshake and fills the window as far as it is to be filled.
    fn open(&mut self, tcb: &mut Tcb, stamp: Option<u32>) -> Result<(), String> {
        tcb.snd_una = tcb.snd_nxt;
        let ack = Seg { seq: tcb.rcv_nxt, ack: Some(tcb.snd_nxt), stamp, ..Seg::default() };
        self.exchange(PORT, &ack, CLIENT_WINDOW)?;
        self.filled = self.window.bytes() - self.window.left();
        for part in [self.filled / 2, self.filled.div_ceil(2)] {
            if part > 0 {
                let data = Seg { seq: tcb.rcv_nxt, text: part, ..ack };
                self.exchange(PORT, &data, CLIENT_WINDOW)?;
                tcb.rcv_nxt = tcb.rcv_nxt.wrapping_add(part);
            }
        }
        Ok(())
    }

    /// Goes on from ESTABLISHED.
    fn go_on(&mut self, start: Start, tcb: &mut Tcb, stamp: Option<u32>) -> Result<(), String> {
        use Start::{
            CloseWait, CloseWaitSending, Closing, FinWait1, FinWait1Sending, FinWait2, FinWait2Orphan, LastAck,
            Sending, TimeWait,
        };
        let peer_closes_first = matches!(start, CloseWait | CloseWaitSending | LastAck);
        if peer_closes_first {
            self.peer_closes(tcb, stamp)?;
        }
        if matches!(start, Sending | FinWait1Sending | CloseWaitSending) {
            self.push();
            tcb.snd_nxt = tcb.snd_nxt.wrapping_add(PUSH_BYTES as u32);
        }
        if matches!(start, FinWait1 | FinWait1Sending | FinWait2 | Closing | LastAck | TimeWait) {
            self.close(CloseHow::Half);
            tcb.snd_nxt = tcb.snd_nxt.wrapping_add(1);
        }
        if tcb.is_orphan {
            self.close(CloseHow::Fin);
            tcb.snd_nxt = tcb.snd_nxt.wrapping_add(1);
        }
        self.came()?;
        if matches!(start, FinWait2 | FinWait2Orphan | TimeWait) {
            tcb.snd_una = tcb.snd_nxt;
            let ack = Seg { seq: tcb.rcv_nxt, ack: Some(tcb.snd_nxt), stamp, ..Seg::default() };
            self.exchange(PORT, &ack, CLIENT_WINDOW)?;
        }
        if matches!(start, Closing | TimeWait) {
            self.peer_closes(tcb, stamp)?;
        }
        Ok(())
    }

    fn peer_closes(&mut self, tcb: &mut Tcb, stamp: Option<u32>) -> Result<(), String> {
        let fin = Seg { seq: tcb.rcv_nxt, ack: Some(tcb.snd_una), fin: true, stamp, ..Seg::default() };
        self.exchange(PORT, &fin, CLIENT_WINDOW)?;
        tcb.rcv_nxt = tcb.rcv_nxt.wrapping_add(1);
        Ok(())
    }

    /// The state of the one connection.
    fn state(&self) -> State {
        use holdline::tcp::State as Ours;
        match self.view().map(|view| view.state) {
            None | Some(Ours::Free) => State::Closed,
            Some(Ours::SynSent) => State::SynSent,
            Some(Ours::SynReceived) => State::SynReceived,
            Some(Ours::Established) => State::Established,
            Some(Ours::FinWait1) => State::FinWait1,
            Some(Ours::FinWait2) => State::FinWait2,
            Some(Ours::CloseWait) => State::CloseWait,
            Some(Ours::Closing) => State::Closing,
            Some(Ours::LastAck) => State::LastAck,
            Some(Ours::TimeWait) => State::TimeWait,
        }
    }

    /// Sends the segment of a cell. `may_be_late`: its answer is waited for.
    pub fn send(&mut self, setting: &Setting, tcb: &Tcb, seg: &Seg, may_be_late: bool) -> Result<Did, String> {
        let port = if setting.start == Start::Closed { PORT_CLOSED } else { PORT };
        let mut came = self.exchange(port, seg, CLIENT_WINDOW)?;
        if came.is_empty() && may_be_late {
            came = self.wait()?;
        }
        let answers = came.iter().map(|tcp| answer(tcp, tcb)).collect::<Result<_, _>>()?;
        let state = self.state();
        let unacked_bytes = self.view().map_or(0, |view| view.unacked_bytes);
        // What waits in a connection that has ended is gone with it.
        let taken = self.read_all().saturating_sub(self.filled);
        Ok(Did { answers, state, taken, unacked_bytes })
    }

    /// What comes within half a second at first. What is sent again meanwhile is none of it.
    fn wait(&mut self) -> Result<Vec<Tcp>, String> {
        let end = self.now.plus_ms(499);
        while let Some(deadline) = self.shard.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.shard.tick(self.now);
            let came: Vec<Tcp> = self.came()?.into_iter().filter(|tcp| tcp.bytes == 0 && !tcp.fin).collect();
            if !came.is_empty() {
                return Ok(came);
            }
        }
        Ok(Vec::new())
    }

    /// How many bytes were received, those included that have waited.
    fn read_all(&mut self) -> u32 {
        self.shard.service_mut().reads = true;
        if let Some(view) = self.view() {
            self.shard.offer(self.now, view.id);
        }
        self.shard.service().received_bytes
    }

    /// Ends the connection, so that the next cell finds the bench empty.
    pub fn clear(&mut self) -> Result<(), String> {
        if let Some(view) = self.view() {
            self.shard.close(self.now, view.id, CloseHow::Reset).map_err(|error| error.to_string())?;
        }
        self.came()?;
        if self.now != self.start {
            *self = Bench::at(self.window, self.start);
        }
        *self.shard.service_mut() = Application { reads: self.window == Window::Open, received_bytes: 0 };
        self.filled = 0;
        let stats = self.shard.stats();
        match (stats.flows, stats.actives, stats.spans, stats.blocks) {
            (0, 0, 0, 0) => Ok(()),
            left => Err(format!("of flows, active blocks, spans and payload blocks {left:?} are left")),
        }
    }
}

/// What came out, as the oracle speaks of it.
fn answer(tcp: &Tcp, tcb: &Tcb) -> Result<Answer, String> {
    let seq = tcp.seq.ok_or("a segment without a sequence number")?;
    match (tcp.syn, tcp.rst, tcp.fin, tcp.ack, tcp.bytes) {
        (false, false, false, Some(ack), 0) => Ok(Answer::Ack { seq, ack }),
        (false, true, false, None, 0) => Ok(Answer::Rst { seq }),
        (false, true, false, Some(ack), 0) if seq == 0 => Ok(Answer::RstAck { ack }),
        (true, false, false, Some(ack), 0) if tcb.state == State::SynReceived && tcb.snd_una == seq => {
            Ok(Answer::SynAckAgain { ack })
        }
        (true, false, false, Some(ack), 0) => Ok(Answer::SynAck { ack }),
        _ => Err(format!("{tcp} is no answer")),
    }
}
