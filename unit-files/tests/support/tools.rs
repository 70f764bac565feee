//! What the comparisons with systemd's own tools share.

/// A test that has shown nothing must not look as if it had.
pub fn missing(program: &str) {
    let may_skip = std::env::var_os("GARBOARD_TESTS_MAY_SKIP").is_some();
    assert!(may_skip, "{program} is not installed; set GARBOARD_TESTS_MAY_SKIP=1 to go without this test");
    eprintln!("SKIPPED: {program} is not installed: nothing compared");
}

/// A small deterministic stream of numbers, so that every run compares the same corpus.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}
