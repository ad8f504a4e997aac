//! Faults by name, as they are counted: each time that one strikes.

use strum::EnumCount;

/// What goes wrong in a world. `Display` is how it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, strum::Display, strum::EnumCount, strum::EnumIter)]
#[strum(serialize_all = "lowercase")]
pub enum Fault {
    /// A frame is lost: in the network, at an unplugged cable, or at a machine that is down.
    Lost,
    /// A frame is lost in a row with others.
    #[strum(to_string = "lost in bursts")]
    LostInBurst,
    /// A frame arrives twice.
    Duplicated,
    /// A frame is held back for a time, so that later ones overtake it.
    #[strum(to_string = "held back")]
    HeldBack,
    /// A frame is held back until a number of later ones have overtaken it.
    Overtaken,
    /// A frame has a bit flipped.
    Corrupted,
    /// A frame is larger than the path takes at the time, and vanishes.
    #[strum(to_string = "too large")]
    TooLarge,
    /// The node's link takes no more frames for a while.
    #[strum(to_string = "times link full")]
    LinkFull,
    /// The node's ring of received frames has no room for one more.
    #[strum(to_string = "ring full")]
    RingFull,
    /// A middlebox takes options out of a segment.
    #[strum(to_string = "stripped of options")]
    OptionsStripped,
    /// A middlebox lowers the MSS that a SYN names.
    #[strum(to_string = "MSS clamped")]
    MssClamped,
    /// A middlebox drops an ACK, as others will follow.
    #[strum(to_string = "ACKs thinned")]
    AckThinned,
    /// A middlebox has held an ACK back, and drops it as a later one has come.
    #[strum(to_string = "ACKs compressed")]
    AckCompressed,
    /// A middlebox clears the bits of congestion notification.
    #[strum(to_string = "ECN cleared")]
    EcnCleared,
    /// A queue marks a segment as having met congestion.
    #[strum(to_string = "ECN marked")]
    EcnMarked,
    /// A middlebox drops a segment for its bits of congestion notification.
    #[strum(to_string = "ECN dropped")]
    EcnDropped,
    /// The node's clock stands still, and then leaps.
    #[strum(to_string = "clock stopped")]
    ClockStopped,
    /// The node does nothing at all for a while.
    #[strum(to_string = "machine paused")]
    Paused,
    /// The node is called later than it asked for.
    #[strum(to_string = "late ticks")]
    TickLate,
}

/// How often each fault struck.
pub type Faults = [u64; Fault::COUNT];
