//! `garboard`, the command of the build host: recipes in, images out, and the means to look at and start them. All
//! work is in the library; this is only the entry.

use std::process::ExitCode;

fn main() -> ExitCode {
    image_builder::cli::main()
}
