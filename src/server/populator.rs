//! The populator: a thread that brings in the memory that shards will touch next.
//!
//! Comes in: what the shards' arenas want, and a nudge when they want more. It holds nothing of a shard but that.
//!
//! Invariant: no worker ever waits for it, and it sleeps while there is nothing to bring in.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::shard::Ahead;

/// See the module. Dropping it ends the thread.
pub struct Populator {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Populator {
    /// Brings in what all these shards want now, and starts the thread for what they will. Errors: there is no thread.
    pub fn start(shards: Vec<Ahead>) -> io::Result<Populator> {
        shards.iter().for_each(Ahead::populate);
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("populator".to_owned()).spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    thread::park();
                    shards.iter().for_each(Ahead::populate);
                }
            }
        })?;
        Ok(Populator { is_over, thread: Some(thread) })
    }

    /// Wakes the thread if a shard wants anything. Whoever drives that calls it after each step.
    #[inline]
    pub fn nudge(&self, shard: &Ahead) {
        if let Some(thread) = self.thread.as_ref().filter(|_| shard.is_behind()) {
            thread.thread().unpark();
        }
    }
}

impl Drop for Populator {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It can only have panicked by a defect, and then there is nobody to tell.
            let _ = thread.join();
        }
    }
}
