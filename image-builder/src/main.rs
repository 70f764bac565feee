//! `garboard`, the command of the build host.

fn main() {}
