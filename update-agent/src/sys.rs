//! The agent's only `unsafe`: giving memory back before it sleeps, for an hour as a rule, on hosts whose memory is for containers.

use std::fs;
use std::ptr;

/// Gives back what an update has left in the allocator, and the pages of the program itself: they are in the page cache, where they can go when
/// somebody needs the room, and are mapped again one by one when they are wanted.
pub fn rest() {
    // SAFETY: no preconditions; it frees what is free.
    unsafe { libc::malloc_trim(0) };
    let Ok(program) = fs::read_link("/proc/self/exe") else { return };
    let (Some(program), Ok(maps)) = (program.to_str(), fs::read_to_string("/proc/self/maps")) else { return };
    for (start, len) in maps.lines().filter_map(|line| unchanging(line, program)) {
        // SAFETY: a private mapping of a file that this process has never written to: what is dropped is read from the file again.
        unsafe { libc::madvise(ptr::without_provenance_mut(start), len, libc::MADV_DONTNEED) };
    }
}

/// Start and length of a line's mapping, if it is the program's code or its first segment, which hold what no relocation ever touches
/// (`proc_pid_maps(5)`).
fn unchanging(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let first = usize::from_str_radix(offset, 16).ok()? == 0;
    if fields.nth(2)? != program || !(mode == "r-xp" || mode == "r--p" && first) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_writes_to_is_dropped() {
        let line = |mode: &str, offset: &str, path: &str| format!("7f10-8f10 {mode} {offset} fe:01 1234                       {path}");
        assert_eq!(unchanging(&line("r-xp", "0043d000", "/usr/bin/a"), "/usr/bin/a"), Some((0x7f10, 0x1000)));
        assert_eq!(unchanging(&line("r--p", "00000000", "/usr/bin/a"), "/usr/bin/a"), Some((0x7f10, 0x1000)));
        for (mode, offset, path) in
            [("r--p", "00e0d000", "/usr/bin/a"), ("rw-p", "00000000", "/usr/bin/a"), ("r-xp", "00000000", "/usr/bin/b"), ("r-xp", "0", "")]
        {
            assert_eq!(unchanging(&line(mode, offset, path), "/usr/bin/a"), None, "{mode} {offset} {path}");
        }
    }

    #[test]
    fn a_program_goes_on_after_its_rest() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = resident();
        rest();
        assert!(resident() < before, "{} KiB of {before} are still there", resident());
        assert_eq!(crate::verity::hex(&[1, 0xab]), "01ab");
    }
}
