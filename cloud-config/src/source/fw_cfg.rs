//! QEMU's fw_cfg: `-fw_cfg name=opt/org.garboard/config,file=...`; CoreOS's name for it works too, if it holds cloud-config.

use super::mount::modprobe;
use super::{Delivered, Detected, Source, SourceError, read_optional};
use crate::diagnostics::Diagnostics;

const ENTRIES: [&str; 2] = ["opt/org.garboard/config", "opt/com.coreos/config"];
const BY_NAME: &str = "/sys/firmware/qemu_fw_cfg/by_name";
/// The ACPI device that says that there is a fw_cfg.
const ACPI: &str = "/sys/bus/acpi/devices/QEMU0002:00";

/// The device.
pub struct FwCfg;

impl FwCfg {
    fn entry(facts: &Detected) -> Option<&'static str> {
        ENTRIES.into_iter().find(|e| facts.path(&format!("{BY_NAME}/{e}/raw")).exists())
    }
}

impl Source for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn is_present(&self, facts: &Detected) -> bool {
        if !facts.path(BY_NAME).exists() && facts.path(ACPI).exists() {
            modprobe("qemu_fw_cfg");
        }
        FwCfg::entry(facts).is_some()
    }

    fn fetch(&self, facts: &Detected, _: &mut Diagnostics) -> Result<Delivered, SourceError> {
        let Some(entry) = FwCfg::entry(facts) else { return Ok(Delivered::default()) };
        let user_data = read_optional(&facts.path(&format!("{BY_NAME}/{entry}/raw")))?.unwrap_or_default();
        Ok(Delivered { place: entry.to_owned(), user_data, ..Delivered::default() })
    }
}
