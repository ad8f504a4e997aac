//! Rules: every outcome of the machine by name.
//!
//! One variant for each clause of an RFC, or of our own policy where the RFCs leave it open. A rule is counted once for
//! each segment, timer or frame that it decided; traces, scripts and tests speak of rules by these names.
//!
//! Invariant: a rule that no test exercises fails the tests.

/// What decided the fate of one segment, timer or frame.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, strum::EnumIter, strum::EnumCount, strum::IntoStaticStr, strum::EnumString,
)]
#[repr(u8)]
pub enum Rule {
    // Frames that never become a segment.
    /// A frame, header or option list that ends before its own length says, or a field with an impossible value.
    FrameMalformed,
    /// An IPv4 header checksum that is wrong. RFC 1122 §3.2.1.2.
    Ipv4Checksum,
    /// A TCP checksum that is wrong. MUST-3.
    TcpChecksum,
    /// A frame for another machine, or of a protocol that we do not speak.
    FrameNotForUs,
    /// An IPv4 packet with a source route: dropped. RFC 7126 §4.3 and §4.4.
    Ipv4SourceRoute,
    /// A fragment is kept until its packet is whole. RFC 791 §3.2, RFC 8200 §4.5.
    FragmentHeld,
    /// A fragment makes its packet whole, which is taken as if it had come so. RFC 791 §3.2, RFC 8200 §4.5.
    FragmentCompletes,
    /// A fragment that is here already: dropped. RFC 8200 §4.5.
    FragmentRepeated,
    /// A fragment that overlaps another, or lies beyond the last: the packet is refused, and what still comes of it.
    /// RFC 5722 §4, RFC 1858 §5.
    FragmentOverlaps,
    /// A first fragment without all of the TCP header, or one that lies in it: dropped. RFC 1858 §3, RFC 3128, RFC 7112
    /// §5.
    FragmentTiny,
    /// A packet in more than 64 fragments: it is refused. Policy, on RFC 791 §3.2.
    FragmentTooMany,
    /// A packet that is not whole makes room for another. Policy, on RFC 791 §3.2.
    FragmentEvicted,
    /// A packet that was not whole after 30 seconds is given up. RFC 1122 §3.3.2, RFC 8200 §4.5.
    FragmentExpired,
    /// An IPv6 packet with a header that may not be skipped, or too many of them, whose sender is not told: dropped.
    /// RFC 8200 §4.2, RFC 8504 §5.3.
    Ipv6HeaderRefused,
    /// An IPv6 packet with a header that may not be skipped: its sender is told by a parameter problem. RFC 8200 §4.
    Ipv6ProblemTold,
    /// An IPv6 packet whose sender is not told of its problem, as so many were told just now. RFC 4443 §2.4 (f).
    Ipv6ProblemThrottled,
    /// A source address that cannot be a peer: multicast, broadcast, loopback, unspecified, an IPv4 one in IPv6 or our
    /// own. MUST-63, RFC 1122 §3.2.1.3, RFC 4291 §2.5.
    SourceAddressInvalid,
    /// An ARP request for one of our addresses is answered. RFC 826.
    ArpAnswers,
    /// An ARP packet that teaches where the gateway is. RFC 826.
    ArpLearns,
    /// An ARP packet that asks or says nothing that concerns us.
    ArpIgnored,
    /// A neighbour's question for one of our addresses is answered. RFC 4861 §7.2.4.
    NeighborAnswers,
    /// A neighbour's message that teaches where a next hop is, or that it still is. RFC 4861 §7.2.5.
    NeighborLearns,
    /// A message of neighbour discovery that fails its checks, or concerns nobody here. RFC 4861 §6.1.2 and §7.1.
    NeighborIgnored,
    /// A router's advertisement is taken. RFC 4861 §6.3.4.
    RouterLearns,
    /// An ICMP echo request is answered. RFC 1122 §3.2.2.6, RFC 4443 §4.2.
    IcmpEchoAnswers,
    /// An ICMP message that asks for nothing, concerns nothing in flight, or whose checksum is wrong. RFC 5927 §4.1,
    /// MUST-55.
    IcmpIgnored,
    /// An ICMP error about a connection: the application is told, the connection stays. RFC 5927 §5.2, MUST-54,
    /// MUST-56.
    IcmpSoftError,
    /// An ICMP message says that a segment in flight was too large for its path: segments become smaller and what is in
    /// flight goes again. RFC 1191 §6.4, RFC 8201 §5.4.
    PathMtuLowered,
    /// The same, but segments of that size have arrived: it waits for a time-out. RFC 5927 §7.2.
    PathMtuDoubted,
    /// A path MTU below what every path takes, or none: not believed. RFC 8201 §4, RFC 5927 §7.2.
    PathMtuTooSmall,
    /// A path MTU that the segment would have fitted in: not believed. RFC 5927 §7.2.
    PathMtuNotSmaller,
    /// An ICMP error about a connection that we have asked for: it cannot be had. RFC 9293 §3.9.2.2 (SHLD-26).
    IcmpAbortsOpen,

