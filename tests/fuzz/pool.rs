//! Pool: storages that are used again, so that an execution maps no memory.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use holdline::flows::Head;
use holdline::shard::{Capacity, Storage};

use crate::harness::{self, Storages, Target};

/// The emptied storages, by profile.
#[derive(Default)]
struct Pool(Vec<Place>);

#[derive(Default)]
struct Place {
    storage: Option<Storage>,
    /// What the storage said of itself before it was used.
    head: Option<Head>,
}

impl Pool {
    fn place(&mut self, profile: usize) -> &mut Place {
        if self.0.len() <= profile {
            self.0.resize_with(profile + 1, Place::default);
        }
        &mut self.0[profile]
    }
}

impl Storages for Pool {
    fn take(&mut self, profile: usize, capacity: Capacity) -> Storage {
        let place = self.place(profile);
        place.storage.take().unwrap_or_else(|| {
            let storage = Storage::in_memory_logged(capacity).expect("address space for a storage");
            place.head = Some(holdline::head_of(&storage));
            storage
        })
    }

    fn give_back(&mut self, profile: usize, mut storage: Storage) {
        let place = self.place(profile);
        holdline::empty(&mut storage, place.head.as_ref().expect("what is given back was taken"));
        place.storage = Some(storage);
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
        PLAYED.with_borrow(|played| {
            for (number, operation) in harness::decode(played).iter().enumerate() {
                eprintln!("{:4} {operation:?}", number + 1);
            }
        });
        next(info);
    }));
}

/// Plays one input.
pub fn play(target: Target, data: &[u8]) {
    IS_TELLING.call_once(tell_operations);
    PLAYED.with_borrow_mut(|played| data.clone_into(played));
    POOL.with_borrow_mut(|pool| target(data, pool));
}
