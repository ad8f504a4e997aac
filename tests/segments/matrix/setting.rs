//! Settings: what a cell begins with, beside its segment.

use super::connection::State;

/// A way into a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::EnumIter)]
pub enum Start {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    /// SYN-RECEIVED, where both ends have opened at the same time.
    SynReceivedActive,
    Established,
    /// ESTABLISHED, bytes of ours in flight.
    Sending,
    FinWait1,
    /// FIN-WAIT-1, bytes of ours in flight before the FIN.
    FinWait1Sending,
    FinWait2,
    /// FIN-WAIT-1 and FIN-WAIT-2 where the application is not there any more to read.
    FinWait1Orphan,
    FinWait2Orphan,
    CloseWait,
    CloseWaitSending,
    Closing,
    LastAck,
    TimeWait,
}

/// How much of the receive window is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::EnumIter)]
pub enum Window {
    Open,
    /// A few bytes.
    Narrow,
    Shut,
}

/// What one cell begins with, beside its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    pub start: Start,
    pub window: Window,
    pub is_stamped: bool,
    /// The client's initial sequence number.
    pub irs: u32,
}

impl Window {
    /// How large it is at first.
    pub fn bytes(self) -> u32 {
        match self {
            Window::Open => 60_000,
            Window::Narrow | Window::Shut => 2_000,
        }
    }

    /// How much of it is left when the cell begins.
    pub fn left(self) -> u32 {
        match self {
            Window::Open => 60_000,
            Window::Narrow => 5,
            Window::Shut => 0,
        }
    }
}

impl Start {
    pub fn state(self) -> State {
        match self {
            Start::Closed => State::Closed,
            Start::Listen => State::Listen,
            Start::SynSent => State::SynSent,
            Start::SynReceived | Start::SynReceivedActive => State::SynReceived,
            Start::Established | Start::Sending => State::Established,
            Start::FinWait1 | Start::FinWait1Sending | Start::FinWait1Orphan => State::FinWait1,
            Start::FinWait2 | Start::FinWait2Orphan => State::FinWait2,
            Start::CloseWait | Start::CloseWaitSending => State::CloseWait,
            Start::Closing => State::Closing,
            Start::LastAck => State::LastAck,
            Start::TimeWait => State::TimeWait,
        }
    }
}
