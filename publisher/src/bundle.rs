//! Bundles: a repository with one release in one file, for hosts without network. An uncompressed tar archive, so that an
//! agent can read ranges of what is in it, and people can unpack and serve it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use disk_layout::Version;
use release_format::{Name, ObjectKind};
use serde::{Deserialize, Serialize};

use crate::error::PublishError;
use crate::files;
use crate::publish::choose;
use crate::repository::{METADATA, Repository, TARGETS};

/// The first entry.
pub const HEADER_FILE: &str = "bundle.json";

/// `bundle.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleHeader {
    /// Version of this format.
    pub format: u32,
    /// The channel.
    pub channel: Name,
    /// The image.
    pub image: Name,
    /// The architecture.
    pub architecture: Name,
    /// The one version whose objects are in it.
    pub version: String,
}

/// What was bundled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bundled {
    /// The version.
    pub version: String,
    /// Bytes of the bundle.
    pub bytes: u64,
}

/// Writes a bundle of a version, or of the newest one that is offered.
///
/// # Errors
/// When there is no such version, or files cannot be read or written.
pub fn bundle(
    repository: &Repository,
    channel: &Name,
    image: Option<&Name>,
    version: Option<&Version>,
    out: &Path,
) -> Result<Bundled, PublishError> {
    if repository.is_new() {
        return Err(PublishError::NoRepository(repository.directory().to_owned()));
    }
    let channels = repository.channels();
    let target = choose(&channels, channel, image)?;
    let meant = |list: &release_format::Channel| {
        let wanted =
            |entry: &&release_format::ChannelRelease| entry.is_offered() && version.is_none_or(|version| entry.version == *version);
        list.releases.iter().rev().find(wanted).cloned()
    };
    let list = channels.get(&target);
    let none = || match version {
        Some(version) => PublishError::NoVersion { channel: channel.to_string(), version: version.clone() },
        None => PublishError::NoChannel(format!("channel '{channel}' offers no release")),
    };
    let (list, entry) = list.and_then(|list| Some((list, meant(list)?))).ok_or_else(none)?;
    let release = repository.read_release(&entry.release)?;
    let header = BundleHeader {
        format: 1,
        channel: list.channel.clone(),
        image: list.image.clone(),
        architecture: list.architecture.clone(),
        version: entry.version.to_string(),
    };

    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = files::temporary(parent, 0o644)?;
    let fail = || PublishError::file("write", out);
    let mut archive = tar::Builder::new(BufWriter::new(file.as_file_mut()));
    let header = serde_json::to_vec(&header).map_err(|error| crate::metadata::encode("a bundle", &error))?;
    append(&mut archive, HEADER_FILE, header.len() as u64, header.as_slice()).map_err(fail())?;
    let metadata = repository.current_metadata()?;
    let mut names: Vec<String> = metadata.into_iter().map(|name| format!("{METADATA}/{name}")).collect();
    names.push(format!("{TARGETS}/{}", repository.current_target(&target)?));
    names.push(entry.release.path(ObjectKind::Release));
    names.push(release.map.path(ObjectKind::Map));
    names.push(release.index.path(ObjectKind::Index));
    names.extend(release.packs.iter().map(|pack| pack.path(ObjectKind::Pack)));
    for name in names {
        let path = repository.directory().join(&name);
        let mut from = File::open(&path).map_err(PublishError::file("read", &path))?;
        let len = from.metadata().map_err(PublishError::file("read", &path))?.len();
        append(&mut archive, &name, len, &mut from).map_err(fail())?;
    }
    let mut writer = archive.into_inner().map_err(fail())?;
    writer.flush().map_err(fail())?;
    drop(writer);
    let bytes = file.as_file().metadata().map_err(fail())?.len();
    files::keep(file, out)?;
    Ok(Bundled { version: entry.version.to_string(), bytes })
}

/// The same bytes whoever makes it: no times, no owners.
fn append(archive: &mut tar::Builder<impl Write>, name: &str, len: u64, from: impl io::Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, from)
}
