//! Socket options whose values are plain structures of the kernel's, for which `nix` has no words.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// Sets an option whose value the kernel reads as `T`.
pub(super) fn set<T>(socket: &impl AsFd, level: i32, option: i32, value: &T) -> Result<(), Errno> {
    let (from, bytes) = ((&raw const *value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel reads as many bytes as `T` has, all of them inside `value`; what a `sock_fprog` points to
    // lives in its caller until after the call.
    let answer = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, from, bytes) };
    Errno::result(answer).map(drop)
}

/// Has the kernel write an option's value over `value`, every `T` of which is integers alone.
pub(super) fn read<T>(socket: &impl AsFd, level: i32, option: i32, value: &mut T) -> Result<(), Errno> {
    let (to, mut bytes) = ((&raw mut *value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel writes at most as many bytes as `T` has, and any bytes are a `T`.
    let answer = unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, option, to, &raw mut bytes) };
    Errno::result(answer).map(drop)
}
