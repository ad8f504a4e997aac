//! TCP on the wire: segments with their options as bytes, and taken apart again.

use std::net::IpAddr;

use super::frame::{Ends, checksum, corrupt, pseudo_header, u16_at, u32_at};
use super::packet::{Fault, Tcp};

const TCP_BYTES: usize = 20;

/// A segment from one address to another.
pub fn tcp_bytes(tcp: &Tcp, ends: &Ends, payload: &[u8], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(tcp.port.to_be_bytes());
    bytes.extend(tcp.server_port.unwrap_or(ends.server_port).to_be_bytes());
    bytes.extend(tcp.seq.expect("a segment that goes in has a sequence number").to_be_bytes());
    bytes.extend(tcp.ack.unwrap_or(0).to_be_bytes());
    let options = option_bytes(tcp);
    let bits = [tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack.is_some(), tcp.urgent.is_some(), tcp.ece, tcp.cwr];
    let control = bits.iter().enumerate().fold(0u8, |byte, (at, is_set)| byte | u8::from(*is_set) << at);
    bytes.extend([(((TCP_BYTES + options.len()) / 4) as u8) << 4, control]);
    bytes.extend(tcp.window.unwrap_or(65_535).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(tcp.urgent.unwrap_or(0).to_be_bytes());
    bytes.extend(options);
    bytes.extend(payload);
    for fault in &tcp.faults {
        if let Fault::DataOffset(words) = fault {
            bytes[12] = words << 4;
        }
    }
    let sum = checksum(&[&pseudo_header(from, to, 6, bytes.len()), &bytes]);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    corrupt(&mut bytes, 17, &tcp.faults);
    bytes
}

fn option_bytes(tcp: &Tcp) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mss) = tcp.mss {
        bytes.extend([2, 4]);
        bytes.extend(mss.to_be_bytes());
    }
    if tcp.sack_permitted {
        bytes.extend([1, 1, 4, 2]);
    }
    if let Some((value, echo)) = tcp.timestamps {
        bytes.extend([1, 1, 8, 10]);
        bytes.extend(value.to_be_bytes());
        bytes.extend(echo.to_be_bytes());
    }
    if let Some(shift) = tcp.window_scale {
        bytes.extend([1, 3, 3, shift]);
    }
    if !tcp.sack.is_empty() {
        bytes.extend([1, 1, 5, (2 + 8 * tcp.sack.len()) as u8]);
        for (start, end) in &tcp.sack {
            bytes.extend(start.to_be_bytes());
            bytes.extend(end.to_be_bytes());
        }
    }
    bytes.extend(&tcp.option_bytes);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A segment and its data.
pub fn parse_tcp(segment: &[u8], from: IpAddr, to: IpAddr) -> Result<(Tcp, Vec<u8>), String> {
    if segment.len() < TCP_BYTES {
        return Err("a packet that ends within its TCP header".into());
    }
    if checksum(&[&pseudo_header(from, to, 6, segment.len()), segment]) != 0 {
        return Err("a wrong TCP checksum".into());
    }
    let header_bytes = usize::from(segment[12] >> 4) * 4;
    if header_bytes < TCP_BYTES || header_bytes > segment.len() || segment[12] & 0x0f != 0 {
        return Err(format!("a TCP data offset of {:02x}", segment[12]));
    }
    let (header, payload) = segment.split_at(header_bytes);
    let is_set = |bit: u8| header[13] & 1 << bit != 0;
    let mut tcp = Tcp {
        server_port: Some(u16_at(header, 0)),
        port: u16_at(header, 2),
        seq: Some(u32_at(header, 4)),
        ack: is_set(4).then_some(u32_at(header, 8)),
        fin: is_set(0),
        syn: is_set(1),
        rst: is_set(2),
        psh: is_set(3),
        urgent: is_set(5).then_some(u16_at(header, 18)),
        ece: is_set(6),
        cwr: is_set(7),
        window: Some(u16_at(header, 14)),
        bytes: payload.len() as u32,
        ..Tcp::default()
    };
    if tcp.ack.is_none() && u32_at(header, 8) != 0 {
        return Err("an acknowledgment number without the ACK bit".into());
    }
    parse_options(&header[TCP_BYTES..], &mut tcp)?;
    if tcp.mss.is_some() && !tcp.syn {
        return Err("an MSS option outside a SYN (MUST-65)".into());
    }
    Ok((tcp, payload.to_vec()))
}

fn parse_options(mut options: &[u8], tcp: &mut Tcp) -> Result<(), String> {
    while let Some(kind) = options.first() {
        let bytes = match kind {
            0 if options.iter().all(|byte| *byte == 0) => return Ok(()),
            0 => return Err("padding that is not zero (MUST-69)".into()),
            1 => 1,
            _ => usize::from(*options.get(1).ok_or("an option without a length")?),
        };
        if bytes == 0 || bytes > options.len() {
            return Err(format!("option {kind} with length {bytes}"));
        }
        let value = &options[..bytes];
        match (kind, bytes) {
            (1, _) => {}
            (2, 4) => tcp.mss = Some(u16_at(value, 2)),
            (3, 3) => tcp.window_scale = Some(value[2]),
            (4, 2) => tcp.sack_permitted = true,
            (5, 10 | 18 | 26 | 34) => {
                tcp.sack = value[2..].chunks(8).map(|block| (u32_at(block, 0), u32_at(block, 4))).collect();
            }
            (8, 10) => tcp.timestamps = Some((u32_at(value, 2), u32_at(value, 6))),
            _ => return Err(format!("option {kind} of {bytes} bytes")),
        }
        options = &options[bytes..];
    }
    Ok(())
}
