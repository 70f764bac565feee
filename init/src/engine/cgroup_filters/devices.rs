//! `DevicePolicy=` and `DeviceAllow=`: who may read, write and make which device nodes.
//!
//! The kernel gives `struct bpf_cgroup_dev_ctx`: what is asked in the upper half of the first word (1 make, 2 read, 4 write), the kind
//! of node in the lower (1 block, 2 character), then major and minor number.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use unit_files::glob;
use unit_files::resources::{CgroupConfig, DevicePolicy, DeviceRule};

use super::assembler::Program;
use crate::sys::bpf::Instruction;

const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
const ALL: u32 = 7;

/// What a program may always have unless the policy is strict: systemd's list.
const PSEUDO: [&str; 7] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx"];

/// Which numbers the machine's devices have.
pub trait Numbers {
    /// Kind, major and minor of a node.
    fn node(&self, path: &str) -> Option<(u32, u32, u32)>;
    /// The text of `/proc/devices`.
    fn drivers(&self) -> String;
}

/// This machine.
pub struct Host;

impl Numbers for Host {
    fn node(&self, path: &str) -> Option<(u32, u32, u32)> {
        let node = std::fs::metadata(path).ok()?;
        let kind = match node.file_type() {
            kind if kind.is_char_device() => CHARACTER,
            kind if kind.is_block_device() => BLOCK,
            _ => return None,
        };
        Some((kind, rustix::fs::major(node.rdev()), rustix::fs::minor(node.rdev())))
    }

    fn drivers(&self) -> String {
        std::fs::read_to_string("/proc/devices").unwrap_or_default()
    }
}

/// The nodes of one rule.
#[derive(Debug, PartialEq, Eq)]
struct Allowed {
    kind: u32,
    major: u32,
    minor: Option<u32>,
    rights: u32,
}

/// The program that a unit's settings ask for, if any.
pub fn program(config: &CgroupConfig, numbers: &dyn Numbers) -> Option<io::Result<Vec<Instruction>>> {
    if config.device_policy == DevicePolicy::Auto && config.device_allow.is_empty() {
        return None;
    }
    let drivers = numbers.drivers();
    let mut allowed = Vec::new();
    if config.device_policy != DevicePolicy::Strict {
        let rule = |device: &str, mknod| DeviceRule { device: device.to_owned(), read: true, write: true, mknod };
        let pseudo = PSEUDO.into_iter().map(|path| rule(path, true)).chain([rule("char-pts", false)]);
        allowed.extend(pseudo.flat_map(|rule| numbers_of(&rule, numbers, &drivers)));
    }
    allowed.extend(config.device_allow.iter().flat_map(|rule| numbers_of(rule, numbers, &drivers)));
    Some(assemble(&allowed))
}

/// A node that is not there, or a driver that is not loaded, allows nothing.
fn numbers_of(rule: &DeviceRule, numbers: &dyn Numbers, drivers: &str) -> Vec<Allowed> {
    let rights = u32::from(rule.mknod) | u32::from(rule.read) << 1 | u32::from(rule.write) << 2;
    let group =
        [("char-", CHARACTER), ("block-", BLOCK)].into_iter().find_map(|(prefix, kind)| Some((rule.device.strip_prefix(prefix)?, kind)));
    let Some((pattern, kind)) = group else {
        let node = numbers.node(&rule.device);
        return node.map(|(kind, major, minor)| Allowed { kind, major, minor: Some(minor), rights }).into_iter().collect();
    };
    let majors = majors(drivers, kind, pattern);
    majors.into_iter().map(|major| Allowed { kind, major, minor: None, rights }).collect()
}

/// Majors of the drivers of a kind whose names match, out of `/proc/devices`.
fn majors(drivers: &str, kind: u32, pattern: &str) -> Vec<u32> {
    let mut section = 0;
    let mut found = Vec::new();
    for line in drivers.lines() {
        match line.trim() {
            "Character devices:" => section = CHARACTER,
            "Block devices:" => section = BLOCK,
            entry => {
                if let Some((major, name)) = entry.split_once(' ')
                    && section == kind
                    && glob::matches(pattern, name.trim())
                {
                    found.extend(major.parse::<u32>());
                }
            }
        }
    }
    found
}

