//! Segments without a connection: SYNs that open one, cookies, and what is answered by RST.
//!
//! In: a segment whose tuple is in no table. Out: a connection in the open batch, or an answer that costs nothing to
//! forget.

use super::batch::{Batch, reset_of};
use super::receive::Prepared;
use crate::tcp::{self, COOKIE_LIFE_S, Control, Cookie, Flow, Outgoing, Reply, Rule, State, Timestamps, Unmatched};
use crate::wire::{self, Addressing, TcpPacket};

impl Batch {
    /// A segment that belongs to no connection; `old` is the one in TIME-WAIT whose place it takes.
    pub fn receive_unmatched(&mut self, prepared: &Prepared<'_>, old: Option<&Flow>) {
        let packet = &prepared.packet;
        let is_listening = self.tables.config.ports.contains(&packet.local_port);
        let unmatched = if is_listening {
            tcp::on_listen(&packet.segment)
        } else if self.tables.is_shared(packet.addresses.local()) {
            // Its other ports are the kernel's.
            return self.tables.count(Rule::FrameNotForUs);
        } else {
            Unmatched::Ends(tcp::on_closed(&packet.segment))
        };
        match unmatched {
            Unmatched::Opens if self.tables.is_draining => {
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
    pub fn is_crowded(&self) -> bool {
        let half_open = self.tables.in_state(State::SynReceived) + self.half_open_new;
        let active_slots = &self.tables.active_slots;
        half_open >= self.tables.config.half_open_max || active_slots.free() <= active_slots.capacity() / 8
    }

    /// Answers a SYN by a cookie and keeps nothing. `None` where its ACK would find no room, and so is not asked for.
    fn send_cookie(&mut self, prepared: &Prepared<'_>) -> Option<()> {
        let (packet, key) = (&prepared.packet, &prepared.key());
        if self.tables.flow_slots.free() == 0 || !self.tables.config.syn_cookies {
            return None;
        }
        let offer = self.tables.offer(key.local_index);
        let cookie = Cookie::new(&packet.segment, offer, self.now);
        let irs = packet.segment.seq;
        let iss = cookie.sequence_number(self.tables.cookie_hash(key, irs, cookie));
        let value = self.now.wrapping_ms().wrapping_add(self.tables.ts_offset(key));
        let timestamps = packet.segment.timestamps.map(|its| Timestamps { value, echo: its.value });
        let syn_ack =
            tcp::syn_ack(iss, irs, packet.segment.window_shift.is_some(), packet.segment.sack_permitted, offer);
        self.emit_unmatched(packet, &Outgoing { timestamps, ..syn_ack });
        self.tables.cookies_until = self.now.plus_ms(u64::from(COOKIE_LIFE_S) * 1_000);
        Some(())
    }

    /// The connection that a segment opens by bringing back a cookie; it is still to be stepped over the segment.
    /// `None` where it brings none, or there is no room: then it is like any other ACK to a listener.
    pub fn take_cookie(&mut self, prepared: &Prepared<'_>) -> Option<usize> {
        let Prepared { packet, hash, .. } = prepared;
        let key = &prepared.key();
        let (segment, control) = (&packet.segment, packet.segment.control);
        let is_plain_ack = control.has(Control::ACK) && !control.has(Control::SYN) && !control.has(Control::RST);
        let is_listening = self.tables.config.ports.contains(&packet.local_port) && !self.tables.is_draining;
        if !is_plain_ack || !is_listening || self.now >= self.tables.cookies_until {
            return None;
        }
        let iss = segment.ack.minus(1);
        let cookie = Cookie::read(iss, self.now)?;
        if cookie.sequence_number(self.tables.cookie_hash(key, segment.seq.minus(1), cookie)) != iss {
            return None;
        }
        let next_hop = self.tables.next_hop_for(key.remote, packet.source_mac);
        let position = next_hop.and_then(|next_hop| self.add_flow(key, *hash, next_hop));
        self.tables.count(if position.is_some() { Rule::CookieAccepted } else { Rule::CookieNoRoom });
        let position = position?;
        let (offer, now) = (self.tables.offer_to(key.local_index, key.remote, self.now), self.now);
        let touched = &mut self.touched[position];
        touched.active = tcp::on_cookie(touched.slot, &mut touched.flow, segment, cookie, offer, now);
        touched.offset_timestamps(&self.tables);
        Some(position)
    }

    /// Makes a connection of a SYN. `None` where something that it needs is not to be had.
    fn accept(&mut self, prepared: &Prepared<'_>, old: Option<&Flow>) -> Option<()> {
        let Prepared { packet, hash, .. } = prepared;
        let key = &prepared.key();
        let next_hop = self.tables.next_hop_for(key.remote, packet.source_mac)?;
        let mut iss = self.tables.initial_sequence_number(key, self.now);
        if let Some(old) = old.filter(|old| !iss.after(old.snd_nxt)) {
            // What the old connection sent must not be taken for the new one's (RFC 9293 §3.4.3).
            iss = old.snd_nxt.plus(1 << 20);
        }
        let position = self.add_flow(key, *hash, next_hop)?;
        self.half_open_new += 1;
        let (offer, now) = (self.tables.offer_to(key.local_index, key.remote, self.now), self.now);
        let touched = &mut self.touched[position];
        touched.active = tcp::on_syn(touched.slot, &mut touched.flow, &packet.segment, iss, offer, now);
        touched.offset_timestamps(&self.tables);
        assert!(self.borrow_active(position), "a block was free, and nobody else has taken it since");
        Some(())
    }

    /// Answers a segment that has no connection, to where it came from.
    pub fn reply_unmatched(&mut self, packet: &TcpPacket<'_>, reply: Reply) {
        if let Some(outgoing) = reset_of(reply) {
            self.emit_unmatched(packet, &outgoing);
        }
    }

    fn emit_unmatched(&mut self, packet: &TcpPacket<'_>, outgoing: &Outgoing) {
        let ends = Addressing {
            source_mac: self.tables.config.mac,
            destination_mac: packet.source_mac,
            local: packet.addresses.local(),
            remote: packet.addresses.remote(),
            local_port: packet.local_port,
            remote_port: packet.remote_port,
            ttl: self.tables.config.ttl,
            dscp: self.tables.config.dscp,
        };
        self.put_frame(|out| wire::emit_tcp(out, &ends, outgoing, |_| ()));
    }
}
