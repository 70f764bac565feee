//! Every specifier with what becomes of it, and that there is no other.

#![allow(clippy::unwrap_used)]

use unit_files::specifier::{SpecifierContext, SpecifierError};
use unit_files::{HostFacts, UnitName};

#[test]
fn the_machine_the_manager_and_directories() {
    let mut facts = HostFacts {
        host_name: "a.example".into(),
        machine_id: "0f".repeat(16),
        boot_id: "1e".repeat(16),
        kernel_release: "6.12.9".into(),
        architecture: "arm64".into(),
        ..HostFacts::default()
    };
    facts.set_os_release(b"ID=garboard\nVERSION_ID=\"1.2\"\nBUILD_ID=b7\nVARIANT_ID='docker'\nIMAGE_ID=img\nIMAGE_VERSION=3.4\nNAME=x\n");
    let name = UnitName::parse("a-b@c.service").unwrap();
    let table = [
        ('H', "a.example"),
        ('l', "a"),
        ('q', "a.example"),
        ('m', "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"),
        ('b', "1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e"),
        ('v', "6.12.9"),
        ('a', "arm64"),
        ('o', "garboard"),
        ('w', "1.2"),
        ('B', "b7"),
        ('W', "docker"),
        ('M', "img"),
        ('A', "3.4"),
        ('t', "/run"),
        ('S', "/var/lib"),
        ('C', "/var/cache"),
        ('L', "/var/log"),
        ('E', "/etc"),
        ('D', "/usr/share"),
        ('T', "/tmp"),
        ('V', "/var/tmp"),
        ('u', "root"),
        ('U', "0"),
        ('g', "root"),
        ('G', "0"),
        ('h', "/root"),
        ('s', "/bin/sh"),
        ('d', "/run/credentials/a-b@c.service"),
        ('n', "a-b@c.service"),
        ('N', "a-b@c"),
        ('p', "a-b"),
        ('P', "a/b"),
        ('i', "c"),
        ('I', "c"),
        ('j', "b"),
        ('J', "b"),
        ('f', "/c"),
        ('y', "/etc/systemd/system/a-b@.service"),
        ('Y', "/etc/systemd/system"),
        ('%', "%"),
    ];
    let context = SpecifierContext { name: &name, fragment: Some("/etc/systemd/system/a-b@.service"), facts: &facts };
    for (letter, value) in table {
        assert_eq!(context.expand(&format!("<%{letter}>")), Ok(format!("<{value}>")), "%{letter}");
    }
    // Nothing else is a specifier.
    for letter in ('a'..='z').chain('A'..='Z').chain('0'..='9').filter(|letter| !table.iter().any(|(known, _)| known == letter)) {
        assert_eq!(context.expand(&format!("%{letter}")), Err(SpecifierError::Unknown(letter)));
    }
    facts.pretty_host_name = "Rack 7".into();
    let context = SpecifierContext { name: &name, fragment: None, facts: &facts };
    assert_eq!(context.expand("%q|%y|%Y"), Ok("Rack 7||".into()));
}
