//! Frames come in: parse, look up, step on copies.
//!
//! A batch of up to 64 frames is parsed and hashed first; then the index is asked for at all of its places, then the
//! flows are, so that the memory of many comes at the same time; then it is stepped.

use super::batch::Batch;
use super::service::Service;
use super::{BATCH_MAX, Shard};
use crate::flows::FlowKey;
use crate::tcp::{self, CloseReason, Control, Reply, Rule, SoftError, State, Time};
use crate::wire::{self, IcmpError, Packet, TcpPacket, Trouble};

/// A segment on its way to its flow.
pub(super) struct Prepared<'a> {
    pub(super) packet: TcpPacket<'a>,
    pub(super) local_index: u8,
    pub(super) hash: u64,
    /// What the index says of the hash before the batch is stepped.
    candidate: Option<u32>,
}

impl Prepared<'_> {
    /// The key of its flow. It is made anew rather than kept: a batch of segments is moved about less for it.
    #[inline]
    pub(super) fn key(&self) -> FlowKey {
        key_of(&self.packet, self.local_index)
    }
}

#[inline]
fn key_of(packet: &TcpPacket<'_>, local_index: u8) -> FlowKey {
    FlowKey {
        remote: packet.addresses.remote(),
        remote_port: packet.remote_port,
        local_port: packet.local_port,
        local_index,
    }
}

impl<S: Service> Shard<S> {
    /// Takes in frames, 64 to a batch.
    pub fn receive(&mut self, now: Time, frames: &[&[u8]]) {
        for chunk in frames.chunks(BATCH_MAX) {
            self.batch.begin(now);
            self.receive_batch(chunk);
            self.batch.commit();
        }
        self.has_untrimmed = true;
    }

    fn receive_batch(&mut self, frames: &[&[u8]]) {
        let mut prepared = [const { None }; BATCH_MAX];
        let mut whole = Vec::new();
        self.batch.tables.frames_in += frames.len() as u64;
        for (index, (place, frame)) in prepared.iter_mut().zip(frames).enumerate() {
            self.batch.tables.trace_frame(Some(index));
            *place = match wire::parse(frame, &self.batch.tables.config.mac) {
                Ok(Packet::Error(error)) => {
                    self.receive_error(&error);
                    None
                }
                Ok(Packet::Fragment(fragment)) => {
                    whole.extend(self.batch.receive_fragment(&fragment).map(|frame| (index, frame)));
                    None
                }
                parsed => self.batch.prepare(parsed),
            };
        }
        let changes = self.batch.tables.index.changes();
        self.batch.prefetch(&mut prepared);
        for (index, segment) in prepared.iter_mut().enumerate() {
            if let Some(segment) = segment {
                self.batch.tables.trace_frame(Some(index));
                self.receive_segment(segment, changes);
            }
        }
        for (index, frame) in whole {
            self.batch.tables.trace_frame(Some(index));
            self.receive_whole(frame);
        }
    }

    /// A packet that came in fragments, as one frame.
    #[cold]
    fn receive_whole(&mut self, frame: Vec<u8>) {
        let tables = &self.batch.tables;
        if let Some(shard) = tables.has_siblings().then(|| tables.other_owner(&frame)).flatten() {
            self.strays.push((shard, frame));
            return;
        }
        match wire::parse(&frame, &self.batch.tables.config.mac) {
            Ok(Packet::Error(error)) => self.receive_error(&error),
            parsed => {
                if let Some(mut segment) = self.batch.prepare(parsed) {
                    self.receive_segment(&mut segment, 0);
                }
            }
        }
    }

    /// Its candidate is of an index that had changed so often.
    fn receive_segment(&mut self, prepared: &mut Prepared<'_>, changes: u64) {
        let Some(slot) = self.batch.find(prepared, changes) else {
            match self.batch.take_cookie(prepared) {
                Some(position) => self.step(position, &mut prepared.packet),
                None => self.batch.receive_unmatched(prepared, None),
            }
            return;
        };
        let position = self.batch.touch(slot);
        let touched = &self.batch.touched[position];
        // A cookie cannot promise to lie beyond what the old connection sent, so it never takes its place.
        if tcp::is_reopening(&touched.flow, &touched.active, &prepared.packet.segment) && !self.batch.is_crowded() {
            let old = touched.flow;
            self.batch.tables.count(Rule::TimeWaitReopened);
            self.close_flow(position, CloseReason::BothClosed);
            self.batch.receive_unmatched(prepared, Some(&old));
            return;
        }
        self.step(position, &mut prepared.packet);
    }

    /// Steps a connection over a segment and applies the effects.
    fn step(&mut self, position: usize, packet: &mut TcpPacket<'_>) {
        if let Some(timestamps) = &mut packet.segment.timestamps {
            timestamps.echo = timestamps.echo.wrapping_sub(self.batch.touched[position].ts_offset);
        }
        if self.batch.take_expected_ack(position, packet) {
            self.release_acknowledged(position);
            if self.batch.has_unconsumed(position) {
                self.offer_again(position);
            }
        } else {
            self.step_in_full(position, packet);
        }
    }

