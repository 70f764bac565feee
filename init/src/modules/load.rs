//! `init modules-load`: what `modules-load.d` and `modules_load=` on the command line name.

use std::path::Path;
use std::process::ExitCode;

use super::Loader;
use super::loader::LoadError;
use crate::cmdline::CommandLine;

/// Strongest first.
const DIRECTORIES: [&str; 4] = ["etc/modules-load.d", "run/modules-load.d", "usr/local/lib/modules-load.d", "usr/lib/modules-load.d"];

/// The program. A module that cannot be loaded fails the unit, after the others have been tried.
pub fn main(_args: &[String]) -> ExitCode {
    let loader = Loader::of_kernel();
    let mut failed = false;
    for name in wanted(Path::new("/"), &CommandLine::of_kernel()) {
        match loader.load(&name, true, "") {
            Ok(()) => {}
            // An image for several kernels may name modules that this one does not have.
            Err(LoadError::Unknown(name)) => eprintln!("modules-load: {}", LoadError::Unknown(name)),
            Err(error) => {
                failed = true;
                eprintln!("modules-load: {error}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Names in order, each once.
#[must_use]
pub fn wanted(root: &Path, cmdline: &CommandLine) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let files = crate::dropin::read_all(root, &DIRECTORIES, "conf");
    let from_files =
        files.iter().flat_map(|(_, text)| text.lines()).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let from_cmdline = cmdline.values("modules_load").flat_map(|value| value.split(','));
    for name in from_files.chain(from_cmdline) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_and_the_command_line() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/modules-load.d");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("a.conf"), "# net\noverlay\n; x\nbr_netfilter\n").unwrap();
        assert_eq!(wanted(root.path(), &CommandLine::parse("modules_load=tun,overlay")), ["overlay", "br_netfilter", "tun"]);
    }
}
