//! Derived addresses: ours on a link, made from those that are there, so that they are the same at every start.

use std::net::Ipv6Addr;

/// The Ethernet address of a cable's other end: locally administered, unicast, and as distinct from those of other
/// cables as the kernel's own is.
pub(super) fn mac_across_from(kernel_side: [u8; 6]) -> [u8; 6] {
    let [_, _, _, a, b, c, d, e] = hash(&kernel_side).to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// A link-local address for an interface whose own is the kernel's, made from an address of ours so that it is nobody
/// else's there.
pub fn link_local_for(address: Ipv6Addr) -> Ipv6Addr {
    let hash = hash(&address.octets());
    // Not one of those that are made from an Ethernet address.
    let identifier = (hash ^ hash >> 32) & !0x0200_00ff_ff00_0000;
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(identifier))
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_address_is_unicast_local_and_steady() {
        let kernel_side = [0x5e, 1, 2, 3, 4, 5];
        let mac = mac_across_from(kernel_side);
        assert_eq!(mac[0] & 0b11, 0b10);
        assert_ne!(mac, kernel_side);
        assert_eq!(mac, mac_across_from(kernel_side));
        assert_ne!(mac, mac_across_from([0x5e, 1, 2, 3, 4, 6]));
    }

    #[test]
    fn link_local_addresses_differ_as_those_they_are_made_from() {
        let [one, two] = ["fd00::2", "fd00::3"].map(|text| link_local_for(text.parse().expect("an address")));
        assert!(one.is_unicast_link_local() && one.segments()[1..4] == [0; 3], "{one}");
        assert_ne!(one, two);
        assert_ne!((one.octets()[11], one.octets()[12]), (0xff, 0xfe));
    }
}
