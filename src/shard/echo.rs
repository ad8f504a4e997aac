//! Echo requests answered (RFC 1122 §3.2.2.6, RFC 4443 §4.2).
//!
//! In: a request, which may have come in fragments. Out: its answer, in fragments where it is larger than a packet of
//! the link.

use super::batch::Batch;
use super::config::MTU_MIN_IPV6;
use crate::tcp::Rule;
use crate::wire::field::{ipv4, ipv6};
use crate::wire::{self, Echo, FragmentId};

impl Batch {
    pub fn receive_echo(&mut self, echo: &Echo<'_>) {
        if self.tables.is_no_peer(echo.remote) {
            return self.tables.count(Rule::SourceAddressInvalid);
        }
        if !self.tables.is_ours_alone(echo.local) {
            return self.tables.count(Rule::FrameNotForUs);
        }
        self.tables.count(Rule::IcmpEchoAnswers);
        let (mac, ttl, mtu) = (self.tables.config.mac, self.tables.config.ttl, self.tables.config.mtu);
        let header_bytes = if echo.remote.is_ipv4() { ipv4::BYTES } else { ipv6::BYTES };
        if header_bytes + 4 + echo.body.len() <= usize::from(mtu) {
            return self.put_frame(|out| wire::emit_echo_reply(out, mac, ttl, echo));
        }
        let mut whole = Vec::new();
        wire::emit_echo_reply(&mut whole, mac, ttl, echo);
        // Over IPv6 nobody tells us of the path of an echo: it takes what every path does.
        let mtu = if echo.remote.is_ipv4() { mtu } else { MTU_MIN_IPV6 };
        let number = self.tables.frames_out as u32;
        let id = FragmentId { remote: echo.remote, local: echo.local, protocol: 0, number };
        let number = self.tables.number_of_packet(&id);
        let mut next = Some(0);
        while let Some(offset) = next {
            self.put_frame(|out| next = wire::emit_fragment(out, &whole, mtu, number, offset));
        }
    }
}