    // No connection has this tuple.
    /// LISTEN, first check: an RST is ignored. RFC 9293 §3.10.7.2.
    ListenIgnoresReset,
    /// LISTEN, second check: an ACK is answered by RST. RFC 9293 §3.10.7.2.
    ListenRejectsAck,
    /// LISTEN, third check: a SYN opens a connection. RFC 9293 §3.10.7.2.
    ListenAcceptsSyn,
    /// LISTEN, fourth: anything else, SYN with FIN included, is dropped. RFC 9293 §3.10.7.2.
    ListenDropsOther,
    /// A SYN that finds no room for a half-open connection is answered by a cookie, and nothing is kept. RFC 4987 §3.6.
    ListenSendsCookie,
    /// LISTEN, second check: an ACK brings back a cookie and opens a connection. RFC 4987 §3.6.
    CookieAccepted,
    /// An ACK brings back a cookie, but there is no room for the connection: RST, so that the peer knows.
    CookieNoRoom,
    /// A SYN that finds no room for a flow or a next hop, or may not be answered by a cookie, is dropped; the peer asks
    /// again.
    ListenNoRoom,
    /// A SYN that comes while the server drains is answered by RST.
    ListenDraining,
    /// CLOSED: any segment but RST is answered by RST. RFC 9293 §3.10.7.1.
    ClosedResets,
    /// CLOSED: an RST is dropped. RFC 9293 §3.10.7.1.
    ClosedIgnoresReset,

    // SYN-SENT. RFC 9293 §3.10.7.3.
    /// SYN-SENT, first check: an ACK of something we never sent; RST.
    SynSentAckRejected,
    /// SYN-SENT, second check: an RST that acknowledges our SYN; the connection is refused.
    SynSentRefused,
    /// SYN-SENT, second check: an RST that acknowledges nothing of ours; dropped.
    SynSentIgnoresReset,
    /// SYN-SENT, fourth check: SYN and ACK; the connection is established.
    SynSentEstablished,
    /// SYN-SENT, fourth check: a SYN alone; both ends open at the same time. RFC 9293 §3.5 (MUST-10).
    SynSentSimultaneous,
    /// SYN-SENT, fifth: neither SYN nor RST; dropped.
    SynSentDropsOther,

    // Segment arrives, in the RFC's order. RFC 9293 §3.10.7.4.
    /// Before the first check: a timestamp older than the latest; answered by an ACK (PAWS). RFC 7323 §5.3.
    TimestampTooOld,
    /// Before the first check: no timestamp, though both ends have agreed on them; dropped. RFC 7323 §3.2.
    TimestampMissing,
    /// First check: outside the window; answered by an ACK.
    SequenceUnacceptable,
    /// First check: outside the window with RST; dropped silently.
    ResetOutsideWindow,
    /// Second check: an RST on exactly RCV.NXT ends the connection. RFC 5961 §3.2.
    ResetAccepted,
    /// Second check: an RST in the window but not on its edge; challenge ACK. RFC 5961 §3.2.
    ResetChallenged,
    /// Fourth check: a SYN; challenge ACK. RFC 5961 §4.2.
    SynChallenged,
    /// Fourth check in SYN-RECEIVED: the peer's SYN again; our SYN-ACK again.
    SynRepeated,
    /// Fourth check in TIME-WAIT: a SYN beyond the old connection opens a new one. RFC 9293 §3.6.1 (MAY-2).
    TimeWaitReopened,
    /// A challenge ACK that is not sent because one was sent within the last second. RFC 5961 §7.
    ChallengeThrottled,
    /// Fifth check: the ACK bit is off; dropped.
    AckMissing,
    /// Fifth check in SYN-RECEIVED: an acknowledgment of something we never sent; RST.
    HandshakeAckRejected,
    /// Fifth check in SYN-RECEIVED: the handshake is complete.
    HandshakeCompleted,
    /// Fifth check: an acknowledgment of something not yet sent; ACK and drop. RFC 5961 §5.
    AckOfUnsent,
    /// Fifth check: an acknowledgment older than the largest window that the peer ever offered; ACK and drop. RFC 5961
    /// §5.
    AckTooOld,
    /// Fifth check: bytes or a FIN of ours are acknowledged for the first time.
    AckAdvances,
    /// Fifth check: nothing new is acknowledged; at most the window changes.
    AckRepeats,
    /// Seventh: in-order payload is taken.
    PayloadAccepted,
    /// Seventh: payload that begins right of RCV.NXT; acknowledged at once so that the peer sends what is missing. RFC
    /// 5681 §4.2.
    PayloadOutOfOrder,
    /// Seventh: payload that begins right of RCV.NXT is kept until it is in order. RFC 9293 §3.10.7.4 (SHLD-31).
    PayloadHeld,
    /// Seventh: payload for which there is no room in the arena; not acknowledged, the peer sends it again.
    PayloadNoRoom,
    /// Seventh: payload after the peer's FIN; ignored, and acknowledged in TIME-WAIT only.
    PayloadAfterFin,
    /// Sixth: urgent data is announced, and the application told. RFC 9293 §3.8.5 (MUST-32).
    UrgentAnnounced,
    /// Seventh: new data in FIN-WAIT-2 after the application has closed for good; RST, so that the peer knows it is
    /// lost. RFC 9293 §3.6.1 (SHLD-3).
    DataAfterClose,
    /// Eighth: the peer's FIN is taken.
    FinAccepted,
    /// TIME-WAIT: the peer's FIN again; acknowledged, and 2 MSL start anew. RFC 9293 §3.10.7.4.
    TimeWaitRestarted,
    /// TIME-WAIT: an RST is ignored. RFC 1337 §3.
    TimeWaitIgnoresReset,

