//! AF_XDP sockets: opened, given their rings, bound to a queue, called.
//!
//! Comes in: a queue of an interface and the memory that its frames lie in. Goes out: a socket with four rings, and how
//! the kernel moves frames between the memory and the driver: in place, or copied.
//!
//! Invariant: a socket is bound only when its rings are there, and nothing of it outlives the descriptor but mappings.

use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use super::pump::Rings;
use super::ring::{Consumer, Place, Producer};
use super::umem::{RECEIVE_FRAMES, SEND_FRAMES, Umem};
use crate::link::options;

/// A socket that is bound to a queue.
#[derive(Debug)]
pub(super) struct Socket {
    descriptor: OwnedFd,
}

/// How a socket comes to its memory.
pub(super) enum Memory<'a> {
    /// It registers the memory.
    Registers(&'a Umem),
    /// It shares that of a socket of the same interface.
    Shares(BorrowedFd<'a>),
}

/// Whether the kernel may put frames into the memory without copying them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copying {
    /// Where the driver can do without.
    IfNeeded,
    /// Always.
    Always,
}

/// What the kernel counts for a socket, as far as frames were lost.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Losses {
    /// Received frames that were dropped for other reasons, such as that they were too long.
    pub dropped: u64,
    /// Received frames that found the receive ring full.
    pub receive_ring_full: u64,
    /// Received frames that found the fill ring empty.
    pub fill_ring_empty: u64,
    /// Descriptors in the transmit ring that the kernel did not take.
    pub transmit_invalid: u64,
}

