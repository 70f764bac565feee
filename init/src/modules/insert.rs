//! Handing one module to the kernel, and what the command line says about modules. Used in the initramfs too.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::Path;

use super::index::normal;
use crate::cmdline::CommandLine;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses.
const COMPRESSED: libc::c_int = 4;

pub use super::index::name_of_path as module_name;

/// Loads an open module file. A module that is there already is fine.
///
/// # Errors
/// As the kernel says: ENODEV when there is no hardware for it, ENOENT when a symbol is missing.
pub fn insert(file: &File, file_name: &str, parameters: &str) -> io::Result<()> {
    let plain = Path::new(file_name).extension().is_some_and(|extension| extension == "ko");
    let parameters = CString::new(parameters)?;
    match rustix::system::finit_module(file, &parameters, if plain { 0 } else { COMPRESSED }) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `NAME.param=value` words for a module, as its parameter string. Values with spaces are quoted, as the kernel reads them.
#[must_use]
pub fn parameters_on(cmdline: &CommandLine, module: &str) -> String {
    let words: Vec<String> = cmdline
        .words()
        .filter_map(|(name, value)| {
            let (owner, parameter) = name.split_once('.')?;
            (normal(owner) == module).then(|| match value {
                Some(value) if value.contains(' ') => format!("{parameter}=\"{value}\""),
                Some(value) => format!("{parameter}={value}"),
                None => parameter.to_owned(),
            })
        })
        .collect();
    words.join(" ")
}

/// Whether `module_blacklist=` or `modprobe.blacklist=` names a module.
#[must_use]
pub fn is_blacklisted_on(cmdline: &CommandLine, module: &str) -> bool {
    ["module_blacklist", "modprobe.blacklist"]
        .iter()
        .any(|list| cmdline.values(list).flat_map(|names| names.split(',')).any(|name| normal(name) == module))
}

/// Whether the kernel has a module, loaded or being loaded.
#[must_use]
pub fn is_loaded(module: &str) -> bool {
    Path::new("/sys/module").join(module).join("initstate").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_belong_to_their_module() {
        let line = CommandLine::parse("virtio-blk.queue=4 \"dm_mod.create=a b\" dm_mod.flag x.y=1");
        assert_eq!(parameters_on(&line, "virtio_blk"), "queue=4");
        assert_eq!(parameters_on(&line, "dm_mod"), "create=\"a b\" flag");
        assert_eq!(parameters_on(&line, "y"), "");
    }
}
