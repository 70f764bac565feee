//! `RuntimeDirectory=`, `StateDirectory=` and their siblings: made before the program starts, owned by its user.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path};

use super::spec::{Failure, Spec, exit};

/// Makes them; returns the variables that name them.
pub fn make(spec: &Spec, owner: Option<(u32, u32)>) -> Result<Vec<(&'static str, String)>, Failure> {
    let context = &spec.context;
    let [runtime, state, cache, logs, configuration] = &spec.roots;
    let kinds = [
        ("RUNTIME_DIRECTORY", runtime, &context.runtime_directory, exit::RUNTIME_DIRECTORY),
        ("STATE_DIRECTORY", state, &context.state_directory, exit::STATE_DIRECTORY),
        ("CACHE_DIRECTORY", cache, &context.cache_directory, exit::CACHE_DIRECTORY),
        ("LOGS_DIRECTORY", logs, &context.logs_directory, exit::LOGS_DIRECTORY),
        ("CONFIGURATION_DIRECTORY", configuration, &context.configuration_directory, exit::CONFIGURATION_DIRECTORY),
    ];
    let mut variables = Vec::new();
    for (name, root, config, code) in kinds {
        let mut made = Vec::new();
        for directory in &config.paths {
            let path = Path::new(root).join(&directory.path);
            let fail = |why: std::io::Error| Failure { code, message: format!("cannot make {}: {why}", path.display()) };
            let plain = Path::new(&directory.path).components().all(|part| matches!(part, Component::Normal(_)));
            if !plain {
                return Err(fail(std::io::ErrorKind::InvalidInput.into()));
            }
            // The configuration's owner stays root, as systemd has it.
            let owner = owner.filter(|_| code != exit::CONFIGURATION_DIRECTORY);
            one(&path, config.mode, owner).map_err(fail)?;
            for link in &directory.links {
                let link = Path::new(root).join(link);
                if let Some(parent) = link.parent() {
                    std::fs::create_dir_all(parent).map_err(fail)?;
                }
                match std::os::unix::fs::symlink(&path, &link) {
                    Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => return Err(fail(why)),
                    _ => {}
                }
            }
            made.push(path.to_string_lossy().into_owned());
        }
        if !made.is_empty() {
            variables.push((name, made.join(":")));
        }
    }
    Ok(variables)
}

fn one(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    let before = std::fs::metadata(path)?;
    if !before.is_dir() {
        return Err(std::io::ErrorKind::NotADirectory.into());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if let Some((uid, gid)) = owner
        && (before.uid(), before.gid()) != (uid, gid)
    {
        chown_tree(path, uid, gid)?;
    }
    Ok(())
}

fn chown_tree(path: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        if path.symlink_metadata()?.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
    }
    Ok(())
}
