//! The one place with `unsafe`: giving memory back before a daemon sleeps, for an hour as a rule, on hosts whose memory is for containers.

use std::ptr;

/// No page is smaller here.
const PAGE: usize = 4096;

unsafe extern "C" {
    /// Where the program begins in memory: its headers, and then, whichever linker made it, nothing but what is read and what is run up to [`etext`]
    /// (`end(3)`). What relocations touch comes after that.
    static __executable_start: u8;
    /// Where its code ends.
    static etext: u8;
}

/// Gives back what work has left in the allocator, and the pages of the program itself: they are in the page cache, where they can go when
/// somebody needs the room, and are mapped again one by one when they are wanted.
pub fn rest() {
    // SAFETY: no preconditions; it frees what is free.
    unsafe { libc::malloc_trim(0) };
    let (start, end) = (ptr::addr_of!(__executable_start).addr(), ptr::addr_of!(etext).addr());
    let len = end.saturating_sub(start) / PAGE * PAGE;
    // SAFETY: private mappings of a file, in which nothing is ever written: what is dropped is read from the file again. A page between two of them may
    // be in none, and is passed over (`madvise(2)`).
    unsafe { libc::madvise(ptr::without_provenance_mut(start), len, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// All that is dropped is as the file has it, and cannot be written to: what relocations touched would be gone.
    #[test]
    fn only_what_nothing_writes_to_is_dropped() {
        let (start, end) = (ptr::addr_of!(__executable_start).addr(), ptr::addr_of!(etext).addr());
        let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
        let (mut last, mut among) = (start, false);
        for line in fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            let mut fields = line.split_whitespace();
            let first = fields.next().unwrap();
            if let Some((from, to)) = first.split_once('-') {
                among = number(to) > start && number(from) < end;
                if among {
                    assert!(fields.next().unwrap().starts_with("r-") && line.contains('/'), "{line}");
                    last = number(to);
                }
            } else if among && first == "Anonymous:" {
                assert_eq!(fields.next(), Some("0"), "up to {last:x}: {line}");
            }
        }
        assert!(last >= end && end > start, "{last:x} {end:x}");
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
        assert_eq!(crate::label("a", "b"), "{a=\"b\"}");
    }
}
