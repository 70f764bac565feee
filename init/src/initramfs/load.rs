//! Loading the modules of the initramfs, in the order that the builder worked out.

use std::fs::{self, File};
use std::path::Path;

use super::failure::Failure;
use crate::cmdline::CommandLine;
use crate::modules::insert;

const MODULES: &str = "/modules";

/// Loads every module named in `/modules/order`; what cannot be loaded is a warning, since the disk may not need it.
pub(super) fn all(cmdline: &CommandLine) -> Result<Vec<String>, Failure> {
    let order = fs::read_to_string(Path::new(MODULES).join("order")).map_err(Failure::ModuleOrder)?;
    let mut warnings = Vec::new();
    for name in order.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let file_name = if name.contains(".ko") { name.to_owned() } else { format!("{name}.ko") };
        let module = insert::module_name(&file_name);
        if insert::is_blacklisted_on(cmdline, &module) {
            continue;
        }
        let parameters = insert::parameters_on(cmdline, &module);
        let loaded = File::open(Path::new(MODULES).join(&file_name)).and_then(|file| insert::insert(&file, &file_name, &parameters));
        if let Err(error) = loaded {
            warnings.push(format!("cannot load the module {module}: {error}"));
        }
    }
    Ok(warnings)
}
