//! `init`.

fn main() {}