impl Socket {
    /// Opens one and binds it to a queue. A queue whose last socket has just died is busy for some milliseconds, so
    /// that is tried again for a while.
    pub fn bind(
        interface_index: u32,
        queue: u32,
        memory: &Memory<'_>,
        copying: Copying,
    ) -> Result<(Socket, Rings), Errno> {
        // SAFETY: it takes numbers and touches no memory of ours.
        let answer = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        let number = Errno::result(answer)?;
        // SAFETY: the descriptor was just made, and is nobody else's.
        let socket = Socket { descriptor: unsafe { OwnedFd::from_raw_fd(number) } };
        if let Memory::Registers(umem) = memory {
            // SAFETY: the registration is integers, for all of which zero is a value.
            let mut registration: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
            registration.addr = umem.address();
            registration.len = umem.bytes() as u64;
            registration.chunk_size = umem.frame_bytes();
            options::set(&socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)?;
        }
        options::set(&socket, libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, &RECEIVE_FRAMES)?;
        options::set(&socket, libc::SOL_XDP, libc::XDP_UMEM_COMPLETION_RING, &SEND_FRAMES)?;
        options::set(&socket, libc::SOL_XDP, libc::XDP_RX_RING, &RECEIVE_FRAMES)?;
        options::set(&socket, libc::SOL_XDP, libc::XDP_TX_RING, &SEND_FRAMES)?;
        // Where frames are copied, those under way count against this; without the right to, the default is smaller.
        let _ = options::set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER_BYTES);
        let rings = socket.rings()?;
        socket.bind_patiently(interface_index, queue, memory, copying)?;
        Ok((socket, rings))
    }

    fn bind_patiently(
        &self,
        interface_index: u32,
        queue: u32,
        memory: &Memory<'_>,
        copying: Copying,
    ) -> Result<(), Errno> {
        let copy = if copying == Copying::Always { libc::XDP_COPY } else { 0 };
        // A socket that shares does everything as the first one does.
        let (flags, shared) = match memory {
            Memory::Registers(_) => (libc::XDP_USE_NEED_WAKEUP | copy, 0),
            Memory::Shares(first) => (libc::XDP_SHARED_UMEM, first.as_raw_fd() as u32),
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: interface_index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared,
        };
        let until = Instant::now() + BUSY_PATIENCE;
        loop {
            // SAFETY: the kernel reads one `sockaddr_xdp`, which lives across the call and whose length is given.
            let answer = unsafe {
                libc::bind(
                    self.descriptor.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
                )
            };
            match Errno::result(answer) {
                Err(Errno::EBUSY) if Instant::now() < until => sleep(BUSY_PAUSE),
                outcome => return outcome.map(drop),
            }
        }
    }

    fn rings(&self) -> Result<Rings, Errno> {
        // SAFETY: offsets are integers, for all of which zero is a value.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
        options::read(self, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        let fill = self.map(libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t, &offsets.fr, RECEIVE_FRAMES)?;
        let completion = self.map(libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t, &offsets.cr, SEND_FRAMES)?;
        let receive = self.map(libc::XDP_PGOFF_RX_RING, &offsets.rx, RECEIVE_FRAMES)?;
        let transmit = self.map(libc::XDP_PGOFF_TX_RING, &offsets.tx, SEND_FRAMES)?;
        // SAFETY: each is the place of a ring of that kind, and this is the only time that it is mapped.
        unsafe {
            Ok(Rings {
                fill: Producer::new(fill),
                receive: Consumer::new(receive),
                transmit: Producer::new(transmit),
                completion: Consumer::new(completion),
            })
        }
    }

    /// Maps the ring at a page offset.
    fn map<T>(&self, at: libc::off_t, offsets: &libc::xdp_ring_offset, size: u32) -> Result<Place<T>, Errno> {
        let bytes = offsets.desc as usize + size as usize * size_of::<T>();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory that is there.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, self.descriptor.as_raw_fd(), at) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::ENOMEM)?;
        let memory: Arc<dyn Any + Send + Sync> = Arc::new(Mapping { base, bytes });
        // SAFETY: the kernel says where in the mapping its indices and entries begin.
        let place = |offset: u64| unsafe { base.add(offset as usize) };
        Ok(Place {
            producer: place(offsets.producer).cast(),
            consumer: place(offsets.consumer).cast(),
            flags: place(offsets.flags).cast(),
            entries: place(offsets.desc).cast(),
            size,
            _memory: memory,
        })
    }

    /// Whether frames pass without being copied.
    pub fn is_zero_copy(&self) -> Result<bool, Errno> {
        let mut options = libc::xdp_options { flags: 0 };
        options::read(self, libc::SOL_XDP, libc::XDP_OPTIONS, &mut options)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What was lost so far.
    pub fn losses(&self) -> Result<Losses, Errno> {
        // SAFETY: statistics are integers, for all of which zero is a value.
        let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        options::read(self, libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics)?;
        Ok(Losses {
            dropped: statistics.rx_dropped,
            receive_ring_full: statistics.rx_ring_full,
            fill_ring_empty: statistics.rx_fill_ring_empty_descs,
            transmit_invalid: statistics.tx_invalid_descs,
        })
    }

    /// Has the thread that calls for frames run the driver, instead of interrupts.
    pub fn poll_busily(&self) -> Result<(), Errno> {
        options::set(self, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1)?;
        options::set(self, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &BUSY_POLL_US)?;
        options::set(self, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &BUSY_POLL_FRAMES)
    }

    /// Has the kernel look at the transmit ring.
    pub fn call_to_send(&self) -> Result<(), Errno> {
        // SAFETY: no bytes and no address are passed.
        let answer = unsafe {
            libc::sendto(self.descriptor.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        Errno::result(answer).map(drop)
    }

    /// Has the kernel look at the fill ring, and the driver for frames where it is polled busily.
    pub fn call_to_receive(&self) -> Result<(), Errno> {
        let (bytes, address) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: no bytes and no address are asked for.
        let answer = unsafe {
            libc::recvfrom(self.descriptor.as_raw_fd(), bytes, 0, libc::MSG_DONTWAIT, address, std::ptr::null_mut())
        };
        Errno::result(answer).map(drop)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The mapping of one ring.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping may be used, and taken down, by any thread; who does what in it is a matter of the ring.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever uses the ring keeps it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// How long a queue may be busy whose last owner was killed.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for a queue that is busy, between tries.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What may be under way where frames are copied: a transmit ring of the smallest frames, as the kernel counts them.
const SEND_BUFFER_BYTES: i32 = 4 << 20;

/// Busy polling: how long a call may wait for the driver, and how many frames it takes at most.
const BUSY_POLL_US: i32 = 20;
const BUSY_POLL_FRAMES: i32 = 64;

/// asm-generic/socket.h.
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
