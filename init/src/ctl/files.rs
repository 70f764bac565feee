//! Verbs over unit files: `enable` and its kin, `cat`, `verify`, `is-enabled`, the default target.

use std::fs;
use std::path::Path;

use unit_files::exec::EXEC_SEARCH_PATH;
use unit_files::install::{InstallError, InstallOptions, Installer, LinkOperation, Plan, apply};
use unit_files::source::{OPERATOR_UNITS, UnitSource};
use unit_files::{FsSource, HostFacts, LoadState, Loader, UnitKind, UnitName};

use super::args::Options;
use super::{Failure, Outcome, human, jobs, pid1};
use crate::engine::protocol::Request;

/// The unit files of this host, or below `--root`.
pub(super) struct FileView {
    facts: HostFacts,
    loader: Loader<FsSource>,
    options: InstallOptions,
}

impl FileView {
    pub fn new(options: &Options) -> Self {
        let root = options.root.as_deref().unwrap_or(Path::new("/"));
        let facts = facts(root);
        let loader = Loader::new(FsSource::new(root), facts.clone());
        Self { facts, loader, options: InstallOptions { runtime: options.runtime, force: options.force > 0 } }
    }

    pub fn loader(&self) -> &Loader<FsSource> {
        &self.loader
    }

    pub fn installer(&self) -> Installer<'_, FsSource> {
        Installer::new(&self.loader, &self.facts, self.options)
    }

    /// `enabled`, `static` and so on; `None` when there is no such file.
    pub fn state(&self, name: &UnitName) -> Option<&'static str> {
        self.installer().state(name).ok().map(unit_files::install::UnitFileState::as_str)
    }
}

/// What specifiers mean on the host below `root`.
fn facts(root: &Path) -> HostFacts {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_owned();
    let live = root == Path::new("/");
    let mut facts = HostFacts { machine_id: read("etc/machine-id"), ..HostFacts::default() };
    if live {
        facts.host_name = read("proc/sys/kernel/hostname");
        facts.boot_id = read("proc/sys/kernel/random/boot_id").replace('-', "");
        facts.kernel_release = read("proc/sys/kernel/osrelease");
    } else if let Some(name) = Some(read("etc/hostname")).filter(|name| !name.is_empty()) {
        facts.host_name = name;
    }
    if let Ok(bytes) = std::fs::read(root.join("etc/os-release")).or_else(|_| std::fs::read(root.join("usr/lib/os-release"))) {
        facts.set_os_release(&bytes);
    }
    facts
}

fn parse_names(operands: &[String]) -> Result<Vec<UnitName>, Failure> {
    let parse = |operand: &String| {
        UnitName::mangle(operand, UnitKind::Service).map_err(|error| Failure { message: format!("systemctl: {error}"), code: 2 })
    };
    operands.iter().map(parse).collect()
}

fn failed(verb: &str, error: &InstallError) -> Failure {
    // systemctl's wording: "Failed to enable unit: ...".
    Failure::new(format!("Failed to {verb} unit: {error}"))
}

/// `enable`, `disable`, `mask` and their kin: links, then PID 1 is told, then `--now`.
pub(super) fn change(verb: &str, options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        return Err(Failure { message: format!("systemctl: {verb} needs a unit"), code: 2 });
    }
    let view = FileView::new(options);
    let installer = view.installer();
    // A path to a file elsewhere is linked first.
    let (paths, words): (Vec<String>, Vec<String>) =
        operands.iter().cloned().partition(|operand| operand.contains('/') && matches!(verb, "enable" | "reenable" | "link"));
    let mut names = parse_names(&words)?;
    let linked: Result<Vec<UnitName>, Failure> = paths
        .iter()
        .map(|path| {
            UnitName::parse(path.rsplit('/').next().unwrap_or_default()).map_err(|error| Failure::new(format!("systemctl: {error}")))
        })
        .collect();
    if !paths.is_empty() && verb != "link" {
        carry_out(&installer.link(&paths).map_err(|error| failed("link", &error))?, options)?;
        names.extend(linked?);
        let options = options.clone();
        return change(verb, &options, &names.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    let plan = match verb {
        "enable" => installer.enable(&names),
        "disable" => installer.disable(&names),
        "reenable" => installer.reenable(&names),
        "preset" => installer.preset(&names),
        "mask" => installer.mask(&names),
        "unmask" => installer.unmask(&names),
        "link" => installer.link(operands),
        _ => {
            let (owner, units) = names.split_first().ok_or_else(|| Failure::new("systemctl: name a target and units"))?;
            installer.add_dependency(owner, verb == "add-requires", units)
        }
    };
    let plan = plan.map_err(|error| failed(verb, &error))?;
    carry_out(&plan, options)?;
    if options.root.is_some() {
        return Ok(0);
    }
    keep();
    if !options.no_reload {
        // Links are made whether or not PID 1 listens; that it does not is worth a word only when it is to act.
        let told = pid1::ask(&Request::DaemonReload, true);
        if options.now {
            told?;
        }
    }
    if options.now {
        return jobs::follow_up(verb, options, &names, view.loader());
    }
    Ok(0)
}

/// Puts what somebody wrote among unit files onto the disk. Editors and shells rarely do, and a power cut within half a minute would
/// leave files of no length: masked units. PID 1 must not wait for disks, so it is done here.
pub(super) fn keep() {
    for directory in [OPERATOR_UNITS, "/etc/systemd/system"] {
        keep_below(Path::new(directory));
    }
}

/// Links are kept with the directory that they are in.
fn keep_below(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => keep_below(&path),
            Ok(kind) if kind.is_file() => keep_one(&path),
            _ => {}
        }
    }
    keep_one(directory);
}