fn assemble(allowed: &[Allowed]) -> io::Result<Vec<Instruction>> {
    const CONTEXT: u8 = 1;
    const KIND: u8 = 2;
    const ASKED: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const SPARE: u8 = 0;
    let mut program = Program::default();
    program.load_word(KIND, CONTEXT, 0);
    program.copy(ASKED, KIND);
    program.and(KIND, 0xffff);
    program.shift_right(ASKED, 16);
    program.load_word(MAJOR, CONTEXT, 4);
    program.load_word(MINOR, CONTEXT, 8);
    for Allowed { kind, major, minor, rights } in allowed {
        let mut jumps = vec![program.jump_unless(KIND, *kind), program.jump_unless(MAJOR, *major)];
        jumps.extend(minor.map(|minor| program.jump_unless(MINOR, minor)));
        program.copy(SPARE, ASKED);
        program.and(SPARE, ALL & !rights);
        jumps.push(program.jump_unless(SPARE, 0));
        program.verdict(true);
        program.land(jumps)?;
    }
    program.verdict(false);
    Ok(program.finish())
}

#[cfg(test)]
mod tests {
    use super::super::assembler::execute;
    use super::*;

    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    struct Fake;

    impl Numbers for Fake {
        fn node(&self, path: &str) -> Option<(u32, u32, u32)> {
            match path {
                "/dev/null" => Some((CHARACTER, 1, 3)),
                "/dev/kvm" => Some((CHARACTER, 10, 232)),
                "/dev/vda" => Some((BLOCK, 254, 0)),
                _ => None,
            }
        }
        fn drivers(&self) -> String {
            "Character devices:\n  1 mem\n  4 ttyS\n136 pts\n248 rtc\n\nBlock devices:\n  8 sd\n248 other\n254 virtblk\n".to_owned()
        }
    }

    fn rule(device: &str, rights: &str) -> DeviceRule {
        let has = |right| rights.contains(right);
        DeviceRule { device: device.to_owned(), read: has('r'), write: has('w'), mknod: has('m') }
    }

    fn filter(policy: DevicePolicy, rules: &[(&str, &str)]) -> impl Fn(u32, u32, u32, u32) -> bool {
        let device_allow = rules.iter().map(|(device, rights)| rule(device, rights)).collect();
        let config = CgroupConfig { device_policy: policy, device_allow, ..CgroupConfig::default() };
        let program = program(&config, &Fake).unwrap().unwrap();
        move |kind, major, minor, asked| execute(&program, &[asked << 16 | kind, major, minor], &[])
    }

    #[test]
    fn without_a_word_about_devices_there_is_no_filter() {
        assert!(program(&CgroupConfig::default(), &Fake).is_none());
    }

    #[test]
    fn closed_lets_the_pseudo_devices_through() {
        let may = filter(DevicePolicy::Closed, &[]);
        assert!(may(CHARACTER, 1, 3, READ | WRITE) && may(CHARACTER, 1, 3, MKNOD));
        assert!(may(CHARACTER, 136, 7, WRITE) && !may(CHARACTER, 136, 7, MKNOD));
        assert!(!may(BLOCK, 1, 3, READ) && !may(CHARACTER, 10, 232, READ) && !may(BLOCK, 254, 0, READ));
    }

    #[test]
    fn what_is_listed_is_allowed_as_far_as_it_says() {
        let may = filter(DevicePolicy::Auto, &[("/dev/kvm", "rw"), ("block-virt*", "r"), ("char-rtc", "rwm"), ("/dev/missing", "rwm")]);
        assert!(may(CHARACTER, 10, 232, READ | WRITE) && !may(CHARACTER, 10, 232, MKNOD) && !may(CHARACTER, 10, 231, READ));
        assert!(may(BLOCK, 254, 5, READ) && !may(BLOCK, 254, 5, READ | WRITE) && !may(BLOCK, 8, 0, READ));
        assert!(may(CHARACTER, 248, 0, READ) && !may(BLOCK, 248, 0, READ));
        assert!(may(CHARACTER, 1, 3, READ), "a list closes the rest, but not the pseudo devices");
    }

    #[test]
    fn strict_lets_only_the_list_through() {
        let may = filter(DevicePolicy::Strict, &[("/dev/kvm", "rw")]);
        assert!(may(CHARACTER, 10, 232, READ) && !may(CHARACTER, 1, 3, READ));
    }
}
