//! The steering program: loaded, told what is ours, attached.
//!
//! The program is `xdp/steer.bpf.c`; its compiled object is part of this library. Comes in: which addresses and ports
//! are ours. Goes out: an interface that hands our frames to the sockets of its queues.
//!
//! A process brings its own program and its own maps, and fills the maps first. Where the link of an earlier process
//! was pinned it exchanges the program of that link for its own in one step, so that no frame slips through; else it
//! makes a link. Which of both: see `pins`.
//!
//! Invariant: the program is attached only when its maps say what is ours.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::xdp::{Xdp, XdpLink, XdpMode};
use nix::errno::Errno;

use super::error::AfXdpError;
use super::pins::{Pins, Settings};
use super::{Mode, Steering};
use crate::link::{InterfaceError, Persistence};

/// The program of one interface, attached.
pub(super) struct Program {
    bpf: Ebpf,
    /// Detaches the program when it is dropped, unless it is pinned.
    link: Option<FdLink>,
    /// Where everything is to be pinned once a socket is there.
    pins: Option<Pins>,
    mode: Mode,
}

/// An interface as the program needs to know it.
pub(super) struct Attachment<'a> {
    pub name: &'a str,
    pub index: u32,
    pub mac: [u8; 6],
    pub is_generic_wanted: bool,
    pub persistence: Persistence,
}

impl Program {
    /// Loads and attaches it.
    pub fn start(to: &Attachment<'_>, steering: &Steering) -> Result<Program, AfXdpError> {
        let (pins, adopted) = Pins::open(to.name, to.index, to.persistence)?.unzip();
        let adopted = adopted.flatten();
        let failed = |action, error: &(dyn Error + 'static)| refused(to.name, action, error);
        let mut bpf = Ebpf::load(OBJECT).map_err(|error| failed("load the steering program", &error))?;
        fill(&mut bpf, steering).map_err(|error| failed("tell the steering program what is ours", &error))?;
        let settings = Settings::of(to.mac, to.index, Mode::Native);
        let mut settings = settings.map_err(|error| failed("see the network namespace", &error))?;
        let mut tell = |bpf: &mut Ebpf, mode| {
            settings.mode = mode;
            set(bpf, &settings).map_err(|error| failed("tell the steering program its interface", &error))
        };
        tell(&mut bpf, Mode::Native)?;
        let program: &mut Xdp = program_of(&mut bpf);
        program.load().map_err(|error| failed("load the steering program", &error))?;
        let (link, mode) = match adopted.and_then(|(link, mode)| exchange(program, link).map(|link| (link, mode))) {
            Some(taken_up) => taken_up,
            None => attach(program, to)?,
        };
        tell(&mut bpf, mode)?;
        let pins = match to.persistence {
            Persistence::Kept => pins,
            Persistence::Vanishes => {
                // What an earlier process pinned is not to outlive this one.
                if let Some(pins) = pins {
                    pins.remove();
                }
                None
            }
        };
        Ok(Program { bpf, link: Some(link), pins, mode })
    }

    /// How it is attached.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Has frames of a queue go to a socket from now on. Where connections outlive the process, the program does, too,
    /// from the first socket on.
    pub fn put_socket(&mut self, name: &str, queue: u32, socket: BorrowedFd<'_>) -> Result<(), AfXdpError> {
        let map = self.bpf.map_mut("sockets").expect("the program has it");
        let put = XskMap::try_from(map).and_then(|mut sockets| sockets.set(queue, socket.as_raw_fd(), 0));
        put.map_err(|error| refused(name, "give the steering program a socket", &error))?;
        if let Some(pins) = &self.pins
            && let Some(link) = self.link.take()
        {
            self.link = pins.put(link, &mut self.bpf).map_err(|error| refused(name, "pin the program", &*error))?;
        }
        Ok(())
    }

    /// How often each verdict was given so far, by all cores.
    pub fn verdicts(&self) -> [u64; VERDICTS.len()] {
        let map = self.bpf.map("verdicts").expect("the program has it");
        let Ok(verdicts) = PerCpuArray::<_, u64>::try_from(map) else { return [0; VERDICTS.len()] };
        std::array::from_fn(|index| verdicts.get(&(index as u32), 0).map_or(0, |counts| counts.iter().sum()))
    }
}

/// Attaches the program, by the driver where that can do it.
fn attach(program: &mut Xdp, to: &Attachment<'_>) -> Result<(FdLink, Mode), AfXdpError> {
    let native = (!to.is_generic_wanted).then(|| program.attach_to_if_index(to.index, XdpMode::Driver));
    let (outcome, mode) = match native {
        Some(Err(error)) if !matches!(errno_of(&error), Some(Errno::EOPNOTSUPP | Errno::EINVAL)) => {
            (Err(error), Mode::Native)
        }
        Some(Ok(link)) => (Ok(link), Mode::Native),
        Some(Err(_)) | None => (program.attach_to_if_index(to.index, XdpMode::Skb), Mode::Generic),
    };
    let link = outcome.and_then(|id| program.take_link(id)).map_err(|error| match errno_of(&error) {
        Some(Errno::ERANGE) => AfXdpError::DriverMtu { name: to.name.to_owned() },
        Some(Errno::EBUSY | Errno::EEXIST) => AfXdpError::ForeignProgram(to.name.to_owned()),
        _ => refused(to.name, "attach the steering program", &error),
    })?;
    let link =
        FdLink::try_from(link).map_err(|error| refused(to.name, "attach the steering program by a link", &error))?;
    Ok((link, mode))
}

/// Puts the program in the place of that of an earlier process; `None`: its link is attached to nothing any more.
fn exchange(program: &mut Xdp, link: FdLink) -> Option<FdLink> {
    let id = program.attach_to_link(XdpLink::try_from(link).ok()?).ok()?;
    FdLink::try_from(program.take_link(id).ok()?).ok()
}

/// Writes down which addresses and ports are ours.
fn fill(bpf: &mut Ebpf, steering: &Steering) -> Result<(), MapError> {
    let mut addresses = HashMap::<_, [u8; 16], u32>::try_from(map_of(bpf, "addresses"))?;
    for address in &steering.addresses {
        addresses.insert(key(*address), OWN, 0)?;
    }
    for address in &steering.shared_addresses {
        addresses.insert(key(*address), PORTS, 0)?;
    }
    let mut words = [0u64; 1 << 10];
    for port in &steering.ports {
        words[usize::from(*port) / 64] |= 1 << (port % 64);
    }
    let mut ports = Array::<_, u64>::try_from(map_of(bpf, "ports"))?;
    for (index, word) in words.into_iter().enumerate().filter(|(_, word)| *word != 0) {
        ports.set(index as u32, word, 0)?;
    }
    Ok(())
}

fn set(bpf: &mut Ebpf, settings: &Settings) -> Result<(), MapError> {
    Array::<_, [u8; Settings::BYTES]>::try_from(map_of(bpf, "settings"))?.set(0, settings.to_bytes(), 0)
}

fn map_of<'a>(bpf: &'a mut Ebpf, name: &str) -> &'a mut Map {
    bpf.map_mut(name).expect("the program has all maps that are named here")
}

