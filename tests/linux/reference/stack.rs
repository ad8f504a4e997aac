//! Stack under comparison: one TCP with its application, as the client and the test see it.

use std::net::Ipv4Addr;

use super::crafted::Ends;

/// The client's address; no kernel has it.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);
/// The server's address, of the kernel's or of holdline's.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
pub const PREFIX: u8 = 16;
/// A port that is listened on.
pub const PORT: u16 = 7000;
/// Another one, whose connections have a small receive window.
pub const PORT_SMALL: u16 = 7001;
/// A port that nobody listens on.
pub const PORT_CLOSED: u16 = 7009;

/// A stack. Connections are named by the client's port. The application accepts every connection, reads nothing until
/// it is asked to, and closes only when it is told to.
pub trait Stack {
    /// Both ends of a connection from this client port.
    fn ends(&self, client_port: u16, server_port: u16) -> Ends;

    /// A frame arrives.
    fn inject(&mut self, frame: &[u8]);

    /// Everything that came out since the last call, after all that was injected was dealt with, delayed
    /// acknowledgments included.
    fn settle(&mut self) -> Vec<Vec<u8>>;

    /// The application closes its direction.
    fn close(&mut self, client_port: u16);

    /// The application closes both, and is no longer there to read.
    fn close_both(&mut self, client_port: u16);

    /// The application sends bytes.
    fn push(&mut self, client_port: u16, bytes: u16);

    /// The states of all connections, by client port, in the RFC's words. A connection that is not there is CLOSED.
    fn states(&mut self) -> Vec<(u16, String)>;

    /// All that the application can read.
    fn read(&mut self, client_port: u16) -> Vec<u8>;

    /// Forgets all connections; nothing of them may be heard again.
    fn forget(&mut self);
}