    fn step_in_full(&mut self, position: usize, packet: &TcpPacket<'_>) {
        let (segment, now) = (&packet.segment, self.batch.now);
        if tcp::is_out_of_order(&self.batch.touched[position].flow, segment) {
            self.batch.borrow_repair(position);
        }
        let touched = &self.batch.touched[position];
        let offer = match touched.flow.state() {
            State::SynSent => self.batch.tables.offer_to(touched.flow.local_index(), packet.addresses.remote(), now),
            _ => self.batch.offer(position),
        };
        let (flow, active, repair) = self.batch.parts(position);
        let was_calling = flow.state() == State::SynSent;
        let effects = match was_calling {
            true => tcp::on_syn_sent(flow, active, segment, offer, now),
            false => tcp::on_segment(flow, active, repair, segment, offer, now),
        };
        if was_calling && flow.state() != State::SynSent {
            self.batch.learn_of_answer(position, packet);
        }
        self.batch.tables.count(effects.rule);
        self.batch.note_path(position, effects.path_mtu);
        for rule in effects.signals.rules() {
            self.batch.tables.count(rule);
        }
        if matches!(effects.rule, Rule::HandshakeAckRejected | Rule::SynSentAckRejected) {
            // To where the segment came from, which need not be where the SYN came from.
            self.batch.reply_unmatched(packet, effects.reply);
            return;
        }
        self.batch.reply(position, effects.reply);
        if effects.is_opened {
            if self.batch.touched[position].flow.has_ecn() {
                self.batch.tables.count(Rule::EcnAgreed);
            }
            self.open_flow(position);
        }
        if effects.is_acknowledged {
            self.batch.follow_next_hop(position, packet);
            self.release_acknowledged(position);
        }
        if let Some(up) = effects.urgent_end {
            self.tell_urgent(position, up);
        }
        if effects.is_ack_due {
            let payload = &packet.payload[..effects.payload_hold as usize];
            self.batch.hold(position, segment.seq, payload, effects.has_fin);
            // The service may have aborted the connection as it opened.
            if self.batch.is_live(position) {
                self.batch.reply(position, Reply::Ack);
            }
        } else if effects.payload_take > 0 || effects.has_fin {
            let start = effects.payload_skip as usize;
            let payload = &packet.payload[start..start + effects.payload_take as usize];
            self.take_payload(position, payload, effects.has_fin);
            self.take_behind_held(position, packet);
        }
        if effects.is_acknowledged && self.batch.has_unconsumed(position) {
            self.offer_again(position);
        }
        if let Some(reason) = effects.closed {
            self.close_flow(position, reason);
        }
    }

    /// What of a segment lies behind ranges that were held, and is in order now that they are.
    fn take_behind_held(&mut self, position: usize, packet: &TcpPacket<'_>) {
        loop {
            let (flow, _, repair) = self.batch.parts(position);
            let end = packet.segment.seq.plus(packet.segment.payload_bytes);
            let is_more = flow.is_live() && !flow.has_peer_fin() && flow.rcv_nxt.before(end);
            let (Some(repair), true) = (repair, is_more) else { return };
            let part = tcp::in_order_part(flow, Some(repair), &packet.segment);
            let before = flow.rcv_nxt;
            let start = part.skip as usize;
            self.take_payload(position, &packet.payload[start..start + part.take as usize], part.has_fin);
            if self.batch.touched[position].flow.rcv_nxt == before {
                return;
            }
        }
    }

    /// An ICMP error. It ends a connection only while that is being opened by us, and counts only where it quotes
    /// something that is in flight (RFC 5927 §4.1, §5.2).
    fn receive_error(&mut self, error: &IcmpError) {
        let found = self.batch.flow_of_error(error).filter(|&position| {
            let touched = &self.batch.touched[position];
            error.seq.within(touched.active.snd_una, touched.active.in_flight(&touched.flow))
        });
        let Some(position) = found else {
            self.batch.tables.count(Rule::IcmpIgnored);
            return;
        };
        if let Trouble::TooBig(claim) = error.trouble {
            self.batch.receive_too_big(position, error.seq, claim);
            return;
        }
        if error.trouble == Trouble::Refused && self.batch.touched[position].flow.state() == State::SynSent {
            let effects = tcp::on_unreachable();
            self.batch.tables.count(effects.rule);
            self.close_flow(position, CloseReason::Unreachable);
            return;
        }
        self.batch.tables.count(Rule::IcmpSoftError);
        self.tell_soft_error(
            position,
            match error.trouble {
                Trouble::Unreachable | Trouble::Refused | Trouble::TooBig(_) => SoftError::Unreachable,
                Trouble::TimeExceeded => SoftError::TimeExceeded,
                Trouble::Parameter => SoftError::ParameterProblem,
            },
        );
    }
}

