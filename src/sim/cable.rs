//! Cable: smoltcp's view of a network card, two queues of frames.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// See the module.
#[derive(Default)]
pub(super) struct Cable {
    /// Frames that have arrived.
    pub inbox: VecDeque<Vec<u8>>,
    /// Frames that are to leave.
    pub outbox: Vec<Vec<u8>>,
    /// Largest IP packet, in bytes.
    pub mtu: usize,
}

pub(super) struct Arrived(Vec<u8>);
pub(super) struct Departing<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Cable {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Departing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Departing<'_>)> {
        self.inbox.pop_front().map(|frame| (Arrived(frame), Departing(&mut self.outbox)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Departing<'_>> {
        Some(Departing(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        const ETHERNET_HEADER_BYTES: usize = 14;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER_BYTES;
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Departing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, f: F) -> R {
        let mut frame = vec![0; bytes];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}
