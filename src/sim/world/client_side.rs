//! The clients' side of a world: letting them run, and hearing what their applications saw.

use super::super::client::Sight;
use super::super::report::Breach;
use super::{Sabotage, World};

impl World {
    pub(super) fn run_clients(&mut self) -> Result<(), Breach> {
        let mut sights = Vec::new();
        for index in 0..self.clients.len() {
            let is_called = std::mem::take(&mut self.are_called[index]);
            let is_due = self.clients[index].wake_us(self.now_us).is_some_and(|wake_us| wake_us <= self.now_us);
            if self.has_vanished(index) || !(is_called || is_due) {
                continue;
            }
            self.clients[index].step(self.now_us, &mut sights)?;
            for (number, sight) in sights.drain(..) {
                self.on_sight(number, sight)?;
            }
            for application in self.clients[index].progress() {
                self.ledgers[application.number].follow(&application);
            }
            for frame in self.clients[index].sent() {
                self.carry_from_client(index, frame);
            }
        }
        Ok(())
    }

    fn on_sight(&mut self, number: usize, sight: Sight) -> Result<(), Breach> {
        let sight = match sight {
            Sight::Bytes(_) if self.lies(Sabotage::EndEarly) => Sight::End,
            Sight::Bytes(_) if self.lies(Sabotage::ResetClient) => Sight::Reset,
            Sight::Bytes(mut bytes) => {
                if self.lies(Sabotage::FlipDeliveredBit) {
                    bytes[0] ^= 1;
                }
                if self.lies(Sabotage::RepeatDeliveredBytes) {
                    bytes.extend_from_within(..);
                }
                Sight::Bytes(bytes)
            }
            Sight::Established | Sight::End | Sight::Delivered(_) | Sight::Reset | Sight::Finished => sight,
        };
        let taken_bytes = self.wiretaps[number].taken_bytes();
        let sight = match sight {
            Sight::Delivered(bytes) if self.lies(Sabotage::RepeatOwnReceipt) => {
                self.ledgers[number].on_own_delivered(bytes, taken_bytes)?;
                Sight::Delivered(bytes)
            }
            Sight::Delivered(_) if self.lies(Sabotage::HurryOwnReceipt) => Sight::Delivered(taken_bytes + 2),
            _ => sight,
        };
        let ledger = &mut self.ledgers[number];
        match sight {
            Sight::Bytes(bytes) => {
                self.statistics.bytes += bytes.len() as u64;
                ledger.on_bytes(&bytes)
            }
            Sight::End => {
                self.trace.event(self.now_us, "end", &number);
                ledger.on_end()
            }
            Sight::Reset => {
                self.trace.event(self.now_us, "reset", &number);
                ledger.on_reset()
            }
            Sight::Delivered(bytes) => ledger.on_own_delivered(bytes, taken_bytes),
            Sight::Established | Sight::Finished => {
                self.trace.event(self.now_us, "client", &(number, sight));
                Ok(())
            }
        }
    }
}
