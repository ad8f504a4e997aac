//! Pool: storages that are used again, so that an execution maps no memory.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use holdline::flows::Head;
use holdline::shard::{Capacity, Storage};

use crate::harness::{self, Storages, Target};

/// An emptied storage for each profile, and its head as it was at first.
#[derive(Default)]
struct Pool {
    storages: [Option<Storage>; PROFILES],
    heads: [Option<Head>; PROFILES],
}

const PROFILES: usize = crate::harness::PROFILE_COUNT;

impl Storages for Pool {
    fn take(&mut self, profile: usize, capacity: Capacity) -> Storage {
        self.storages[profile].take().unwrap_or_else(|| {
            let storage = Storage::in_memory_logged(capacity).expect("address space for a storage");
            self.heads[profile] = Some(holdline::head_of(&storage));
            storage
        })
    }

    fn give_back(&mut self, profile: usize, mut storage: Storage) {
        holdline::empty(&mut storage, self.heads[profile].as_ref().expect("it was taken from here"));
        self.storages[profile] = Some(storage);
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
    static PLAYED: RefCell<Vec<u8>> = RefCell::default();
}

static IS_TELLING: Once = Once::new();

/// From now on a panic tells the operations of the input first.
fn tell_operations() {
    let next = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PLAYED.with_borrow(|played| harness::decode(played).iter().for_each(|operation| eprintln!("    {operation:?}")));
        next(info);
    }));
}

/// Plays one input.
pub fn play(target: Target, data: &[u8]) {
    IS_TELLING.call_once(tell_operations);
    PLAYED.with_borrow_mut(|played| data.clone_into(played));
    POOL.with_borrow_mut(|pool| target(data, pool));
}
