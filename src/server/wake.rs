//! Waking the worker: an eventfd that is written only while the worker sleeps.
//!
//! Comes in: `notify` from any thread that has put something into a queue. Goes out: a descriptor that the worker polls
//! beside its link. A worker that is awake looks into its queues anyway, so that a push to a busy shard costs no
//! system call.
//!
//! Invariant: no wake-up is lost. Both sides write first and read then, with a fence between: whoever puts something
//! into a queue and sees the worker awake can rely on the worker seeing the queue filled before it sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The door bell of one worker.
#[derive(Debug)]
pub(super) struct Wake {
    bell: EventFd,
    is_asleep: AtomicBool,
}

impl Wake {
    /// Fails only where the system has no descriptor left.
    pub(super) fn new() -> io::Result<Wake> {
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Wake { bell, is_asleep: AtomicBool::new(false) })
    }

    /// Called after something was put into a queue that the worker empties.
    pub(super) fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            // It fails only when 2^64 - 2 rings wait to be heard, which wakes the worker as well.
            let _ = self.bell.write(1);
        }
    }

    /// Announces sleep. The worker must look into its queues after this and before it polls.
    pub(super) fn fall_asleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends what `fall_asleep` began, whatever the reason to wake was.
    pub(super) fn wake_up(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Called where the bell was readable, which it is no longer then. Ordinarily the link or the clock wakes the
    /// worker, and this call is saved.
    pub(super) fn hear(&self) {
        // Only the worker reads it, so there is something to read.
        let _ = self.bell.read();
    }

    /// What becomes readable when somebody rings.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rings(wake: &Wake, timeout: PollTimeout) -> bool {
        poll(&mut [PollFd::new(wake.descriptor(), PollFlags::POLLIN)], timeout).expect("poll works") == 1
    }

    #[test]
    fn the_bell_rings_only_for_a_sleeper() {
        let wake = Wake::new().expect("an eventfd");
        wake.notify();
        assert!(!rings(&wake, PollTimeout::ZERO));
        wake.fall_asleep();
        wake.notify();
        assert!(rings(&wake, PollTimeout::ZERO));
        wake.wake_up();
        wake.hear();
        assert!(!rings(&wake, PollTimeout::ZERO));
    }

    #[test]
    fn no_wake_up_is_lost() {
        const COUNT: u32 = 50_000;
        let wake = Arc::new(Wake::new().expect("an eventfd"));
        let work = Arc::new(AtomicU32::new(0));
        let producer = {
            let (wake, work) = (Arc::clone(&wake), Arc::clone(&work));
            thread::spawn(move || {
                for _ in 0..COUNT {
                    work.fetch_add(1, Ordering::Relaxed);
                    wake.notify();
                    if work.load(Ordering::Relaxed) > 64 {
                        thread::yield_now();
                    }
                }
            })
        };
        let mut done = 0;
        while done < COUNT {
            let taken = work.swap(0, Ordering::Relaxed);
            done += taken;
            if taken == 0 {
                wake.fall_asleep();
                let has_rung = work.load(Ordering::Relaxed) == 0 && rings(&wake, PollTimeout::from(20_000u16));
                wake.wake_up();
                if has_rung {
                    wake.hear();
                }
                assert!(has_rung || work.load(Ordering::Relaxed) > 0, "asleep for 20 s with {done} of {COUNT} done");
            }
        }
        producer.join().expect("the producer ends");
    }
}
