//! Frames come in: parse, look up, step on copies.
//!
//! A batch of up to 64 frames is parsed and hashed first, then its flows are asked for, then it is stepped, so that the
//! memory of one flow comes while others are worked on.

use super::batch::{Batch, reset_of};
use super::service::Service;
use super::{BATCH_MAX, Shard};
use crate::flows::FlowKey;
use crate::tcp::{
    self, COOKIE_LIFE_S, CloseReason, Control, Cookie, Flow, Outgoing, Reply, Rule, State, Time, Timestamps, Unmatched,
};
use crate::wire::{self, Addressing, ArpMessage, Packet, TcpPacket};

/// A segment on its way to its flow.
struct Prepared<'a> {
    packet: TcpPacket<'a>,
    key: FlowKey,
    hash: u64,
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
        self.batch.tables.frames_in += frames.len() as u64;
        for (index, (place, frame)) in prepared.iter_mut().zip(frames).enumerate() {
            self.batch.tables.trace_frame(Some(index));
            *place = self.batch.prepare(frame);
        }
        self.batch.prefetch(&prepared);
        for (index, segment) in prepared.iter().enumerate() {
            if let Some(segment) = segment {
                self.batch.tables.trace_frame(Some(index));
                self.receive_segment(segment);
            }
        }
    }

    fn receive_segment(&mut self, prepared: &Prepared<'_>) {
        let Some(slot) = self.batch.tables.find(prepared.hash, &prepared.key) else {
            match self.batch.take_cookie(prepared) {
                Some(position) => self.step(position, &prepared.packet),
                None => self.batch.receive_unmatched(prepared, None),
            }
            return;
        };
        let position = self.batch.touch(slot);
        let touched = &self.batch.touched[position];
        // A cookie cannot promise to lie beyond what the old connection sent, so it never takes its place.
        if tcp::is_reopening(&touched.flow, &prepared.packet.segment) && !self.batch.is_crowded() {
            let old = touched.flow;
            self.batch.tables.count(Rule::TimeWaitReopened);
            self.close_flow(position, CloseReason::BothClosed);
            self.batch.receive_unmatched(prepared, Some(&old));
            return;
        }
        self.step(position, &prepared.packet);
    }

    /// Steps a connection over a segment and applies the effects.
    fn step(&mut self, position: usize, packet: &TcpPacket<'_>) {
        let now = self.batch.now;
        let touched = &mut self.batch.touched[position];
        let mut segment = packet.segment;
        if let Some(timestamps) = &mut segment.timestamps {
            timestamps.echo = timestamps.echo.wrapping_sub(touched.ts_offset);
        }
        let effects = tcp::on_segment(&mut touched.flow, &mut touched.active, &segment, now);
        self.batch.tables.count(effects.rule);
        if effects.rule == Rule::HandshakeAckRejected {
            // To where the segment came from, which need not be where the SYN came from.
            self.batch.reply_unmatched(packet, effects.reply);
            return;
        }
        self.batch.reply(position, effects.reply);
        if effects.is_opened {
            self.open_flow(position);
        }
        if effects.is_acknowledged {
            self.batch.follow_next_hop(position, packet);
            self.release_acknowledged(position);
        }
        if effects.payload_take > 0 || effects.has_fin {
            let start = effects.payload_skip as usize;
            let payload = &packet.payload[start..start + effects.payload_take as usize];
            self.take_payload(position, payload, effects.has_fin);
        }
        if effects.is_acknowledged && self.batch.has_unconsumed(position) {
            self.offer_again(position);
        }
        if let Some(reason) = effects.closed {
            self.close_flow(position, reason);
        }
    }
}

