//! Connections and segments in plain numbers, as the RFCs speak of them.

/// The states of RFC 9293 §3.3.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::Display)]
#[strum(serialize_all = "SCREAMING-KEBAB-CASE")]
pub enum State {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    #[strum(to_string = "FIN-WAIT-1")]
    FinWait1,
    #[strum(to_string = "FIN-WAIT-2")]
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct Tcb {
    pub state: State,
    /// It was opened by us.
    pub is_active: bool,
    /// The application has closed and reads nothing any more.
    pub is_orphan: bool,
    pub snd_una: u32,
    pub snd_nxt: u32,
    /// The largest window that the peer ever offered (MAX.SND.WND of RFC 5961 §5).
    pub snd_wnd_max: u32,
    pub rcv_nxt: u32,
    pub rcv_wnd: u32,
    pub irs: u32,
    /// TS.Recent, where timestamps were agreed on.
    pub ts_recent: Option<u32>,
}

/// A segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seg {
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub urg: bool,
    pub psh: bool,
    pub text: u32,
    pub stamp: Option<u32>,
}

impl Seg {
    /// SEG.LEN.
    pub fn len(&self) -> u32 {
        self.text + u32::from(self.syn) + u32::from(self.fin)
    }
}

/// A segment that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`
    Ack { seq: u32, ack: u32 },
    /// `<SEQ=seq><CTL=RST>`
    Rst { seq: u32 },
    /// `<SEQ=0><ACK=ack><CTL=RST,ACK>`
    RstAck { ack: u32 },
    /// `<SEQ=ISS><ACK=ack><CTL=SYN,ACK>` for a new connection.
    SynAck { ack: u32 },
    /// The SYN-ACK of this connection again.
    SynAckAgain { ack: u32 },
}

/// What follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub answer: Option<Answer>,
    /// The answer is an ACK of data or FIN, which may come within half a second (MUST-40).
    pub may_be_late: bool,
    pub state: State,
    /// How many bytes of data are taken.
    pub taken: u32,
    pub snd_una: u32,
}
