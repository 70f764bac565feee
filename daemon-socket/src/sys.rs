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
    // SAFETY: a private mapping of a file that this process cannot write to: what is dropped is read from the file again.
    unsafe { libc::madvise(ptr::without_provenance_mut(start), len, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// All that is dropped is mapped, and nothing of it can be written to.
    #[test]
    fn only_what_nothing_writes_to_is_dropped() {
        let (start, end) = (ptr::addr_of!(__executable_start).addr(), ptr::addr_of!(etext).addr());
        let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
        let mut at = start;
        for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
            let (range, rest) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            if number(to) > start && number(from) < end {
                assert_eq!(number(from), at, "a gap before {line}");
                assert!(rest.starts_with("r-"), "{line}");
                assert!(line.contains('/'), "{line}");
                at = number(to);
            }
        }
        assert!(at >= end && end > start, "{at:x} {end:x}");
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
