//! skeleton
mod seq; mod time;
pub use seq::SeqNum; pub use time::Time;
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::Display, strum::IntoStaticStr)]
pub enum State {
    #[strum(to_string = "FREE")] Free,
    #[strum(to_string = "SYN-RECEIVED")] SynReceived,
    #[strum(to_string = "ESTABLISHED")] Established,
    #[strum(to_string = "FIN-WAIT-1")] FinWait1,
    #[strum(to_string = "FIN-WAIT-2")] FinWait2,
    #[strum(to_string = "CLOSE-WAIT")] CloseWait,
    #[strum(to_string = "CLOSING")] Closing,
    #[strum(to_string = "LAST-ACK")] LastAck,
    #[strum(to_string = "TIME-WAIT")] TimeWait,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::Display, strum::IntoStaticStr)]
pub enum CloseReason { BothClosed, PeerReset, Aborted, TimedOut, HandshakeFailed }
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, strum::EnumIter, strum::IntoStaticStr, strum::EnumCount)]
pub enum Rule { ListenAcceptsSyn, ListenRejectsAck, ListenIgnoresReset, ClosedResets }
