//! The order of versions, against `systemd-analyze compare-versions`, which is the code that systemd-boot sorts with.
#![allow(clippy::unwrap_used, reason = "all of this is test code")]

use std::cmp::Ordering;
use std::process::Command;

use disk_layout::Version;

/// Texts of the alphabet of versions, by a fixed generator: the same in every run.
fn texts(count: usize) -> Vec<String> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    let alphabet = b"001129ab..~^-";
    (0..count).map(|_| (0..=next(7)).map(|_| char::from(alphabet[next(alphabet.len())])).collect()).collect()
}

#[test]
fn versions_are_ordered_as_by_systemd() {
    let list = texts(400);
    let fixed = [("0", "a"), ("1.0", "1.a"), ("1~", "1~~"), ("1.0", "1.00"), ("1-^a", "1-a"), ("1.0.0~rc1", "1.0.0"), ("1^", "1-")];
    let pairs = list.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).chain(fixed);
    for (a, b) in pairs {
        let status = Command::new("systemd-analyze")
            .args(["compare-versions", "--", a, b])
            .output()
            .expect("this test needs systemd-analyze")
            .status;
        let theirs = match status.code().unwrap() {
            0 => Ordering::Equal,
            11 => Ordering::Greater,
            12 => Ordering::Less,
            code => panic!("systemd-analyze ended with {code} for '{a}' and '{b}'"),
        };
        let ours = a.parse::<Version>().unwrap().cmp(&b.parse().unwrap());
        // What they call equal, we tell apart by bytes.
        if theirs != Ordering::Equal {
            assert_eq!(ours, theirs, "'{a}' and '{b}'");
        }
    }
}