fn program_of(bpf: &mut Ebpf) -> &mut Xdp {
    let program = bpf.program_mut("steer").expect("the object has one program");
    program.try_into().expect("it is an XDP program")
}

/// An address as the maps have it; IPv4 is mapped.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// What the system said at the bottom of an error.
pub(super) fn errno_of(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut found = None;
    let mut next = Some(error);
    while let Some(error) = next {
        found = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).or(found);
        next = error.source();
    }
    found.map(Errno::from_raw)
}

pub(super) fn refused(name: &str, action: &'static str, error: &(dyn Error + 'static)) -> AfXdpError {
    let name = name.to_owned();
    match errno_of(error) {
        Some(Errno::EPERM | Errno::EACCES) => AfXdpError::NotPermitted(name),
        Some(Errno::ENODEV) => InterfaceError::Missing(name).into(),
        Some(errno) => AfXdpError::System { name, action, source: errno.into() },
        None => AfXdpError::System { name, action, source: io::Error::other(error.to_string()) },
    }
}

/// `enum verdict` of the program: what became of frames. The last counts beside the others.
pub(super) const VERDICTS: [(&str, &str); 8] = [
    ("passed", "frames left to the kernel"),
    ("address", "packets to an address of our own"),
    ("arp", "ARP for an address of our own"),
    ("neighbor", "neighbour solicitations for an address of our own"),
    ("port", "segments to a port of ours at an address of the kernel's"),
    ("fragment", "fragments of such segments"),
    ("icmp_error", "ICMP errors about what left from such a port"),
    ("no_socket", "frames of ours that no socket was there for"),
];

/// `enum holding` of the program.
const OWN: u32 = 1;
const PORTS: u32 = 2;

/// The program, as clang compiles it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/xdp/steer.bpf.o"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottom_of_an_error_decides_what_is_said() {
        let says = |errno: Errno| {
            let error = MapError::CreateError { name: "sockets".to_owned(), io_error: errno.into() };
            refused("eth0", "try it", &error).to_string()
        };
        assert!(says(Errno::EPERM).contains("cap_bpf"), "{}", says(Errno::EPERM));
        assert!(says(Errno::ENODEV).contains("no interface eth0"));
        assert!(says(Errno::ENOMEM).contains("cannot try it for AF_XDP on eth0"));
    }

    #[test]
    fn the_object_has_the_program_and_its_maps() {
        let object = String::from_utf8_lossy(OBJECT);
        for name in ["steer", "sockets", "addresses", "ports", "fragments", "settings", "verdicts"] {
            assert!(object.contains(name), "{name}");
        }
    }
}