impl Batch {
    /// The connection that an ICMP error is about.
    fn flow_of_error(&mut self, error: &IcmpError) -> Option<usize> {
        let key = FlowKey {
            remote: error.remote,
            remote_port: error.remote_port,
            local_port: error.local_port,
            local_index: self.tables.local_index(error.local)?,
        };
        let slot = self.tables.find(self.tables.hash(&key), &key)?;
        let position = self.touch(slot);
        self.is_live(position).then_some(position)
    }

    /// Deals with all that is not TCP, and finds the key of what is.
    #[inline(always)]
    fn prepare<'a>(&mut self, parsed: Result<Packet<'a>, Rule>) -> Option<Prepared<'a>> {
        match parsed {
            Ok(Packet::Error(_) | Packet::Fragment(_)) => {}
            Err(rule) => self.tables.count(rule),
            Ok(Packet::Arp(message)) => self.receive_arp(&message),
            Ok(Packet::Neighbor(message)) => self.receive_neighbor(&message),
            Ok(Packet::Router(advertisement)) => self.receive_router(&advertisement),
            Ok(Packet::Refused(refused)) => self.receive_refused(&refused),
            Ok(Packet::Echo(echo)) => self.receive_echo(&echo),
            Ok(Packet::Tcp(packet)) => {
                let Some(local_index) = self.tables.local_index(packet.addresses.local()) else {
                    self.tables.count(Rule::FrameNotForUs);
                    return None;
                };
                if self.tables.is_no_peer(packet.addresses.remote()) {
                    self.tables.count(Rule::SourceAddressInvalid);
                    return None;
                }
                let hash = self.tables.hash(&key_of(&packet, local_index));
                return Some(Prepared { hash, local_index, packet, candidate: None });
            }
        }
        None
    }

    /// Asks for what the step of these segments will look at, each kind of memory for all of them before it is used.
    fn prefetch(&self, prepared: &mut [Option<Prepared<'_>>]) {
        let (index, storage) = (&self.tables.index, &self.tables.storage);
        for segment in prepared.iter().flatten() {
            index.prefetch(segment.hash);
        }
        let opening = prepared.iter().flatten().filter(|segment| segment.packet.segment.control.has(Control::SYN));
        self.tables.flow_slots.next_free().take(opening.count()).for_each(|slot| storage.flows.prefetch(slot));
        for segment in prepared.iter_mut().flatten() {
            segment.candidate = index.candidate(segment.hash);
            if let Some(slot) = segment.candidate {
                storage.flows.prefetch(slot);
            }
        }
        for slot in prepared.iter().flatten().filter_map(|segment| segment.candidate) {
            if let Some(active) = storage.flows.records()[slot as usize].active() {
                storage.actives.prefetch(active);
            }
        }
    }

    /// The slot of a segment's connection. The candidate is right if it has the key and the index is as it was then.
    #[inline]
    fn find(&self, prepared: &Prepared<'_>, changes: u64) -> Option<u32> {
        let key = prepared.key();
        let candidate = prepared.candidate.filter(|_| self.tables.index.changes() == changes);
        candidate.filter(|&slot| self.tables.is_at(slot, &key)).or_else(|| self.tables.find(prepared.hash, &key))
    }

    /// Takes a segment if it is an acknowledgment that the connection lets expect; see `tcp::take_expected_ack`.
    #[inline]
    fn take_expected_ack(&mut self, position: usize, packet: &TcpPacket<'_>) -> bool {
        let now = self.now;
        let (flow, active, repair) = self.parts(position);
        let is_taken = repair.is_none() && tcp::take_expected_ack(flow, active, &packet.segment, now);
        if is_taken {
            self.tables.count(Rule::AckAdvances);
            self.follow_next_hop(position, packet);
        }
        is_taken
    }

    /// Stores bytes that the service has not consumed.
    /// Returns how many bytes there was a place for.
    pub(super) fn store_received(&mut self, position: usize, bytes: &[u8]) -> usize {
        let window_bytes = self.tables.config.window_bytes;
        let room = window_bytes.saturating_sub(self.touched[position].active.received_share(window_bytes)) as usize;
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() || !self.borrow_active(position) {
            return 0;
        }
        let is_stored = self.tables.storage.payload.append_to_recv(&mut self.touched[position].active, bytes);
        if is_stored { bytes.len() } else { 0 }
    }

    /// The peer has sent a SYN, perhaps while we were still asking where it is: its frame says so.
    fn learn_of_answer(&mut self, position: usize, packet: &TcpPacket<'_>) {
        let hop = self.touched[position].flow.next_hop;
        if self.tables.next_hop(hop).is_known == 0 {
            self.learn_hop(hop, packet.source_mac);
        }
    }

    /// The peer was heard from another Ethernet address and means it: what it acknowledges is ours.
    fn follow_next_hop(&mut self, position: usize, packet: &TcpPacket<'_>) {
        let next_hop = self.touched[position].flow.next_hop;
        if self.tables.next_hop(next_hop).mac == packet.source_mac {
            return;
        }
        if let Some(next_hop) = self.tables.next_hop_for(packet.addresses.remote(), packet.source_mac) {
            self.touched[position].flow.next_hop = next_hop;
        }
    }
}
