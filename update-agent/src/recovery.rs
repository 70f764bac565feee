//! What is done at every start, before anything else: whatever a power cut left half done is brought to an end or undone, and both
//! slots get the UKIs that belong to them. It looks at the disk alone; what it is told is which versions are good.

use std::io::{self, Read};

use disk_layout::{SlotName, UkiName, Version};

use crate::commit::{CommitError, Running, Uki, digest_on_disk, write_uki};
use crate::esp::fat::{self, FatFile, Volume};
use crate::esp::{EspFiles, HEAD, PART_SUFFIX, rank, spent_name, trial_name};
use crate::slots::{Content, Slots, mend_table};
use crate::target::Target;

/// What became of a version on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not been started, or its trial is still going on.
    Untried,
    /// It has passed its health gate.
    Good,
    /// It has failed its trial.
    Failed,
    /// It was good, and somebody went back from it.
    SetAside,
}

/// The copies of UKIs on the state partition.
pub trait Copies {
    /// All UKIs that we know.
    fn known(&self) -> Vec<Uki>;
    /// The content of one.
    ///
    /// # Errors
    /// When there is no copy.
    fn open(&self, uki: &Uki) -> io::Result<Box<dyn Read>>;
}

/// Short names of our files, when their long names are lost.
const SHORT_PREFIX: &str = "GARBOA~";

/// The name that a version's UKI should have, when its own is lost.
fn name_for(version: &Version, standing: Standing) -> UkiName {
    match standing {
        Standing::Good => UkiName::settled(version.clone()),
        Standing::Failed | Standing::SetAside => spent_name(version),
        Standing::Untried => trial_name(version),
    }
}

/// Brings disk and ESP into order. Returns what was done, one line each; nothing after an orderly end.
///
/// # Errors
/// When the partition table or the ESP cannot be read, or a repair fails.
pub fn recover(
    target: &dyn Target,
    esp: &mut dyn EspFiles,
    copies: &dyn Copies,
    running: &Running,
    standing: &dyn Fn(&Version) -> Standing,
) -> Result<Vec<String>, CommitError> {
    let mut said = Vec::new();
    if mend_table(target)? {
        said.push("wrote both copies of the partition table again, one was damaged".to_owned());
    }
    let known = copies.known();
    said.extend(fat::mend(target, &mut |volume, file| (is_known(target, volume, file, &known), rank(file.name())))?);

    let slots = Slots::read(target)?;
    remove_strangers(target, esp, &slots, running, &known, standing, &mut said)?;
    for slot in [SlotName::A, SlotName::B] {
        let Content::Image { version, root_hash } = slots.get(slot) else { continue };
        let Some(uki) = known.iter().find(|uki| uki.root_hash == *root_hash && uki.version == *version) else { continue };
        mend_uki(target, esp, copies, uki, slot == running.slot, standing(version), &mut said)?;
    }
    esp.finish().map_err(|source| CommitError::Esp { act: "cannot unmount", name: String::new(), source })?;
    Ok(said)
}

fn is_known(target: &dyn Target, volume: &Volume, file: &FatFile, known: &[Uki]) -> bool {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let read = volume.read_file(target, file, &mut |data| digest.update(data));
    let found = digest.finish();
    read.is_ok() && known.iter().any(|uki| uki.sha256 == found.as_ref())
}

