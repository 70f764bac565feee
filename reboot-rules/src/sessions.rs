//! Who is logged in, and a word to them all.
//!
//! There is no utmp on the host: a terminal counts as somebody's when a process other than a login prompt leads a session on it. What
//! cannot be found out counts as somebody, since a reboot under somebody's hands cannot be taken back.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Programs that wait at a terminal for somebody to come.
const PROMPTS: [&str; 4] = ["agetty", "getty", "login", "sulogin"];

/// The terminals that people use, as devices; an error says why that is not known.
///
/// # Errors
/// When the list of processes cannot be read.
pub fn terminals(proc: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(proc)?.filter_map(Result::ok) {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process that has ended meanwhile is none.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(device) = session_leader_terminal(&stat) {
            found.insert(device);
        }
    }
    Ok(found)
}

/// The terminal of a session's leader that is no login prompt, from its `/proc/PID/stat`.
fn session_leader_terminal(stat: &str) -> Option<PathBuf> {
    // The name is in parentheses and may hold anything.
    let (head, rest) = stat.rsplit_once(')')?;
    let (pid, name) = head.split_once(" (")?;
    let mut fields = rest.split_whitespace().skip(3);
    let session = fields.next()?;
    let number: u32 = fields.next()?.parse().ok()?;
    if number == 0 || session != pid || PROMPTS.contains(&name) {
        return None;
    }
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match major {
        136..=143 => Some(format!("/dev/pts/{}", (major - 136) * 256 + minor).into()),
        4 if minor < 64 => Some(format!("/dev/tty{minor}").into()),
        4 => Some(format!("/dev/ttyS{}", minor - 64).into()),
        229 => Some(format!("/dev/hvc{minor}").into()),
        _ => None,
    }
}

/// Writes a line to all terminals of people who are logged in; how many there were. A terminal that does not take it is passed over.
pub fn wall(line: &str) -> usize {
    let Ok(terminals) = terminals(Path::new("/proc")) else { return 0 };
    let text = format!("\r\n\u{7}*** {} ***\r\n", crate::inhibitors::clean(line));
    for terminal in &terminals {
        let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
        if let Ok(mut file) = fs::OpenOptions::new().write(true).custom_flags(i32::try_from(flags).unwrap_or(0)).open(terminal) {
            let _ = file.write_all(text.as_bytes());
        }
    }
    terminals.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_on_a_terminal_is_somebody_and_a_prompt_is_nobody() {
        let terminal = |stat: &str| session_leader_terminal(stat).map(|path| path.display().to_string());
        assert_eq!(terminal("500 (bash) S 499 500 500 34818 500 4194304").as_deref(), Some("/dev/pts/2"));
        assert_eq!(terminal("500 (a) b (c) S 499 500 500 1088 500 4194304").as_deref(), Some("/dev/ttyS0"));
        assert_eq!(terminal("510 (sleep) S 500 510 500 34818 510 4194304"), None, "not the leader");
        assert_eq!(terminal("300 (agetty) S 1 300 300 1088 300 4194304"), None);
        assert_eq!(terminal("1 (init) S 0 1 1 0 -1 4194560"), None);
        assert_eq!(terminal("nonsense"), None);
    }

    #[test]
    fn not_knowing_is_an_error_and_not_nobody() {
        assert!(terminals(Path::new("/nonexistent")).is_err());
        assert!(terminals(Path::new("/proc")).is_ok());
    }
}
