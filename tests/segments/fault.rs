//! Faults: what is wrong with a frame that goes in, or unusual about it.

use std::net::IpAddr;

use super::reader::Reader;

/// What is wrong with, or unusual about, a frame that goes in.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// `corrupt checksum`: one bit of the TCP or ICMP checksum is flipped.
    Checksum,
    /// `corrupt ip-checksum`
    Ipv4Checksum,
    /// `corrupt data`: one bit of the last byte is flipped.
    Data,
    /// `truncate N`: the frame ends N bytes early.
    Truncate(usize),
    /// `pad N`: N bytes of Ethernet padding follow the packet.
    Pad(usize),
    /// `data-offset N`: the TCP header says it has N words.
    DataOffset(u8),
    /// `header-length N`: the IPv4 header says it has N words.
    HeaderLength(u8),
    /// `total-length N`: the IPv4 header says that the packet has N bytes.
    TotalLength(u16),
    /// `version N`: the IPv4 header says that it is version N.
    Version(u8),
    /// `fragment N`: the IPv4 flags and fragment offset field.
    Fragment(u16),
    /// `piece A..B`: of what lies behind the IP header only these bytes, as a fragment.
    Piece(usize, usize),
    /// `piece-of N`: the fragment is of the packet with this number, 1 where it is not written.
    PieceOf(u32),
    /// `last` or `more`: the fragment says that it is the last, or not; what is not written is true.
    Last(bool),
    /// `ip-options HEX`: options behind the IPv4 header, filled up with zeros.
    Ipv4Options(Vec<u8>),
    /// `protocol N`
    Protocol(u8),
    /// `ethertype N`
    EtherType(u16),
    /// `from-ip ADDRESS`
    FromIp(IpAddr),
    /// `to-ip ADDRESS`
    ToIp(IpAddr),
    /// `hop-limit N`
    HopLimit(u8),
    /// `icmp-code N`
    IcmpCode(u8),
    /// `payload-length N`: the IPv6 header says that so many bytes follow it.
    PayloadLength(u16),
    /// `next-header N`: what follows the IPv6 header and its extensions is said to be this.
    NextHeader(u8),
    /// `extension KIND HEX`: an IPv6 extension header of this kind behind those before, with what follows its own next
    /// header and length.
    Extension(u8, Vec<u8>),
    /// `extensions N`: so many headers of destination options, of padding each.
    Extensions(usize),
    /// `ndp-option HEX`: an option behind those of a message of neighbour discovery, as it is.
    NdpOption(Vec<u8>),
    /// `to-mac us`, `to-mac broadcast`, `to-mac group` (all nodes of IPv6) or `to-mac other`
    ToMac([u8; 6]),
}

impl Fault {
    /// The fault that begins with this word.
    pub fn parse(word: &str, reader: &mut Reader) -> Result<Fault, String> {
        Ok(match word {
            "corrupt" => match reader.word()?.as_str() {
                "checksum" => Fault::Checksum,
                "ip-checksum" => Fault::Ipv4Checksum,
                "data" => Fault::Data,
                other => return Err(format!("`{other}` cannot be corrupted")),
            },
            "truncate" => Fault::Truncate(reader.number()?),
            "pad" => Fault::Pad(reader.number()?),
            "data-offset" => Fault::DataOffset(reader.number()?),
            "header-length" => Fault::HeaderLength(reader.number()?),
            "total-length" => Fault::TotalLength(reader.number()?),
            "version" => Fault::Version(reader.number()?),
            "fragment" => Fault::Fragment(reader.number()?),
            "piece" => {
                let (start, bytes) = reader.range()?;
                Fault::Piece(start as usize, (start + bytes) as usize)
            }
            "piece-of" => Fault::PieceOf(reader.number()?),
            "last" => Fault::Last(true),
            "more" => Fault::Last(false),
            "ip-options" => Fault::Ipv4Options(reader.hex()?),
            "protocol" => Fault::Protocol(reader.number()?),
            "ethertype" => Fault::EtherType(reader.number()?),
            "from-ip" => Fault::FromIp(reader.address()?),
            "to-ip" => Fault::ToIp(reader.address()?),
            "hop-limit" => Fault::HopLimit(reader.number()?),
            "icmp-code" => Fault::IcmpCode(reader.number()?),
            "payload-length" => Fault::PayloadLength(reader.number()?),
            "next-header" => Fault::NextHeader(reader.number()?),
            "extension" => Fault::Extension(reader.number()?, reader.hex()?),
            "extensions" => Fault::Extensions(reader.number()?),
            "ndp-option" => Fault::NdpOption(reader.hex()?),
            "to-mac" => match reader.word()?.as_str() {
                "broadcast" => Fault::ToMac([0xff; 6]),
                "other" => Fault::ToMac([2, 0, 0, 0, 0, 0x77]),
                "us" => Fault::ToMac([2, 0, 0, 0, 0, 1]),
                "group" => Fault::ToMac([0x33, 0x33, 0, 0, 0, 1]),
                other => return Err(format!("a frame goes `to-mac` us, broadcast, group or other, not `{other}`")),
            },
            other => return Err(format!("`{other}` says nothing about a packet")),
        })
    }
}

/// The faults that the rest of a line says.
pub fn parse_faults(reader: &mut Reader) -> Result<Vec<Fault>, String> {
    let mut faults = Vec::new();
    while let Some(word) = reader.next_word() {
        faults.push(Fault::parse(&word, reader)?);
    }
    Ok(faults)
}