/// Removes what is half written or belongs to no slot, and gives entries their long names back.
fn remove_strangers(
    target: &dyn Target,
    esp: &mut dyn EspFiles,
    slots: &Slots,
    running: &Running,
    known: &[Uki],
    standing: &dyn Fn(&Version) -> Standing,
    said: &mut Vec<String>,
) -> Result<(), CommitError> {
    let error = |act: &'static str, name: &str| {
        let name = name.to_owned();
        move |source| CommitError::Esp { act, name, source }
    };
    let volume = Volume::read(target)?;
    let mut names: Vec<String> = volume.ukis().map(|file| file.name().to_owned()).collect();
    // The best name of each version first: the others go.
    names.sort_by_key(|name| std::cmp::Reverse(rank(name)));
    let mut seen: Vec<Version> = Vec::new();
    for name in names {
        let bootable = name.to_ascii_lowercase().ends_with(".efi");
        if name.ends_with(PART_SUFFIX) {
            esp.remove(&name).map_err(error("cannot remove", &name))?;
            said.push(format!("removed {name}, which was never finished"));
        } else if let Ok(uki) = name.parse::<UkiName>() {
            let orphan = uki.version != running.version && slots.find_version(&uki.version).is_none();
            if orphan || seen.contains(&uki.version) {
                esp.write_head(&name, &[0; HEAD]).map_err(error("cannot make unbootable", &name))?;
                esp.remove(&name).map_err(error("cannot remove", &name))?;
                said.push(format!("removed {name}, {}", if orphan { "which belongs to no slot" } else { "the second of its version" }));
            } else {
                seen.push(uki.version);
            }
        } else if name.starts_with(SHORT_PREFIX) {
            esp.finish().map_err(error("cannot unmount", ""))?;
            let digest = digest_on_disk(target, &name, None)?;
            let uki = known.iter().find(|uki| bootable && Some(uki.sha256) == digest && slots.find(&uki.root_hash).is_some());
            match uki.filter(|uki| !seen.contains(&uki.version)) {
                Some(uki) => {
                    let proper = name_for(&uki.version, standing(&uki.version)).to_string();
                    esp.rename(&name, &proper).map_err(error("cannot rename", &name))?;
                    said.push(format!("gave {name} its name {proper} back"));
                    seen.push(uki.version.clone());
                }
                None => {
                    esp.remove(&name).map_err(error("cannot remove", &name))?;
                    said.push(format!("removed {name}, which had lost its name"));
                }
            }
        }
    }
    esp.finish().map_err(error("cannot unmount", ""))
}

/// Sees to it that an image has its UKI, unless it was never made bootable.
fn mend_uki(
    target: &dyn Target,
    esp: &mut dyn EspFiles,
    copies: &dyn Copies,
    uki: &Uki,
    runs: bool,
    standing: Standing,
    said: &mut Vec<String>,
) -> Result<(), CommitError> {
    let volume = Volume::read(target)?;
    let parsed = |file: &FatFile| Some((file.name().to_owned(), file.name().parse::<UkiName>().ok()?));
    let (name, counter) = match volume.ukis().filter_map(parsed).find(|(_, name)| name.version == uki.version) {
        Some((name, parsed)) => (Some(name), parsed.counter),
        None => (None, None),
    };
    let digest = match &name {
        Some(name) => digest_on_disk(target, name, None)?,
        None => None,
    };
    if digest == Some(uki.sha256) {
        return Ok(());
    }
    // Starts are counted for what was made bootable only.
    let tried = counter.is_some_and(|counter| counter.done > 0);
    if tried && counter.is_some_and(|counter| counter.left == 0) && standing == Standing::Untried && !runs {
        // All its tries are over: the name is what tells of it, and what it had to start does not matter any more.
        return Ok(());
    }
    let proper = match (&name, runs || tried || standing != Standing::Untried) {
        // Not committed: the next run of the update does it.
        (_, false) => {
            if let Some(name) = name {
                esp.remove(&name).and_then(|()| esp.finish()).map_err(|source| CommitError::Esp {
                    act: "cannot remove",
                    name: name.clone(),
                    source,
                })?;
                said.push(format!("removed {name}, which was not committed"));
            }
            return Ok(());
        }
        (Some(name), true) => name.clone(),
        (None, true) => name_for(&uki.version, standing).to_string(),
    };
    let mut content = match copies.open(uki) {
        Ok(content) => content,
        Err(error) => {
            said.push(format!(
                "{proper} on the ESP is {}, and there is no copy of it: {error}",
                if name.is_some() { "damaged" } else { "missing" }
            ));
            return Ok(());
        }
    };
    write_uki(target, esp, uki, &mut content, &proper)?;
    said.push(format!("wrote {proper} again, it was {}", if name.is_some() { "damaged" } else { "missing" }));
    Ok(())
}
