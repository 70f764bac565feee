//! `systemctl is-enabled`.

use crate::index::{LINK_DIRECTORIES, UnitFile};
use crate::memory::join_link;
use crate::name::UnitName;
use crate::source::UnitSource;
use crate::unit::LoadState;

use super::{InstallError, Installer, PERSISTENT, RUNTIME, is_operators};

/// What links make of a unit file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitFileState {
    /// Links enable it, or it is the operator's and was not disabled.
    Enabled,
    /// The same until the next boot.
    EnabledRuntime,
    /// The file itself is elsewhere.
    Linked,
    /// The same until the next boot.
    LinkedRuntime,
    /// The name is a link to another unit.
    Alias,
    /// Switched off.
    Masked,
    /// The same until the next boot.
    MaskedRuntime,
    /// `[Install]` says nothing.
    Static,
    /// `[Install]` only names others.
    Indirect,
    /// It could be enabled.
    Disabled,
    /// The file cannot be used.
    Bad,
}

impl UnitFileState {
    /// As `systemctl` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::EnabledRuntime => "enabled-runtime",
            Self::Linked => "linked",
            Self::LinkedRuntime => "linked-runtime",
            Self::Alias => "alias",
            Self::Masked => "masked",
            Self::MaskedRuntime => "masked-runtime",
            Self::Static => "static",
            Self::Indirect => "indirect",
            Self::Disabled => "disabled",
            Self::Bad => "bad",
        }
    }

    /// Whether `is-enabled` exits with 0.
    #[must_use]
    pub const fn counts_as_enabled(self) -> bool {
        matches!(self, Self::Enabled | Self::EnabledRuntime | Self::Static | Self::Alias | Self::Indirect)
    }
}

fn is_runtime(path: &str) -> bool {
    path.starts_with("/run/")
}

impl<S: UnitSource> Installer<'_, S> {
    /// The state of a unit file.
    ///
    /// # Errors
    /// When there is none of this name, or directories cannot be read.
    pub fn state(&self, name: &UnitName) -> Result<UnitFileState, InstallError> {
        let masked = |path: &str| if is_runtime(path) { UnitFileState::MaskedRuntime } else { UnitFileState::Masked };
        let path = match self.index().file_or_template(name) {
            None => return Err(InstallError::NotFound(name.clone())),
            Some(UnitFile::Masked(path)) => return Ok(masked(path)),
            Some(UnitFile::Alias(..)) => return Ok(UnitFileState::Alias),
            Some(UnitFile::Fragment(path)) => path,
        };
        let unit = self.loader.load(name);
        match unit.load_state {
            LoadState::Masked => return Ok(masked(path)),
            LoadState::Error => return Ok(UnitFileState::Bad),
            LoadState::NotFound => return Err(InstallError::NotFound(name.clone())),
            LoadState::Loaded | LoadState::BadSetting => {}
        }
        for (directory, state) in [(PERSISTENT, UnitFileState::Enabled), (RUNTIME, UnitFileState::EnabledRuntime)] {
            if self.enabled_below(directory, name)? {
                return Ok(state);
            }
        }
        if is_operators(path) && self.counts_by_itself(name, path)? {
            return Ok(UnitFileState::Enabled);
        }
        let linked = [PERSISTENT, RUNTIME].iter().any(|directory| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')))
            && self.source().read_link(path)?.is_some();
        if linked {
            return Ok(if is_runtime(path) { UnitFileState::LinkedRuntime } else { UnitFileState::Linked });
        }
        let install = &unit.install;
        Ok(if install.is_empty() {
            UnitFileState::Static
        } else if install.wanted_by.is_empty() && install.required_by.is_empty() && install.upheld_by.is_empty() && install.alias.is_empty()
        {
            UnitFileState::Indirect
        } else {
            UnitFileState::Disabled
        })
    }

    /// Whether links below a configuration directory enable the unit; a link of the same name is only its file.
    fn enabled_below(&self, directory: &str, name: &UnitName) -> Result<bool, InstallError> {
        let own = [format!("{PERSISTENT}/{name}"), format!("{RUNTIME}/{name}")];
        let links = self.existing_links(name)?;
        Ok(links.iter().any(|link| link.starts_with(directory) && !own.contains(link)))
    }

    /// Whether `[Install]` of an operator's unit has an effect that no link to `/dev/null` takes away.
    fn counts_by_itself(&self, name: &UnitName, fragment: &str) -> Result<bool, InstallError> {
        let (_, install) = self.install_info(name)?;
        let links = match self.links(name, fragment, &install) {
            Ok(links) => links,
            Err(InstallError::NoInstance(..) | InstallError::Install { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        for link in links {
            let in_directory = link
                .split_once('/')
                .is_some_and(|(owner, _)| LINK_DIRECTORIES.iter().any(|(suffix, _)| owner.ends_with(&format!(".{suffix}"))));
            let path = format!("{PERSISTENT}/{link}");
            let hidden = self.source().read_link(&path)?.is_some_and(|target| join_link(&path, &target) == "/dev/null");
            if in_directory && !hidden {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
