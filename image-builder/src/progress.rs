//! What a long command says while it works. The work reports events; who renders them (bars on a terminal, plain
//! lines in CI, JSON lines for machines, nothing with `-q`) is decided once, in `cli::report`.

use std::fmt;

/// A part of the work that a person may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading indexes and choosing packages.
    Resolve,
    /// Downloading packages.
    Fetch,
    /// Unpacking packages into the cache.
    Unpack,
    /// Standing in for maintainer scripts, adding what the recipe says.
    Tree,
    /// Kernel, initramfs and boot partition.
    Boot,
    /// The root file system and its hash tree.
    Root,
    /// One output file.
    Write,
    /// A machine coming up.
    Run,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve",
            Self::Fetch => "fetch",
            Self::Unpack => "unpack",
            Self::Tree => "tree",
            Self::Boot => "boot",
            Self::Root => "root",
            Self::Write => "write",
            Self::Run => "run",
        })
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A phase begins. `total` is in bytes where it is known.
    Begin {
        /// Which.
        phase: Phase,
        /// Bytes to do.
        total: Option<u64>,
    },
    /// So many bytes of the running phase were done since the last event.
    Advance {
        /// Bytes more.
        bytes: u64,
    },
    /// Something within the running phase is done.
    Step {
        /// Which phase.
        phase: Phase,
        /// One line.
        text: String,
    },
    /// A phase ended; `summary` is short enough for one line.
    End {
        /// Which.
        phase: Phase,
        /// What came of it.
        summary: String,
    },
    /// Something a person should know although the work goes on.
    Warning {
        /// One line.
        text: String,
    },
}

/// Receives events, from several threads.
pub trait Progress: Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Drops every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}
