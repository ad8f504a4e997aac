//! Names: the first line that a client sends is its name, so that a push can reach it by that.
//!
//! A name is 1 to 64 bytes of UTF-8 without control characters, ended by LF or CRLF; a client that sends something else
//! is reset. What follows is consumed. A name may have several connections: all of them are known by it. The name is
//! attached to the flow and survives what the connection survives; the table from names to flows is rebuilt from there.

use std::collections::{BTreeSet, HashMap};

use crate::shard::{CloseHow, CloseReason, Context, FlowId, Service};

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The service word of a flow whose name is known.
const NAMED: u64 = 1;

/// The names service.
#[derive(Debug, Default)]
pub struct Names {
    flows: HashMap<Box<[u8]>, BTreeSet<FlowId>>,
}

/// A first line that is no name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NotAName;

impl Names {
    fn enter(&mut self, name: &[u8], flow: FlowId) {
        self.flows.entry(name.into()).or_default().insert(flow);
    }

    fn leave(&mut self, name: &[u8], flow: FlowId) {
        let Some(flows) = self.flows.get_mut(name) else { return };
        flows.remove(&flow);
        if flows.is_empty() {
            self.flows.remove(name);
        }
    }
}

impl Service for Names {
    fn received(&mut self, context: &mut Context<'_>, flow: FlowId, bytes: &[u8]) -> usize {
        if context.word(flow) == Some(NAMED) {
            return bytes.len();
        }
        // The attachment holds what of the line has come so far.
        let mut line = context.attachment(flow);
        line.extend_from_slice(bytes);
        let is_attached = match name_of_line(&line) {
            Ok(None) => context.attach(flow, &line).is_ok(),
            Ok(Some(name)) => {
                context.set_word(flow, NAMED);
                self.enter(name, flow);
                context.set_name(flow, name).is_ok()
            }
            Err(NotAName) => false,
        };
        if !is_attached {
            // A flow that is gone cannot be reset either.
            let _ = context.close(flow, CloseHow::Reset);
        }
        bytes.len()
    }

    fn closed(&mut self, context: &mut Context<'_>, flow: FlowId, _reason: CloseReason) {
        if context.word(flow) == Some(NAMED) {
            let name = context.attachment(flow);
            self.leave(&name, flow);
        }
    }

    fn resumed(&mut self, context: &mut Context<'_>, flow: FlowId) {
        if context.word(flow) == Some(NAMED) {
            let name = context.attachment(flow);
            self.enter(&name, flow);
        }
    }

    fn named(&self, name: &[u8]) -> Vec<FlowId> {
        self.flows.get(name).map(|flows| flows.iter().copied().collect()).unwrap_or_default()
    }
}

/// The name that these bytes begin with; `None` while the line may still become one.
fn name_of_line(bytes: &[u8]) -> Result<Option<&[u8]>, NotAName> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        // One byte more than a name, for the CR.
        return if bytes.len() <= NAME_BYTES_MAX + 1 { Ok(None) } else { Err(NotAName) };
    };
    let name = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let is_text = std::str::from_utf8(name).is_ok_and(|text| !text.chars().any(char::is_control));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_text { Err(NotAName) } else { Ok(Some(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_of_text() {
        assert_eq!(name_of_line(b"alice\nhello"), Ok(Some(&b"alice"[..])));
        assert_eq!(name_of_line("Zoë\r\n".as_bytes()), Ok(Some("Zoë".as_bytes())));
        assert_eq!(name_of_line(b"ali"), Ok(None));
        assert_eq!(name_of_line(&[b'a'; NAME_BYTES_MAX + 1]), Ok(None));
        let longest = [&[b'a'; NAME_BYTES_MAX][..], b"\r\n"].concat();
        assert_eq!(name_of_line(&longest), Ok(Some(&[b'a'; NAME_BYTES_MAX][..])));
    }

    #[test]
    fn what_is_no_name_is_refused_as_soon_as_that_is_clear() {
        for line in [&b"\n"[..], b"\r\n", b"a\tb\n", b"\xff\n", &[b'a'; NAME_BYTES_MAX + 2]] {
            assert_eq!(name_of_line(line), Err(NotAName));
        }
        let too_long = [&[b'a'; NAME_BYTES_MAX + 1][..], b"\n"].concat();
        assert_eq!(name_of_line(&too_long), Err(NotAName));
    }
}