fn keep_one(path: &Path) {
    if let Err(error) = fs::File::open(path).and_then(|file| file.sync_all()) {
        eprintln!("systemctl: {} may be lost in a power cut: {error}", path.display());
    }
}

fn carry_out(plan: &Plan, options: &Options) -> Result<(), Failure> {
    let root = options.root.as_deref().unwrap_or(Path::new("/"));
    apply(root, &plan.operations).map_err(|error| Failure::new(format!("Failed to change links: {error}")))?;
    if !options.quiet {
        for line in plan.lines().iter().chain(&plan.notes) {
            eprintln!("{line}");
        }
    }
    Ok(())
}

/// The unit to start or stop for a name of a file: a template without an instance has its default one, or none.
pub(super) fn runnable(name: &UnitName, loader: &Loader<FsSource>) -> Option<String> {
    if !name.is_template() {
        return Some(name.to_string());
    }
    let instance = loader.load(name).install.default_instance?;
    name.with_instance(&instance).ok().map(|name| name.to_string())
}

/// `is-enabled`: 0 when any is.
pub(super) fn is_enabled(options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        return Err(Failure { message: "systemctl: is-enabled needs a unit".to_owned(), code: 2 });
    }
    let view = FileView::new(options);
    let (mut any, mut missing) = (false, false);
    for name in parse_names(operands)? {
        let word = match view.installer().state(&name) {
            Ok(state) => {
                any |= state.counts_as_enabled();
                state.as_str()
            }
            Err(InstallError::NotFound(_)) => {
                missing = true;
                "not-found"
            }
            Err(error) => return Err(Failure::new(format!("Failed to get unit file state for {name}: {error}"))),
        };
        if !options.quiet {
            plain_output::print(&format!("{word}\n"));
        }
    }
    Ok(match (any, missing) {
        (true, _) => 0,
        (false, true) => 4,
        (false, false) => 1,
    })
}

/// `cat`: the files of units as they are.
pub(super) fn cat(options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        return Err(Failure { message: "systemctl: cat needs a unit".to_owned(), code: 2 });
    }
    let view = FileView::new(options);
    let mut first = true;
    for name in parse_names(operands)? {
        let unit = view.loader().load(&name);
        match unit.load_state {
            LoadState::NotFound => return Err(Failure::new(format!("No files found for {name}."))),
            LoadState::Masked => {
                plain_output::print(&format!("# Unit {name} is masked.\n"));
                continue;
            }
            _ => {}
        }
        for path in unit.fragment.iter().chain(&unit.drop_ins) {
            let bytes = view.loader().source().read(path).map_err(|error| Failure::new(error.to_string()))?.unwrap_or_default();
            if !first {
                plain_output::print("\n");
            }
            first = false;
            plain_output::print(&format!("# {path}\n{}", String::from_utf8_lossy(&bytes)));
            if !bytes.ends_with(b"\n") {
                plain_output::print("\n");
            }
        }
    }
    Ok(0)
}

