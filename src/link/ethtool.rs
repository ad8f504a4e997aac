//! What ethtool(8) asks of an interface: its driver, its queues, whether it completes checksums.
//!
//! Invariant: nothing is set but what is named, on the interface that is named.

use std::ffi::c_void;

use nix::errno::Errno;
use nix::libc;

use super::interface::{InterfaceError, InterfaceRequest};

/// The name of the interface's driver; none where it tells none.
pub(super) fn driver(name: &str) -> Result<Option<String>, InterfaceError> {
    let mut value = [0; DRIVER_INFORMATION_BYTES];
    if !ask(name, &mut value, ETHTOOL_GDRVINFO, "read the driver")? {
        return Ok(None);
    }
    // The command, then a name of 32 bytes.
    let text = &value[4..36];
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    Ok(Some(String::from_utf8_lossy(&text[..end]).into_owned()))
}

/// How many queues receive. An interface that knows no queues has one.
pub(super) fn receive_queues(name: &str) -> Result<u32, InterfaceError> {
    let mut value = [0; CHANNELS_BYTES];
    if !ask(name, &mut value, ETHTOOL_GCHANNELS, "read the queues")? {
        return Ok(1);
    }
    let word = |index: usize| {
        let bytes = value[4 * index..].first_chunk().expect("nine words were asked for");
        u32::from_ne_bytes(*bytes)
    };
    // The command and four bounds; then those that only receive, only send, do neither, do both.
    Ok((word(5) + word(8)).max(1))
}

/// Has the interface complete the checksums of what it sends in software, so that whoever reads at the other end of a
/// veth pair meets none that are half done.
pub fn complete_checksums(name: &str) -> Result<(), InterfaceError> {
    let mut value = [0; 8];
    ask(name, &mut value, ETHTOOL_STXCSUM, "have checksums completed").map(drop)
}

/// One call with the structure `value`, whose first word becomes the command. False: this interface knows no such
/// thing.
fn ask(name: &str, value: &mut [u8], command: u32, action: &'static str) -> Result<bool, InterfaceError> {
    value[..4].copy_from_slice(&command.to_ne_bytes());
    let mut request = InterfaceRequest::new(name)?;
    request.set_pointer(value.as_mut_ptr().cast::<c_void>());
    match request.call(libc::SIOCETHTOOL as libc::Ioctl, action) {
        Ok(()) => Ok(true),
        Err(InterfaceError::System { source, .. }) if source.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// linux/ethtool.h: commands, and the sizes of their structures.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const DRIVER_INFORMATION_BYTES: usize = 196;
const CHANNELS_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_has_one_queue_and_a_missing_interface_is_named() {
        assert_eq!(receive_queues("lo").expect("every machine has it"), 1);
        let error = driver("no-such-if").unwrap_err().to_string();
        assert!(error.contains("no-such-if") && error.contains("read the driver"), "{error}");
    }
}