impl Batch {
    /// Parses a frame, deals with all that is not TCP, and finds the key of what is.
    fn prepare<'a>(&mut self, frame: &'a [u8]) -> Option<Prepared<'a>> {
        match wire::parse(frame, &self.tables.config.mac) {
            Err(rule) => self.tables.count(rule),
            Ok(Packet::Arp(message)) => self.receive_arp(&message),
            Ok(Packet::Echo(echo)) if self.tables.is_no_peer(echo.remote) => {
                self.tables.count(Rule::SourceAddressInvalid);
            }
            Ok(Packet::Echo(echo)) if self.tables.local_index(echo.local).is_some() => {
                self.tables.count(Rule::IcmpEchoAnswers);
                let mac = self.tables.config.mac;
                self.gate.put_frame(self.number, |out| wire::emit_echo_reply(out, mac, &echo));
                self.count_frame(None);
            }
            Ok(Packet::Echo(_)) => self.tables.count(Rule::FrameNotForUs),
            Ok(Packet::Tcp(packet)) => {
                let Some(key) = self.tables.key_of_packet(&packet) else {
                    self.tables.count(Rule::FrameNotForUs);
                    return None;
                };
                if self.tables.is_no_peer(packet.remote) {
                    self.tables.count(Rule::SourceAddressInvalid);
                    return None;
                }
                return Some(Prepared { hash: self.tables.hash(&key), key, packet });
            }
        }
        None
    }

    fn prefetch(&self, prepared: &[Option<Prepared<'_>>]) {
        let storage = &self.tables.storage;
        let mut slots = [u32::MAX; BATCH_MAX];
        for (slot, segment) in slots.iter_mut().zip(prepared) {
            if let Some(candidate) = segment.as_ref().and_then(|it| self.tables.index.candidate(it.hash)) {
                *slot = candidate;
                storage.flows.prefetch(candidate);
            }
        }
        for slot in slots {
            if let Some(active) = storage.flows.records().get(slot as usize).and_then(Flow::active) {
                storage.actives.prefetch(active);
            }
        }
    }

    fn receive_arp(&mut self, message: &ArpMessage) {
        let is_from_gateway = self.tables.config.gateway.is_some_and(|gateway| gateway.to_bits() == message.sender);
        let is_for_us = self.tables.local_index(message.target).is_some();
        if is_from_gateway && is_for_us {
            self.tables.learn_gateway(message.sender_mac, true);
        }
        if !(message.is_request && is_for_us) {
            self.tables.count(if is_from_gateway && is_for_us { Rule::ArpLearns } else { Rule::ArpIgnored });
            return;
        }
        self.tables.count(Rule::ArpAnswers);
        let answer = ArpMessage {
            is_request: false,
            sender_mac: self.tables.config.mac,
            sender: message.target,
            target_mac: message.sender_mac,
            target: message.sender,
        };
        self.gate.put_frame(self.number, |out| wire::emit_arp(out, &answer));
        self.count_frame(None);
    }

    /// A segment that belongs to no connection; `old` is the one in TIME-WAIT whose place it takes.
    fn receive_unmatched(&mut self, prepared: &Prepared<'_>, old: Option<&Flow>) {
        let packet = &prepared.packet;
        let is_listening = self.tables.config.ports.contains(&packet.local_port);
        let unmatched = if is_listening {
            tcp::on_listen(&packet.segment)
        } else {
            Unmatched::Ends(tcp::on_closed(&packet.segment))
        };
        match unmatched {
            Unmatched::Opens if self.is_draining => {
                self.tables.count(Rule::ListenDraining);
                self.reply_unmatched(packet, tcp::reset_for(&packet.segment));
            }
            Unmatched::Opens if self.is_crowded() => {
                let is_answered = self.send_cookie(prepared).is_some();
                self.tables.count(if is_answered { Rule::ListenSendsCookie } else { Rule::ListenNoRoom });
            }
            Unmatched::Opens => {
                let is_open = self.accept(prepared, old).is_some();
                self.tables.count(if is_open { Rule::ListenAcceptsSyn } else { Rule::ListenNoRoom });
            }
            Unmatched::Ends(effects) => {
                self.tables.count(effects.rule);
                self.reply_unmatched(packet, effects.reply);
            }
        }
    }

    /// Whether there is no room for another half-open connection. Some active blocks are left to those that are open.
    fn is_crowded(&self) -> bool {
        let half_open = self.tables.in_state(State::SynReceived) + self.half_open_new;
        let active_slots = &self.tables.active_slots;
        half_open >= self.tables.config.half_open_max || active_slots.free() <= active_slots.capacity() / 8
    }

    /// The record of a connection that is to be, with its addresses and ports. `None` where there is no next hop.
    fn flow_for(&mut self, prepared: &Prepared<'_>) -> Option<Flow> {
        let Prepared { packet, key, .. } = prepared;
        let mut flow = Flow::free(0);
        flow.remote_address = key.remote;
        flow.remote_port = key.remote_port;
        flow.local_port = key.local_port;
        flow.set_local_index(key.local_index);
        flow.next_hop = self.tables.next_hop_for(packet.remote, packet.source_mac)?;
        Some(flow)
    }

    /// Answers a SYN by a cookie and keeps nothing. `None` where its ACK would find no room, and so is not asked for.
    fn send_cookie(&mut self, prepared: &Prepared<'_>) -> Option<()> {
        let Prepared { packet, key, .. } = prepared;
        if self.tables.flow_slots.free() == 0 {
            return None;
        }
        let cookie = Cookie::new(&packet.segment, self.now);
        let irs = packet.segment.seq;
        let iss = cookie.sequence_number(self.tables.cookie_hash(key, irs, cookie));
        let value = (self.now.ms() as u32).wrapping_add(self.tables.ts_offset(key));
        let timestamps = packet.segment.timestamps.map(|its| Timestamps { value, echo: its.value });
        let syn_ack = tcp::syn_ack(iss, irs, packet.segment.window_shift.is_some(), self.tables.offer);
        self.emit_unmatched(packet, &Outgoing { timestamps, ..syn_ack });
        self.cookies_until = self.now.plus_ms(u64::from(COOKIE_LIFE_S) * 1_000);
        Some(())
    }

    /// The connection that a segment opens by bringing back a cookie; it is still to be stepped over the segment.
    /// `None` where it brings none, or there is no room: then it is like any other ACK to a listener.
    fn take_cookie(&mut self, prepared: &Prepared<'_>) -> Option<usize> {
        let Prepared { packet, key, hash } = prepared;
        let (segment, control) = (&packet.segment, packet.segment.control);
        let is_plain_ack = control.has(Control::ACK) && !control.has(Control::SYN) && !control.has(Control::RST);
        let is_listening = self.tables.config.ports.contains(&packet.local_port) && !self.is_draining;
        if !is_plain_ack || !is_listening || self.now >= self.cookies_until {
            return None;
        }
        let iss = segment.ack.minus(1);
        let cookie = Cookie::read(iss, self.now)?;
        if cookie.sequence_number(self.tables.cookie_hash(key, segment.seq.minus(1), cookie)) != iss {
            return None;
        }
        let position = self.flow_for(prepared).and_then(|flow| self.add_flow(*hash, flow));
        self.tables.count(if position.is_some() { Rule::CookieAccepted } else { Rule::CookieNoRoom });
        let position = position?;
        let (offer, now) = (self.tables.offer, self.now);
        let touched = &mut self.touched[position];
        touched.active = tcp::on_cookie(touched.slot, &mut touched.flow, segment, cookie, offer, now);
        Some(position)
    }

    /// Makes a connection of a SYN. `None` where something that it needs is not to be had.
    fn accept(&mut self, prepared: &Prepared<'_>, old: Option<&Flow>) -> Option<()> {
        let Prepared { packet, key, hash } = prepared;
        let flow = self.flow_for(prepared)?;
        let mut iss = self.tables.initial_sequence_number(key, self.now);
        if let Some(old) = old.filter(|old| !iss.after(old.snd_nxt)) {
            // What the old connection sent must not be taken for the new one's (RFC 9293 §3.4.3).
            iss = old.snd_nxt.plus(1 << 20);
        }
        let position = self.add_flow(*hash, flow)?;
        self.half_open_new += 1;
        let (offer, now) = (self.tables.offer, self.now);
        let touched = &mut self.touched[position];
        touched.active = tcp::on_syn(touched.slot, &mut touched.flow, &packet.segment, iss, offer, now);
        assert!(self.borrow_active(position), "a block was free, and nobody else has taken it since");
        Some(())
    }

    /// Stores bytes that the service has not consumed.
    /// Returns how many bytes there was a place for.
    pub(super) fn store_received(&mut self, position: usize, bytes: &[u8]) -> usize {
        let waiting = self.touched[position].active.recv_bytes as usize;
        let room = (self.tables.config.window_bytes as usize).saturating_sub(waiting);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() || !self.borrow_active(position) {
            return 0;
        }
        let is_stored = self.tables.storage.payload.append_to_recv(&mut self.touched[position].active, bytes);
        if is_stored { bytes.len() } else { 0 }
    }

    /// The peer was heard from another Ethernet address and means it: what it acknowledges is ours.
    fn follow_next_hop(&mut self, position: usize, packet: &TcpPacket<'_>) {
        let next_hop = self.touched[position].flow.next_hop;
        if self.tables.next_hop(next_hop).mac == packet.source_mac {
            return;
        }
        if let Some(next_hop) = self.tables.next_hop_for(packet.remote, packet.source_mac) {
            self.touched[position].flow.next_hop = next_hop;
        }
    }

    /// Answers a segment that has no connection, to where it came from.
    fn reply_unmatched(&mut self, packet: &TcpPacket<'_>, reply: Reply) {
        if let Some(outgoing) = reset_of(reply) {
            self.emit_unmatched(packet, &outgoing);
        }
    }

    fn emit_unmatched(&mut self, packet: &TcpPacket<'_>, outgoing: &Outgoing) {
        let ends = Addressing {
            source_mac: self.tables.config.mac,
            destination_mac: packet.source_mac,
            local: packet.local,
            remote: packet.remote,
            local_port: packet.local_port,
            remote_port: packet.remote_port,
        };
        self.gate.put_frame(self.number, |out| wire::emit_tcp(out, &ends, outgoing, |_| ()));
        self.count_frame(None);
    }
}
