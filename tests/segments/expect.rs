//! Expectations: what a script says must have come out, been counted, or been told.

use super::packet::{Packet, Tcp};
use super::script::{Expectation, Told};
use super::stage::Stage;

impl Stage {
    /// Holds a line that says what must be so.
    pub(super) fn expect(&mut self, expected: &Expectation) -> Result<(), String> {
        match expected {
            Expectation::OutOf(packet) => self.expect_packet(packet),
            Expectation::Rule(name) => self.expect_rule(name),
            Expectation::State { port, name } => self.expect_state(*port, name),
            Expectation::App { port, told } => self.expect_told(*port, told),
        }
    }

    /// Holds that everything that came of the last thing that happened was spoken of.
    pub(super) fn expect_no_more(&mut self) -> Result<(), String> {
        self.expect_silence()?;
        self.expect_rules_named()
    }

    fn expect_packet(&mut self, expected: &Packet) -> Result<(), String> {
        let Some(mut came) = self.came.pop_front() else {
            return Err("nothing came out".into());
        };
        if let (Packet::Tcp(expected), Packet::Tcp(actual)) = (expected, &mut came.packet) {
            let client = self.clients.entry(actual.port).or_default();
            let real = actual.seq.expect("a segment that was parsed has a sequence number");
            let called = expected.iss.or(client.iss.is_none().then_some(self.listen.iss));
            if let Some(called) = called.filter(|_| actual.syn) {
                client.begin(real, called, actual);
            }
            actual.seq = Some(client.shown(real));
            actual.timestamps = actual.timestamps.map(|(value, echo)| (value.wrapping_sub(client.ts_start), echo));
            if let Some(difference) = expected.difference(actual) {
                return Err(format!("out came `<< {actual}`: {difference}"));
            }
            if came.to != client.address.unwrap_or(self.ends.client) {
                return Err(format!("out came a segment to {}", came.to));
            }
            let actual = actual.clone();
            return self.check_segment(&actual, real, &came.payload);
        }
        let mut expected = expected.clone();
        if let Packet::Arp { address, .. } = &mut expected {
            *address = self.ends.on_wire(*address);
        }
        // What a script details of neighbour discovery is compared in detail, and may be written in short.
        if let (Packet::Arp { is_request, address, .. }, Packet::Neighbor(neighbor)) = (&expected, &came.packet)
            && (*is_request, *address) == (neighbor.is_question, neighbor.target)
        {
            expected = came.packet.clone();
        }
        match expected == came.packet {
            true => Ok(()),
            false => Err(format!("out came `<< {}`", came.packet)),
        }
    }

    /// What holds for every segment that comes out, whatever the script compares.
    fn check_segment(&mut self, tcp: &Tcp, real: u32, payload: &[u8]) -> Result<(), String> {
        let client = self.clients.entry(tcp.port).or_default();
        if payload.len() > usize::from(client.mss) {
            return Err(format!("a segment of {} bytes for a peer that takes {}", payload.len(), client.mss));
        }
        if let (Some(ack), Some(window), false) = (tcp.ack, tcp.window, tcp.rst) {
            let shift = if tcp.syn { 0 } else { client.shift };
            let edge = ack.wrapping_add(u32::from(window) << shift);
            // The field is rounded down to its unit, the edge behind it is not (RFC 7323 §2.4).
            let unit = 1 << shift;
            let moved = client.edge.map_or(1, |promised| edge.wrapping_sub(promised) as i32);
            if moved <= -unit {
                return Err(format!("the right edge of the window moved left, to {edge} (SHLD-14)"));
            }
            if moved > 0 {
                client.edge = Some(edge);
            }
        }
        if payload.is_empty() {
            return Ok(());
        }
        let (iss, _) = client.iss.ok_or("data before a SYN-ACK")?;
        let offset = real.wrapping_sub(iss.wrapping_add(1)) as usize;
        let flow = self.opened.get(&tcp.port).ok_or("data on a connection that was never opened")?;
        let sent = &self.shard.service().streams[flow].sent;
        match sent.get(offset..offset + payload.len()) == Some(payload) {
            true => Ok(()),
            false => Err("the data is not what was pushed".into()),
        }
    }

    pub(super) fn expect_silence(&mut self) -> Result<(), String> {
        match self.came.front_mut() {
            None => Ok(()),
            Some(came) => {
                if let Packet::Tcp(tcp) = &mut came.packet {
                    let client = self.clients.entry(tcp.port).or_default();
                    tcp.seq = tcp.seq.map(|seq| client.shown(seq));
                }
                Err(format!("before this line came out, unexpected, `<< {}`", came.packet))
            }
        }
    }

    /// Rules counted since the last thing that happened, once for each count.
    fn rules_counted(&mut self) -> &mut Vec<&'static str> {
        let (shard, before) = (&self.shard, &self.counts_before);
        self.rules_left.get_or_insert_with(|| {
            let mut counted = Vec::new();
            for (rule, count) in before {
                let name: &'static str = rule.into();
                counted.extend((*count..shard.rule_count(*rule)).map(|_| name));
            }
            counted
        })
    }

    fn expect_rule(&mut self, name: &str) -> Result<(), String> {
        let name = match name {
            "ArpAnswers" if self.ends.server.is_ipv6() => "NeighborAnswers",
            "ArpLearns" if self.ends.server.is_ipv6() => "NeighborLearns",
            "ArpIgnored" if self.ends.server.is_ipv6() => "NeighborIgnored",
            other => other,
        };
        let counted = self.rules_counted();
        let Some(at) = counted.iter().position(|rule| *rule == name) else {
            return Err(format!("rule {name} was not counted; counted and not yet named: {counted:?}"));
        };
        let rule = counted.remove(at);
        self.named.insert(rule);
        Ok(())
    }

    /// Where a `!!` line names a rule, all that were counted are named.
    fn expect_rules_named(&mut self) -> Result<(), String> {
        match self.rules_left.take() {
            Some(left) if !left.is_empty() => Err(format!("before this line rules were counted unnamed: {left:?}")),
            Some(_) | None => Ok(()),
        }
    }

    fn expect_state(&mut self, port: u16, name: &str) -> Result<(), String> {
        let state = self.view(port).map_or("LISTEN".to_string(), |view| view.state.to_string());
        match state == name {
            true => Ok(()),
            false => Err(format!("the connection is in {state}")),
        }
    }

    fn expect_told(&mut self, port: u16, told: &Told) -> Result<(), String> {
        match told {
            Told::Received(bytes) => {
                let flow = self.flow_of(port)?;
                let received = self.shard.service().streams.get(&flow).map_or(0, |streams| streams.received_bytes);
                match received == *bytes {
                    true => Ok(()),
                    false => Err(format!("the application has received {received} bytes")),
                }
            }
            Told::Silent => match self.notices.is_empty() {
                true => Ok(()),
                false => Err(format!("the application was told {:?}", self.notices)),
            },
            Told::Notice(name) => {
                let at = self.notices.iter().position(|notice| *notice == (port, name.clone()));
                let at = at.ok_or(format!("the application was told only {:?}", self.notices))?;
                self.notices.remove(at);
                Ok(())
            }
        }
    }
}
