//! Echo requests answered (RFC 1122 §3.2.2.6, RFC 4443 §4.2).
//!
//! In: a request, which may have come in fragments. Out: its answer, in fragments where it is larger than a packet of
//! the link.

use super::batch::Batch;
use crate::tcp::Rule;
use crate::wire::{self, Echo, FragmentId};

/// What every link and path of IPv6 takes (RFC 8200 §5): nobody tells us of the path of an echo.
const IPV6_MTU_MIN: u16 = 1_280;
const ETHERNET_BYTES: usize = 14;

impl Batch {
    pub(super) fn receive_echo(&mut self, echo: &Echo<'_>) {
        if self.tables.is_no_peer(echo.remote) {
            return self.tables.count(Rule::SourceAddressInvalid);
        }
        if !self.tables.is_ours_alone(echo.local) {
            return self.tables.count(Rule::FrameNotForUs);
        }
        self.tables.count(Rule::IcmpEchoAnswers);
        let (mac, ttl, mtu) = (self.tables.config.mac, self.tables.config.ttl, self.tables.config.mtu);
        let headers_bytes = ETHERNET_BYTES + if echo.remote.is_ipv4() { 20 } else { 40 };
        if headers_bytes + 4 + echo.body.len() <= ETHERNET_BYTES + usize::from(mtu) {
            self.gate.put_frame(self.number, |out| wire::emit_echo_reply(out, mac, ttl, echo));
            return self.count_frame(None);
        }
        let mut whole = Vec::new();
        wire::emit_echo_reply(&mut whole, mac, ttl, echo);
        let mtu = if echo.remote.is_ipv4() { mtu } else { IPV6_MTU_MIN };
        let number = self.frames_out as u32;
        let id = FragmentId { remote: echo.remote, local: echo.local, protocol: 0, number };
        let number = self.tables.number_of_packet(&id);
        let mut next = Some(0);
        while let Some(offset) = next {
            self.gate.put_frame(self.number, |out| next = wire::emit_fragment(out, &whole, mtu, number, offset));
            self.count_frame(None);
        }
    }
}
