//! The tables of system calls and of systemd's groups of them.

use std::collections::{HashMap, HashSet};

const CALLS: &str = include_str!("calls.txt");
const GROUPS: &str = include_str!("groups.txt");

/// A processor architecture whose calls we can filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `x86-64`.
    X86_64,
    /// `arm64`.
    Aarch64,
}

impl Architecture {
    /// What this program was built for.
    #[must_use]
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// systemd's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "arm64",
        }
    }

    /// `AUDIT_ARCH_...`, which the kernel passes to filters.
    #[must_use]
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }
}

/// Both tables for one architecture.
pub struct Calls {
    numbers: HashMap<&'static str, Option<u32>>,
    groups: HashMap<&'static str, Vec<&'static str>>,
}

impl Calls {
    /// Reads the tables.
    #[must_use]
    pub fn of(architecture: Architecture) -> Self {
        let column = match architecture {
            Architecture::X86_64 => 1,
            Architecture::Aarch64 => 2,
        };
        let rows = |text: &'static str| text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect::<Vec<_>>());
        let number = |row: &[&'static str]| row.get(column).and_then(|text| text.parse().ok());
        let numbers = rows(CALLS).filter_map(|row| Some((*row.first()?, number(&row)))).collect();
        let groups = rows(GROUPS).filter_map(|row| row.split_first().map(|(name, members)| (*name, members.to_vec()))).collect();
        Self { numbers, groups }
    }

    /// The number of a call; `None` when this architecture has none of the name, which may not exist at all.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied().flatten()
    }

    /// Every number.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.numbers.values().copied().flatten()
    }

    /// The numbers of a call or a `@group`, groups within groups opened; `None` when there is no such name on any architecture.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<Vec<u32>> {
        if name == "@known" {
            return Some(self.all().collect());
        }
        if !name.starts_with('@') {
            return self.numbers.get(name).map(|number| number.iter().copied().collect());
        }
        let mut todo = vec![name];
        let (mut seen, mut out) = (HashSet::new(), Vec::new());
        while let Some(group) = todo.pop() {
            for member in self.groups.get(group)? {
                if !member.starts_with('@') {
                    out.extend(self.number(member));
                } else if seen.insert(*member) {
                    todo.push(member);
                }
            }
        }
        Some(out)
    }

    /// Names of the groups.
    #[cfg(test)]
    pub fn groups(&self) -> impl Iterator<Item = (&'static str, &[&'static str])> {
        self.groups.iter().map(|(name, members)| (*name, members.as_slice()))
    }
}