/// `verify`: units by name, or files by path. 1 when anything is found.
pub(super) fn verify(options: &Options, operands: &[String]) -> Outcome {
    if operands.is_empty() {
        return Err(Failure { message: "systemctl: verify needs a unit or a file".to_owned(), code: 2 });
    }
    let root = options.root.clone().unwrap_or_else(|| "/".into());
    let view = FileView::new(options);
    let mut found = Vec::new();
    for operand in operands {
        if Path::new(operand).is_file() {
            found.extend(verify_file(operand, &view.facts)?);
        } else {
            let name = UnitName::mangle(operand, UnitKind::Service)
                .map_err(|error| Failure { message: format!("systemctl: {error}"), code: 2 })?;
            found.extend(unit_files::verify::verify(view.loader(), &name, |program| program_exists(&root, program)));
        }
    }
    if options.json {
        human::emit_json(&found)?;
    } else {
        for diagnostic in &found {
            plain_output::print(&format!("{}: {diagnostic}\n", diagnostic.severity.as_str()));
        }
    }
    Ok(u8::from(!found.is_empty()))
}

fn verify_file(path: &str, facts: &HostFacts) -> Result<Vec<unit_files::diagnostic::Diagnostic>, Failure> {
    let base = path.rsplit('/').next().unwrap_or_default();
    let name = UnitName::parse(base).map_err(|error| Failure::new(format!("{path}: {error}")))?;
    let bytes = std::fs::read(path).map_err(|error| Failure::new(format!("{path}: {error}")))?;
    Ok(Loader::<FsSource>::load_text(&name, path, &bytes, facts).diagnostics)
}

fn program_exists(root: &Path, program: &str) -> bool {
    if program.starts_with('/') {
        return root.join(program.trim_start_matches('/')).exists();
    }
    EXEC_SEARCH_PATH.iter().any(|directory| root.join(directory.trim_start_matches('/')).join(program).exists())
}

/// `get-default`.
pub(super) fn get_default(options: &Options) -> Outcome {
    match FileView::new(options).installer().get_default() {
        Some(name) => {
            plain_output::print(&format!("{name}\n"));
            Ok(0)
        }
        None => Err(Failure::new("Failed to get default target: there is no default.target")),
    }
}

/// `set-default`.
pub(super) fn set_default(options: &Options, operands: &[String]) -> Outcome {
    let [target] = operands else { return Err(Failure { message: "systemctl: set-default takes one target".to_owned(), code: 2 }) };
    let name = UnitName::mangle(target, UnitKind::Target).map_err(|error| Failure { message: format!("systemctl: {error}"), code: 2 })?;
    let plan = FileView::new(options)
        .installer()
        .set_default(&name)
        .map_err(|error| Failure::new(format!("Failed to set default target: {error}")))?;
    let changes: Vec<LinkOperation> = plan.operations.clone();
    carry_out(&Plan { operations: changes, ..plan }, options)?;
    if options.root.is_none() && !options.no_reload {
        let _ = pid1::ask(&Request::DaemonReload, true);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(root: &Path) -> Options {
        Options { root: Some(root.to_owned()), quiet: true, ..Options::default() }
    }

    #[test]
    fn enabling_below_a_root_makes_links_and_asks_nobody() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("usr/lib/systemd/system");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(lib.join("multi-user.target"), "[Unit]\n").unwrap();
        std::fs::write(lib.join("a.service"), "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\n").unwrap();
        let options = below(root.path());
        let units = ["a".to_owned()];
        assert_eq!(is_enabled(&options, &units), Ok(1));
        assert_eq!(change("enable", &options, &units), Ok(0));
        let link = root.path().join("etc/systemd/system/multi-user.target.wants/a.service");
        assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some("/usr/lib/systemd/system/a.service"));
        assert_eq!(is_enabled(&options, &units), Ok(0));
        assert_eq!(change("disable", &options, &units), Ok(0));
        assert!(!link.exists());
        assert_eq!(change("mask", &options, &units), Ok(0));
        assert_eq!(is_enabled(&options, &units), Ok(1));
        assert_eq!(change("enable", &options, &units).unwrap_err().message, "Failed to enable unit: Unit a.service is masked");
        assert_eq!(is_enabled(&options, &["none".to_owned()]), Ok(4));
        assert_eq!(set_default(&options, &["multi-user".to_owned()]), Ok(0));
        assert_eq!(get_default(&options), Ok(0));
    }

    #[test]
    fn verify_exits_with_one_when_anything_is_found() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a.service");
        std::fs::write(&file, "[Service]\nExecStart=/bin/a\n").unwrap();
        let path = file.to_string_lossy().into_owned();
        assert_eq!(verify(&below(root.path()), std::slice::from_ref(&path)), Ok(0));
        std::fs::write(&file, "[Service]\nExecStart=/bin/a\nFoo=1\n").unwrap();
        assert_eq!(verify(&below(root.path()), &[path]), Ok(1));
    }
}
