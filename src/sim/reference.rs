//! A client machine whose TCP is smoltcp, an independent one.
//!
//! Invariant: nothing of ours is in its TCP; what the two stacks have in common is the RFC.

use std::collections::{BTreeMap, VecDeque};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::application::{self, Application};
use super::client::{self, Progress, Sight};
use super::frame::{self, destination_port, source_port};
use super::network::Port;
use super::profile::ClientParameters;

/// A client machine.
pub(super) struct ReferenceClient {
    interface: Interface,
    cable: Cable,
    sockets: SocketSet<'static>,
    applications: Vec<Application>,
    /// Which of them take over the port of the one before.
    are_successors: Vec<bool>,
    /// By how much the sequence numbers of each port are moved: the number that TCP itself has begun with, and how far.
    moved_numbers: BTreeMap<u16, (u32, u32)>,
    tcp_wake_us: Option<u64>,
    /// How often smoltcp was helped out of a stall of its own, see `Application::rescue`.
    pub(super) rescues: u64,
}

impl ReferenceClient {
    /// The client of this index; its connections are numbered from `first_number` on.
    pub(super) fn new(index: usize, parameters: &ClientParameters, seed: u64, first_number: usize) -> ReferenceClient {
        let mut cable = Cable { mtu: usize::from(parameters.mtu), ..Cable::default() };
        let address = EthernetAddress(Port::Client(index).mac());
        let mut config = Config::new(HardwareAddress::Ethernet(address));
        config.random_seed = parameters.isn_seed;
        let mut interface = Interface::new(config, &mut cable, Instant::ZERO);
        let ip_address = client::address(index, parameters);
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(ip_address.into(), client::prefix(ip_address)));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let mut applications: Vec<Application> = Vec::new();
        let mut are_successors = Vec::new();
        let ends = client::ends(index, parameters, first_number);
        for ((number, connection), (local, is_successor)) in (first_number..).zip(&parameters.connections).zip(ends) {
            are_successors.push(is_successor);
            applications.push(Application::new(number, connection, seed, local, &mut sockets));
        }
        ReferenceClient {
            interface,
            cable,
            sockets,
            applications,
            are_successors,
            moved_numbers: BTreeMap::new(),
            tcp_wake_us: Some(0),
            rescues: 0,
        }
    }

    /// A frame has arrived.
    pub(super) fn arrive(&mut self, frame: Vec<u8>) {
        let mut frame = frame;
        if let Some(&(_, by @ 1..)) = destination_port(&frame).and_then(|port| self.moved_numbers.get(&port)) {
            frame::shift_numbers(&mut frame, 0, by.wrapping_neg());
        }
        self.cable.inbox.push_back(frame);
    }

    /// The frames sent since the last call.
    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut frames = std::mem::take(&mut self.cable.outbox);
        for frame in &mut frames {
            self.move_numbers(frame);
        }
        frames
    }

    /// Its TCP draws its own initial sequence numbers; the wire sees those that are wanted.
    fn move_numbers(&mut self, frame: &mut [u8]) {
        if let Some((port, seq)) = frame::opening_syn(frame)
            && self.moved_numbers.get(&port).is_none_or(|&(own, _)| own != seq)
        {
            // One that has its port from another keeps what TCP has drawn: numbers that were used just now would mix
            // them up.
            let of_port = |it: &&Application| it.progress.local.port() == port && it.progress.is_begun;
            let begun = self.applications.iter().zip(&self.are_successors).rfind(|(it, _)| of_port(it));
            let begun = begun.filter(|&(_, &is_successor)| !is_successor);
            let by = begun
                .and_then(|(application, _)| application.isn_before_wrap())
                .map_or(0, |it| it.wrapping_neg().wrapping_sub(seq));
            self.moved_numbers.insert(port, (seq, by));
        }
        if let Some(&(_, by @ 1..)) = source_port(frame).and_then(|port| self.moved_numbers.get(&port)) {
            frame::shift_numbers(frame, by, 0);
        }
    }

    /// From now on nobody reads or writes slowly.
    pub(super) fn heal(&mut self) {
        for application in &mut self.applications {
            application.heal();
        }
    }

    /// What the applications have done.
    pub(super) fn progress(&self) -> Vec<Progress> {
        self.applications.iter().map(|application| application.progress).collect()
    }

    /// When to call `step` next, if nothing arrives.
    pub(super) fn wake_us(&self, now_us: u64) -> Option<u64> {
        let applications = self.applications.iter().filter_map(|it| it.wake_us(&self.sockets, now_us));
        applications.chain(self.tcp_wake_us).min()
    }

    /// Lets TCP and applications run.
    pub(super) fn step(&mut self, now_us: u64, sights: &mut Vec<(usize, Sight)>) {
        application::set_clock(now_us);
        let now = Instant::from_micros(now_us as i64);
        loop {
            self.interface.poll(now, &mut self.cable, &mut self.sockets);
            let mut has_acted = false;
            for index in 0..self.applications.len() {
                let is_port_free =
                    !self.are_successors[index] || self.applications[index - 1].has_left_port(&self.sockets);
                let application = &mut self.applications[index];
                has_acted |= application.act(now_us, is_port_free, &mut self.interface, &mut self.sockets, sights);
            }
            if !has_acted {
                break;
            }
        }
        self.tcp_wake_us = self.interface.poll_at(now, &self.sockets).map(|at| at.total_micros().max(0) as u64);
        let has_no_timer = self.tcp_wake_us.is_none();
        for application in &mut self.applications {
            if application.rescue(now_us, &mut self.sockets, has_no_timer) {
                self.rescues += 1;
                self.tcp_wake_us = Some(now_us + 1);
            }
        }
    }
}

/// smoltcp's view of a network card.
#[derive(Default)]
struct Cable {
    inbox: VecDeque<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
    mtu: usize,
}

struct Arrived(Vec<u8>);
struct Departing<'a>(&'a mut Vec<Vec<u8>>);

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
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + frame::IP;
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
