//! What the ESP boots: the boot loader and the UKIs.

use std::collections::BTreeMap;
use std::io::{self, Read};

use disk_layout::UkiName;
use fatfs::{Dir, FileSystem, FsOptions};
use serde::Serialize;

use super::Window;
use crate::image::uki;

/// The largest file that is read from an ESP.
const MAX_FILE: u64 = 1 << 30;

/// A unified kernel image on the ESP.
#[derive(Clone, Debug, Serialize)]
pub struct UkiReport {
    /// Its file name.
    pub file: String,
    /// Its version, by the file name.
    pub version: String,
    /// Tries, when it is on trial or spent.
    pub tries: Option<UkiTries>,
    /// Bytes.
    pub size: u64,
    /// Sections and their bytes.
    pub sections: BTreeMap<String, u64>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The kernel command line.
    pub cmdline: Option<String>,
    /// The root hash on it.
    pub root_hash: Option<String>,
    /// Its os-release.
    pub os_release: BTreeMap<String, String>,
    /// The slot with this root hash.
    pub slot: Option<String>,
}

/// The boot counter in a UKI's name.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct UkiTries {
    /// Tries that remain.
    pub left: u32,
    /// Tries that were taken.
    pub done: u32,
}

/// What is on an ESP.
#[derive(Default)]
pub struct Esp {
    pub ukis: Vec<UkiReport>,
    pub loader: Option<String>,
    pub loader_conf: Option<String>,
}

/// Reads an ESP.
pub fn read(esp: Window, problems: &mut Vec<String>) -> Esp {
    match try_read(esp, problems) {
        Ok(esp) => esp,
        Err(error) => {
            problems.push(format!("the ESP cannot be read: {error}"));
            Esp::default()
        }
    }
}

fn try_read(esp: Window, problems: &mut Vec<String>) -> io::Result<Esp> {
    let volume = FileSystem::new(esp, FsOptions::new())?;
    let root = volume.root_dir();
    let mut found = Esp {
        loader_conf: read_file(&root, "loader/loader.conf").ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        ..Esp::default()
    };
    match read_file(&root, "EFI/BOOT/BOOTX64.EFI") {
        Ok(loader) => found.loader = loader_info(&loader),
        Err(error) => problems.push(format!("the firmware finds no boot loader, EFI/BOOT/BOOTX64.EFI: {error}")),
    }
    for file in uki_files(&root)? {
        match file.parse::<UkiName>() {
            Ok(name) => found.ukis.push(uki_report(&file, &name, &read_file(&root, &format!("EFI/Linux/{file}"))?, problems)),
            Err(error) => problems.push(format!("on the ESP, {error}")),
        }
    }
    Ok(found)
}

/// The kernel of the UKI with the highest version.
pub fn newest_kernel(esp: Window) -> Option<Vec<u8>> {
    let volume = FileSystem::new(esp, FsOptions::new()).ok()?;
    let root = volume.root_dir();
    let ours = uki_files(&root).ok()?.into_iter().filter_map(|file| Some((file.parse::<UkiName>().ok()?.version, file)));
    let (_, newest) = ours.max()?;
    let image = read_file(&root, &format!("EFI/Linux/{newest}")).ok()?;
    let linux = uki::sections(&image).ok()?.into_iter().find(|section| section.name == ".linux")?;
    Some(linux.data.to_vec())
}

/// Names of the files in `EFI/Linux`, sorted.
fn uki_files(root: &Dir<'_, Window>) -> io::Result<Vec<String>> {
    let entries: Vec<_> = root.open_dir("EFI/Linux")?.iter().collect::<io::Result<_>>()?;
    let mut names: Vec<String> = entries.iter().filter(|entry| entry.is_file()).map(fatfs::DirEntry::file_name).collect();
    names.sort();
    Ok(names)
}

fn read_file(root: &Dir<'_, Window>, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    root.open_file(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn uki_report(file: &str, name: &UkiName, image: &[u8], problems: &mut Vec<String>) -> UkiReport {
    let sections = uki::sections(image).unwrap_or_else(|error| {
        problems.push(format!("{file} is damaged: {error}"));
        Vec::new()
    });
    let text = |name: &str| {
        let section = sections.iter().find(|section| section.name == name)?;
        Some(String::from_utf8_lossy(section.data).trim_end_matches(['\0', '\n']).to_owned())
    };
    for needed in [".linux", ".initrd", ".cmdline", ".osrel"] {
        if !sections.is_empty() && !sections.iter().any(|section| section.name == needed) {
            problems.push(format!("{file} has no section {needed}"));
        }
    }
    let cmdline = text(".cmdline");
    let root_hash = cmdline.as_ref().and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("roothash=")));
    UkiReport {
        file: file.to_owned(),
        version: name.version.to_string(),
        tries: name.counter.map(|counter| UkiTries { left: counter.left, done: counter.done }),
        size: image.len() as u64,
        sections: sections.iter().map(|section| (section.name.to_owned(), section.data.len() as u64)).collect(),
        kernel: text(".uname"),
        root_hash: root_hash.map(str::to_owned),
        cmdline: cmdline.clone(),
        os_release: text(".osrel").map(|text| os_release(&text)).unwrap_or_default(),
        slot: None,
    }
}

/// The assignments in an os-release, quotes taken off.
fn os_release(text: &str) -> BTreeMap<String, String> {
    let assignments = text.lines().filter_map(|line| line.split_once('='));
    assignments.map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches(['"', '\'']).to_owned())).collect()
}

/// systemd-boot carries its name between `#### LoaderInfo: ` and ` ####`.
fn loader_info(image: &[u8]) -> Option<String> {
    let magic = uki::sections(image).ok()?.into_iter().find(|section| section.name == ".sdmagic")?;
    let text = String::from_utf8_lossy(magic.data);
    let info = text.split_once("LoaderInfo: ")?.1.split_once(" ####")?.0;
    Some(info.to_owned())
}
