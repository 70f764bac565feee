//! `[Mount]`, `[Automount]` and `[Swap]`.

use crate::mount::{AutomountConfig, MountConfig, SwapConfig};

use super::setters::{boolean, expand, mode, optional_number, optional_span, optional_text, path, text, timeout};
use super::{Effect, Input, Outcome, Table, warn, yes};

/// Options add up over several lines.
fn options(slot: &mut String, input: &Input<'_>) -> Outcome {
    let text = expand(input)?;
    if text.is_empty() {
        slot.clear();
    } else if slot.is_empty() {
        *slot = text;
    } else {
        slot.push(',');
        slot.push_str(&text);
    }
    Ok(Effect::from(!slot.is_empty()))
}

pub(super) static MOUNT: Table<MountConfig> = Table::new(&[
    yes("What", |c, i| text(&mut c.what, i)),
    yes("Where", |c, i| path(&mut c.mount_point, i)),
    yes("Type", |c, i| optional_text(&mut c.file_system, i)),
    yes("Options", |c, i| options(&mut c.options, i)),
    warn("SloppyOptions", |c, i| boolean(&mut c.sloppy_options, i)),
    yes("LazyUnmount", |c, i| boolean(&mut c.lazy_unmount, i)),
    yes("ForceUnmount", |c, i| boolean(&mut c.force_unmount, i)),
    yes("ReadWriteOnly", |c, i| boolean(&mut c.read_write_only, i)),
    yes("DirectoryMode", |c, i| mode(&mut c.directory_mode, i)),
    yes("TimeoutSec", |c, i| timeout(&mut c.timeout, i)),
]);

// Units of these two kinds are read, checked and ordered, and not run.
pub(super) static AUTOMOUNT: Table<AutomountConfig> = Table::new(&[
    warn("Where", |c, i| path(&mut c.mount_point, i)),
    warn("ExtraOptions", |c, i| text(&mut c.extra_options, i)),
    warn("DirectoryMode", |c, i| mode(&mut c.directory_mode, i)),
    warn("TimeoutIdleSec", |c, i| optional_span(&mut c.timeout_idle, i)),
]);

pub(super) static SWAP: Table<SwapConfig> = Table::new(&[
    warn("What", |c, i| path(&mut c.what, i)),
    warn("Priority", |c, i| optional_number(&mut c.priority, i, -1..=32767, "a priority from -1 to 32767")),
    warn("Options", |c, i| options(&mut c.options, i)),
    warn("TimeoutSec", |c, i| timeout(&mut c.timeout, i)),
]);
