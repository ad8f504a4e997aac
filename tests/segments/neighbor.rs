//! Neighbours of a script: messages of neighbour discovery in every detail.

use std::fmt;
use std::net::IpAddr;

use super::fault::Fault;
use super::reader::Reader;

/// A message of neighbour discovery about `target`.
#[derive(Clone, PartialEq, Debug)]
pub struct Neighbor {
    pub is_question: bool,
    pub target: IpAddr,
    pub is_solicited: bool,
    pub is_override: bool,
    /// From no address, as a machine asks that is about to take the target itself.
    pub is_from_nobody: bool,
    /// The last byte of the Ethernet address that it tells, if any.
    pub link: Option<u8>,
    pub faults: Vec<Fault>,
}

impl Neighbor {
    /// Understands a line that begins with `solicit` or `advertise`.
    pub fn parse(reader: &mut Reader) -> Result<Neighbor, String> {
        let is_question = reader.word()? == "solicit";
        let mut neighbor = Neighbor {
            is_question,
            target: reader.address()?,
            is_solicited: false,
            is_override: false,
            is_from_nobody: false,
            link: Some(2),
            faults: Vec::new(),
        };
        while let Some(word) = reader.next_word() {
            match word.as_str() {
                "solicited" => neighbor.is_solicited = true,
                "override" => neighbor.is_override = true,
                "nobody" => neighbor.is_from_nobody = true,
                "no-link" => neighbor.link = None,
                "link-elsewhere" => neighbor.link = Some(0x66),
                other => neighbor.faults.push(Fault::parse(other, reader)?),
            }
        }
        Ok(neighbor)
    }
}

impl fmt::Display for Neighbor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_question {
            return write!(f, "solicit {}", self.target);
        }
        let solicited = if self.is_solicited { " solicited" } else { "" };
        write!(f, "advertise {}{solicited}{}", self.target, if self.is_override { " override" } else { "" })
    }
}
