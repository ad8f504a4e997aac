//! The doors of the control side: a Unix socket for its owner only, and a TCP port for metrics.
//!
//! Comes in: a path, an address. Goes out: listening sockets, or a sentence that says what is in the way.
//!
//! Invariant: the socket is never open to others, not even for a moment: its mode is set before it has a name.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

/// A listening Unix socket; its name goes with it.
#[derive(Debug)]
pub(super) struct NamedListener {
    path: PathBuf,
    inode: u64,
}

impl NamedListener {
    /// Makes the socket at `path`, in place of one that a process left behind which is gone.
    pub(super) fn bind(path: &Path) -> Result<(NamedListener, UnixListener), String> {
        remove_stale(path)?;
        let refused = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::NotFound => "make its directory first",
                io::ErrorKind::PermissionDenied => "choose a directory that this user may write to",
                _ => "choose another path",
            };
            format!("cannot make the control socket {}: {error}; {advice}", path.display())
        };
        let descriptor = bound(path).map_err(|errno| refused(errno.into()))?;
        let listener = UnixListener::from(descriptor);
        listener.set_nonblocking(true).map_err(refused)?;
        let inode = std::fs::symlink_metadata(path).map_err(refused)?.ino();
        Ok((NamedListener { path: path.to_owned(), inode }, listener))
    }
}

impl Drop for NamedListener {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode);
        if is_ours {
            // Where it cannot be removed, the next start finds that nobody answers.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// On Linux a socket's file takes the mode that the socket has when it is bound.
fn bound(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let descriptor = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&descriptor, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(descriptor.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&descriptor, Backlog::MAXALLOWABLE)?;
    Ok(descriptor)
}

fn remove_stale(path: &Path) -> Result<(), String> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !metadata.file_type().is_socket() {
        return Err(format!("{shown} is there and is no socket; give another path for the control socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|error| format!("cannot remove the control socket {shown} of an earlier process: {error}")),
        Err(error) => Err(format!("the control socket {shown} is there and cannot be tried: {error}; remove it")),
        Ok(_) => Err(format!("another process answers at the control socket {shown}; give another path or stop it")),
    }
}

/// A listening TCP socket.
pub(super) fn bind_metrics(address: SocketAddr) -> Result<TcpListener, String> {
    let refused = |error: io::Error| format!("cannot listen on {address} for metrics: {error}; choose another port");
    let listener = TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_is_for_its_owner_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        let (named, listener) = NamedListener::bind(&path).expect("it is free");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = NamedListener::bind(&path).expect_err("it is taken");
        assert!(error.contains("another process answers"), "{error}");
        drop(listener);
        drop(named);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_replaced_and_nothing_else_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        drop(UnixListener::bind(&path).expect("it is free"));
        NamedListener::bind(&path).expect("nobody answers there");
        std::fs::write(&path, "a file").expect("there is room");
        let error = NamedListener::bind(&path).expect_err("it is a file");
        assert!(error.contains("is no socket") && path.exists(), "{error}");
        let error = NamedListener::bind(&directory.path().join("none/control")).expect_err("no directory");
        assert!(error.contains("make its directory first"), "{error}");
        let long = directory.path().join("x".repeat(120));
        assert!(NamedListener::bind(&long).expect_err("too long").contains("choose another path"));
    }
}
