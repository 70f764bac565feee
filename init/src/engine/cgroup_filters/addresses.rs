//! `IPAddressAllow=` and `IPAddressDeny=`: with whom a unit's processes may exchange packets. What is allowed is allowed, else what is
//! denied is denied, else it is allowed; what is not IP passes.

use std::io;
use std::net::IpAddr;

use unit_files::value::AddressRange;

use super::assembler::{Jump, Program};
use crate::sys::bpf::Instruction;

/// Which way a packet goes, so whose address counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Its source's.
    Ingress,
    /// Its destination's.
    Egress,
}

/// The program for a unit's lists, if it denies anything.
pub fn program(allow: &[AddressRange], deny: &[AddressRange], direction: Direction) -> Option<io::Result<Vec<Instruction>>> {
    (!deny.is_empty()).then(|| assemble(allow, deny, direction))
}

fn assemble(allow: &[AddressRange], deny: &[AddressRange], direction: Direction) -> io::Result<Vec<Instruction>> {
    const PROTOCOL: u8 = 7;
    const CONTEXT: u8 = 6;
    /// Offset of `protocol` in `struct __sk_buff`: the Ethernet type, in network order.
    const PROTOCOL_OFFSET: i16 = 16;
    let mut program = Program::default();
    program.copy(CONTEXT, 1);
    program.load_word(PROTOCOL, CONTEXT, PROTOCOL_OFFSET);
    // Where source and destination are in the header, and how long they are.
    for (ethernet, source, destination, length, v4) in [(0x0800_u16, 12, 16, 4, true), (0x86dd, 8, 24, 16, false)] {
        let other = program.jump_unless(PROTOCOL, u32::from(ethernet.to_be()));
        load_address(&mut program, CONTEXT, if direction == Direction::Ingress { source } else { destination }, length)?;
        for (ranges, verdict) in [(allow, true), (deny, false)] {
            for range in ranges.iter().filter(|range| range.address.is_ipv4() == v4) {
                let jumps = compare(&mut program, range);
                program.verdict(verdict);
                program.land(jumps)?;
            }
        }
        program.verdict(true);
        program.land([other])?;
    }
    program.verdict(true);
    Ok(program.finish())
}

/// Copies an address out of the packet to the top of the stack. A packet too short to have one is dropped.
fn load_address(program: &mut Program, context: u8, offset: i32, length: i32) -> io::Result<()> {
    const SKB_LOAD_BYTES: i32 = 26;
    program.copy(1, context);
    program.set(2, offset);
    program.copy(3, 10);
    program.add(3, -16);
    program.set(4, length);
    program.call(SKB_LOAD_BYTES);
    let fine = program.jump_if(0, 0);
    program.verdict(false);
    program.land([fine])
}

/// Jumps away when the address on the stack is not in a range.
fn compare(program: &mut Program, range: &AddressRange) -> Vec<Jump> {
    const WORD: u8 = 2;
    let octets = match range.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut left = u32::from(range.bits);
    let mut offset = -16;
    let mut jumps = Vec::new();
    for word in octets.chunks_exact(4) {
        let bits = left.min(32);
        // As the bytes lie in memory, which is how the machine reads them.
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be();
        let value = word.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        program.load_word(WORD, 10, offset);
        program.and(WORD, mask);
        jumps.push(program.jump_unless(WORD, value & mask));
        left -= bits;
        offset += 4;
        if left == 0 {
            break;
        }
    }
    jumps
}

#[cfg(test)]
mod tests {
    use unit_files::value::parse_address_ranges;

    use super::super::assembler::execute;
    use super::*;

    fn ranges(words: &str) -> Vec<AddressRange> {
        words.split_whitespace().flat_map(|word| parse_address_ranges(word).unwrap()).collect()
    }

    fn context(ethernet: u16) -> [u32; 5] {
        [0, 0, 0, 0, u32::from(ethernet.to_be())]
    }

    fn may(allow: &str, deny: &str, direction: Direction, source: &str, destination: &str) -> bool {
        let program = program(&ranges(allow), &ranges(deny), direction).unwrap().unwrap();
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let packet = [&[0; 12][..], &source.octets(), &destination.octets()].concat();
                execute(&program, &context(0x0800), &packet)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let packet = [&[0; 8][..], &source.octets(), &destination.octets()].concat();
                execute(&program, &context(0x86dd), &packet)
            }
            _ => unreachable!("one of each family"),
        }
    }

    #[test]
    fn nothing_denied_is_no_filter() {
        assert!(program(&ranges("10.0.0.0/8"), &[], Direction::Egress).is_none());
    }

    #[test]
    fn only_the_other_end_counts_and_what_is_allowed_goes_first() {
        use Direction::{Egress, Ingress};
        let local = |direction, source, destination| may("localhost", "any", direction, source, destination);
        assert!(local(Egress, "10.0.0.1", "127.3.2.1") && local(Ingress, "127.0.0.1", "10.0.0.1"));
        assert!(!local(Egress, "127.0.0.1", "10.0.0.1") && !local(Ingress, "10.0.0.1", "127.0.0.1"));
        assert!(local(Egress, "::1", "::1") && !local(Egress, "::1", "::2") && !local(Ingress, "2001:db8::1", "::1"));
    }

    #[test]
    fn ranges_end_where_they_say() {
        let out = |deny, destination| {
            may("", deny, Direction::Egress, if destination_is_v6(destination) { "::1" } else { "1.1.1.1" }, destination)
        };
        assert!(!out("10.64.0.0/10", "10.127.255.255") && out("10.64.0.0/10", "10.128.0.0") && out("10.64.0.0/10", "10.63.255.255"));
        assert!(!out("192.0.2.7", "192.0.2.7") && out("192.0.2.7", "192.0.2.6"));
        assert!(!out("2001:db8:8000::/33", "2001:db8:ffff::1") && out("2001:db8:8000::/33", "2001:db8:7fff::1"));
        assert!(!out("fe80::1", "fe80::1") && out("fe80::1", "fe80::2") && out("any", "10.0.0.1") == out("any", "::5"));
    }

    fn destination_is_v6(text: &str) -> bool {
        text.contains(':')
    }

    #[test]
    fn what_is_cut_off_is_dropped_and_what_is_not_ip_passes() {
        let program = program(&[], &ranges("10.0.0.1"), Direction::Egress).unwrap().unwrap();
        assert!(!execute(&program, &context(0x0800), &[0; 19]));
        assert!(execute(&program, &context(0x0806), &[]));
    }
}