    // Timers.
    /// The retransmission timer has expired: the oldest segment again, one segment in flight. RFC 6298 §5.4 to 5.6.
    RetransmissionTimeout,
    /// The same while a path MTU was doubted: it is believed now. RFC 5927 §7.2.
    PathMtuConfirmed,
    /// The third in a row, and what is in flight is large: smaller segments may get through. RFC 4821 §7.7.
    BlackHoleSuspected,
    /// Segments that were overtaken are late for longer than the path reorders: they are lost. RFC 8985 §6.3.
    LateSegmentsLost,
    /// A peer has not filled a gap for two minutes: what is held behind it is given up. RFC 2018 §8.
    HeldGivenUp,
    /// Nothing is heard of the end of what was sent: one more segment, to find out. RFC 8985 §7.3.
    TailProbed,
    /// The peer's window is closed and data waits: probe it. RFC 9293 §3.8.6.1.
    WindowProbe,
    /// The peer's window has room for a small segment only, and time has run out: it is sent. RFC 9293 §3.8.6.2.1.
    SillyWindowOverridden,
    /// The same bytes went unacknowledged for the user timeout: the connection is given up. RFC 9293 §3.8.3 (R2).
    RetransmissionGivenUp,
    /// An ACK has waited long enough for something that it could go with. RFC 9293 §3.8.6.3 (MUST-40).
    DelayedAckSent,
    /// A SYN or SYN-ACK was repeated as often as it may be: closed, or back to LISTEN. RFC 9293 §3.8.3 (MUST-23).
    HandshakeGivenUp,
    /// Many connections are half open, and this one's SYN-ACK was repeated in vain: back to LISTEN. RFC 4987 §3.3.
    HandshakeCutShort,
    /// TIME-WAIT is over. RFC 9293 §3.10.8.
    TimeWaitExpired,
    /// FIN-WAIT-2 has waited for the peer's FIN long enough.
    FinWait2Expired,
    /// Nothing was heard for the keepalive interval: the peer is asked. RFC 9293 §3.8.4.
    KeepaliveProbe,
    /// So many keepalive probes went unanswered: RST. RFC 9293 §3.8.4.
    KeepaliveGivenUp,
    /// Nothing was heard for the idle time-out: RST.
    IdleExpired,

    // Congestion that the network tells of. These count beside what decided the fate of the segment.
    /// The handshake has agreed on ECN. RFC 3168 §6.1.1.
    EcnAgreed,
    /// Payload was marked on its way (CE): ECE is sent until the peer has reduced its window. RFC 3168 §6.1.3.
    CongestionMarked,
    /// The peer has reduced its window (CWR): ECE is sent no longer. RFC 3168 §6.1.3.
    CongestionAnswered,
    /// The peer says that something of ours was marked (ECE): the window is reduced, once for all that is in flight.
    /// RFC 3168 §6.1.2.
    CongestionEchoed,

    // The application.
    /// A push was queued.
    PushQueued,
    /// A push was refused.
    PushRefused,
    /// A push whose key is known is answered as the first one with that key, and not queued.
    PushRepeated,
    /// A push expired before its first byte was sent, and is dropped.
    PushExpired,
    /// The application stops reading.
    Paused,
    /// The application reads again.
    Resumed,
    /// The application opens a connection: SYN. RFC 9293 §3.10.1.
    ConnectBegun,
    /// The application closes: FIN after what is queued. RFC 9293 §3.10.4.
    CloseQueued,
    /// The application aborts: RST. RFC 9293 §3.10.5.
    AbortSent,
}
