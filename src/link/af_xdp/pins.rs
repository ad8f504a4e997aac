//! Pins: what of the steering program outlives the process, and the next process's way to it.
//!
//! They lie in a directory for each interface, `/sys/fs/bpf/holdline/INTERFACE`: the link by which the program is
//! attached, the program, its maps. As long as they are there our frames are dropped while no process runs, and nobody
//! is sent a RST by a kernel that knows nothing of our connections. `rm -r` of the directory detaches the program.
//!
//! Invariant: whoever changes pins holds the lock of their directory, which ends with the process.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Mode;
use super::error::AfXdpError;
use crate::link::Persistence;

/// The link of an earlier process, and how it is attached.
pub(super) type Adopted = (FdLink, Mode);

/// The pins of one interface, locked.
pub(super) struct Pins {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Pins {
    /// Locks the pins of an interface, and takes up the link that an earlier process has pinned, if there is one.
    /// `None` where nothing is pinned, and nothing is to be.
    pub fn open(
        name: &str,
        index: u32,
        persistence: Persistence,
    ) -> Result<Option<(Pins, Option<Adopted>)>, AfXdpError> {
        let path = Path::new(ROOT).join("holdline").join(name);
        let failed = |source| AfXdpError::System { name: name.to_owned(), action: "open the pins", source };
        if persistence == Persistence::Kept {
            let kind = statfs(ROOT).map(|system| system.filesystem_type());
            if kind != Ok(BPF_FS_MAGIC) {
                return Err(AfXdpError::NoBpfFileSystem(ROOT.into()));
            }
            fs::create_dir_all(&path).map_err(failed)?;
        }
        let directory = match File::open(&path) {
            Ok(directory) => directory,
            // Without the right to look there is none to attach either, which is said better there.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let lock = Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => AfXdpError::Busy { name: name.to_owned(), path: path.clone() },
            errno => failed(errno.into()),
        })?;
        let pins = Pins { path, _lock: lock };
        let adopted = pins.adopt(name, index)?;
        Ok(Some((pins, adopted)))
    }

    /// The link that is pinned, and how it is attached. One of an interface that is gone is removed.
    fn adopt(&self, name: &str, index: u32) -> Result<Option<Adopted>, AfXdpError> {
        let Ok(link) = PinnedLink::from_pin(self.path.join(LINK)) else { return Ok(None) };
        // Settings that this version cannot read are another version's; its program ends, and there is a moment without
        // any.
        let Some(settings) = read_settings(&self.path.join("settings")) else {
            self.clear();
            return Ok(None);
        };
        let action = "see the network namespace";
        let here = network_namespace();
        let here = here.map_err(|source| AfXdpError::System { name: name.to_owned(), action, source })?;
        if settings.namespace != here {
            return Err(AfXdpError::OtherNamespace { name: name.to_owned(), path: self.path.clone() });
        }
        if settings.interface != index {
            self.clear();
            return Ok(None);
        }
        Ok(Some((link.into(), settings.mode)))
    }

    /// Pins the link, the program and its maps in the place of those of an earlier process.
    pub fn put(&self, link: FdLink, bpf: &mut Ebpf) -> Result<Option<FdLink>, Box<dyn Error>> {
        // Data sections are maps, too, but nobody's to look at, and a BPF file system takes no dot.
        for (name, map) in bpf.maps().filter(|(name, _)| !name.contains('.')) {
            let new = self.fresh(name);
            map.pin(&new)?;
            fs::rename(new, self.path.join(name))?;
        }
        let new = self.fresh(PROGRAM);
        bpf.program_mut("steer").ok_or("the object has no program")?.pin(&new)?;
        fs::rename(new, self.path.join(PROGRAM))?;
        if self.path.join(LINK).exists() {
            // It is the same link, with another program.
            return Ok(Some(link));
        }
        link.pin(self.path.join(LINK))?;
        Ok(None)
    }

    /// A place for a pin that is then moved into that of the old one, so that there always is one.
    fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path.join(format!("{name}-new"));
        // Left behind by a process that was killed here.
        let _ = fs::remove_file(&path);
        path
    }

    /// Removes the pins and their directory.
    pub fn remove(self) {
        self.clear();
        // Others' pins may be beside it.
        let _ = fs::remove_dir(&self.path);
        let _ = self.path.parent().map(fs::remove_dir);
    }

    fn clear(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        // What cannot be removed now is replaced later.
        entries.flatten().for_each(|entry| drop(fs::remove_file(entry.path())));
    }
}

/// What the program and the next process need to know of an interface: `struct settings` of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub mac: [u8; 6],
    pub mode: Mode,
    pub interface: u32,
    pub namespace: u32,
}

impl Settings {
    pub const BYTES: usize = 16;

    /// Those of an interface in this thread's network namespace.
    pub fn of(mac: [u8; 6], interface: u32, mode: Mode) -> Result<Settings, io::Error> {
        Ok(Settings { mac, mode, interface, namespace: network_namespace()? })
    }

    pub fn to_bytes(self) -> [u8; Settings::BYTES] {
        let mut bytes = [0; Settings::BYTES];
        bytes[..6].copy_from_slice(&self.mac);
        bytes[6..8].copy_from_slice(&(self.mode as u16).to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.interface.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.namespace.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; Settings::BYTES]) -> Option<Settings> {
        let [a, b, c, d, e, f, g, h, interface @ ..] = bytes;
        let mode = match u16::from_ne_bytes([g, h]) {
            0 => Mode::Native,
            1 => Mode::Generic,
            _ => return None,
        };
        let (interface, namespace) = interface.split_first_chunk::<4>()?;
        let [interface, namespace] = [*interface, namespace.try_into().ok()?].map(u32::from_ne_bytes);
        Some(Settings { mac: [a, b, c, d, e, f], mode, interface, namespace })
    }
}

fn read_settings(path: &Path) -> Option<Settings> {
    let map = Map::from_map_data(MapData::from_pin(path).ok()?).ok()?;
    let array = Array::<_, [u8; Settings::BYTES]>::try_from(&map).ok()?;
    Settings::from_bytes(array.get(&0, 0).ok()?)
}

/// The number of this thread's network namespace.
fn network_namespace() -> io::Result<u32> {
    fs::metadata("/proc/thread-self/ns/net").map(|metadata| metadata.ino() as u32)
}

/// Where BPF file systems are mounted.
const ROOT: &str = "/sys/fs/bpf";

/// The pin of the program, beside those of its maps, which have their names.
const PROGRAM: &str = "program";

/// The pin of the link.
const LINK: &str = "link";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_were_written() {
        let settings = Settings::of([2, 3, 4, 5, 6, 7], 12, Mode::Generic).expect("every thread has a namespace");
        assert_ne!(settings.namespace, 0);
        assert_eq!(Settings::from_bytes(settings.to_bytes()), Some(settings));
        let mut bytes = settings.to_bytes();
        bytes[7] = 9;
        assert_eq!(Settings::from_bytes(bytes), None);
    }
}
