//! Cores that workers are pinned to.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::ServerError;

/// Whether there is a core for each worker, and this process may use all of them.
pub(super) fn check(cores: &[usize], workers: usize) -> Result<(), ServerError> {
    if cores.is_empty() {
        return Ok(());
    }
    if cores.len() != workers {
        let sentence = format!("{} cores are given for {workers} workers; give one for each", cores.len());
        return Err(ServerError::Cores(sentence));
    }
    let allowed =
        sched_getaffinity(this_thread()).map_err(|errno| ServerError::System("a look at the cores", errno.into()))?;
    // Beyond the set's end there is no core.
    match cores.iter().find(|&&core| !allowed.is_set(core).unwrap_or(false)) {
        None => Ok(()),
        Some(core) => {
            let usable = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
            let usable: Vec<String> = usable.map(|core| core.to_string()).collect();
            let sentence = format!("this process may not use core {core}; it may use {}", usable.join(", "));
            Err(ServerError::Cores(sentence))
        }
    }
}

/// Pins the calling thread.
pub(super) fn pin(core: usize) {
    let mut cores = CpuSet::new();
    let pinned = cores.set(core).and_then(|()| sched_setaffinity(this_thread(), &cores));
    if let Err(errno) = pinned {
        tracing::warn!("a worker cannot be pinned to core {core}: {errno}; the system chooses");
    }
}

fn this_thread() -> Pid {
    Pid::from_raw(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_there_is_named() {
        assert!(check(&[], 3).is_ok());
        let error = check(&[0, 1], 3).expect_err("one is missing").to_string();
        assert!(error.contains("2 cores are given for 3 workers"), "{error}");
        for core in [CpuSet::count() - 1, CpuSet::count(), usize::MAX] {
            let error = check(&[core], 1).expect_err("no machine has it").to_string();
            assert!(error.contains(&format!("may not use core {core}; it may use ")), "{error}");
        }
    }

    #[test]
    fn a_thread_is_pinned_to_one_core() {
        let allowed = sched_getaffinity(this_thread()).expect("we may look");
        let core = (0..CpuSet::count()).find(|&core| allowed.is_set(core) == Ok(true)).expect("we run on one");
        let after = std::thread::spawn(move || {
            pin(core);
            sched_getaffinity(this_thread()).expect("we may look")
        });
        let after = after.join().expect("it ends");
        assert!((0..CpuSet::count()).all(|other| after.is_set(other) == Ok(other == core)));
    }
}
