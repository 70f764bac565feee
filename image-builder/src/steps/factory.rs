//! What a fresh installation has although no package contains it: files that scripts copy from defaults, the
//! directories of the root, links that `systemd` would make, and os-release with the image's own name and version.
//! Everything here is put in only where the packages have nothing, except os-release.

use super::{StepsError, origin, text};
use crate::tree::{Kind, Node, Tree};

/// What the image calls itself.
#[derive(Clone, Debug)]
pub struct ImageIdentity {
    /// `VARIANT_ID`: the recipe's name, by which updates tell images apart.
    pub variant: String,
    /// `IMAGE_ID`: of all our images.
    pub name: String,
    /// `IMAGE_VERSION`.
    pub version: String,
}

impl Default for ImageIdentity {
    fn default() -> Self {
        Self { variant: "garboard".to_owned(), name: "garboard".to_owned(), version: "0".to_owned() }
    }
}

/// Directories that must be there to mount on, and their modes. What is mounted brings its own mode, but a mount point
/// that nothing is mounted on should not be a surprise.
const DIRECTORIES: &[(&str, u16)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc/opt", 0o755),
    ("etc/profile.d", 0o755),
    ("etc/ssl/certs", 0o755),
    ("etc/sudoers.d", 0o755),
    ("home", 0o755),
    ("media/state", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/local/bin", 0o755),
    ("usr/local/lib", 0o755),
    ("usr/local/sbin", 0o755),
    ("usr/local/share", 0o755),
    ("var", 0o755),
];

const NSSWITCH: &str = "passwd:         files\ngroup:          files\nshadow:         files\ngshadow:        files\n\n\
hosts:          files dns\nnetworks:       files\n\nprotocols:      files\nservices:       files\nethers:         files\nrpc:            files\n";

const HOSTS: &str = "127.0.0.1\tlocalhost\n127.0.1.1\tgarboard\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n";

const NETWORKS: &str = "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n";

/// Shells that `/etc/shells` names when the image has them.
const SHELLS: &[&str] =
    &["/bin/sh", "/usr/bin/sh", "/bin/bash", "/usr/bin/bash", "/bin/rbash", "/usr/bin/rbash", "/bin/dash", "/usr/bin/dash"];

/// Puts in the defaults.
///
/// # Errors
/// When the tree refuses a path or a body cannot be read.
pub fn apply(tree: &mut Tree, image: &ImageIdentity) -> Result<(), StepsError> {
    let origin = origin("factory");
    for &(path, mode) in DIRECTORIES {
        match tree.get_mut(path) {
            Some(node) if matches!(node.kind, Kind::Directory) => node.mode = mode,
            Some(_) => {}
            None => tree.put(path, Node::new(Kind::Directory, mode, &origin))?,
        }
    }
    let shells: String = SHELLS
        .iter()
        .filter(|shell| tree.resolve(shell.trim_start_matches('/')).is_some())
        .fold("# Login shells of this host.\n".to_owned(), |text, shell| text + shell + "\n");
    for (path, content, mode) in [
        ("etc/nsswitch.conf", NSSWITCH, 0o644),
        ("etc/hosts", HOSTS, 0o644),
        ("etc/networks", NETWORKS, 0o644),
        ("etc/hostname", "garboard\n", 0o644),
        ("etc/machine-id", "uninitialized\n", 0o444),
        ("etc/shells", &shells, 0o644),
        ("etc/motd", "", 0o644),
        ("etc/security/opasswd", "", 0o600),
        ("etc/fstab", "# Nothing is needed here: the root, /etc and the state partition are mounted by init.\n", 0o644),
    ] {
        text::write_if_missing(tree, path, content, mode, &origin)?;
    }
    for (path, target) in [("etc/mtab", "../proc/self/mounts"), ("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")] {
        if !tree.contains(path) {
            tree.put(path, Node::symlink(target, &origin))?;
        }
    }
    // The scripts of base-files copy this one; our own /etc/profile of the base recipe replaces it.
    if let (false, Some(body)) = (tree.contains("etc/profile"), tree.file("usr/share/base-files/profile")) {
        let body = body.clone();
        tree.put("etc/profile", Node::new(Kind::File(body), 0o644, &origin))?;
    }
    write_os_release(tree, image)
}

/// os-release keeps what Debian says of itself as `ID_LIKE` and adds what the image is. `VERSION_ID` is the image's.
fn write_os_release(tree: &mut Tree, image: &ImageIdentity) -> Result<(), StepsError> {
    const PATH: &str = "usr/lib/os-release";
    let debian = text::read(tree, PATH)?.unwrap_or_default();
    let codename = debian.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default().trim_matches('"');
    let debian_version = debian.lines().find_map(|line| line.strip_prefix("DEBIAN_VERSION_FULL=")).unwrap_or_default().trim_matches('"');
    let ImageIdentity { variant, name, version } = image;
    let pretty = if name == "garboard" { "Garboard".to_owned() } else { format!("Garboard {name}") };
    let mut content = format!(
        "NAME=\"Garboard\"\nPRETTY_NAME=\"{pretty} {version}\"\nID=garboard\nID_LIKE=debian\nVERSION_ID=\"{version}\"\nVERSION=\"{version}\"\n\
         IMAGE_ID=\"{name}\"\nIMAGE_VERSION=\"{version}\"\nVARIANT_ID=\"{variant}\"\n"
    );
    for (key, value) in [("VERSION_CODENAME", codename), ("DEBIAN_VERSION_FULL", debian_version)] {
        if !value.is_empty() {
            content.push_str(&format!("{key}={value}\n"));
        }
    }
    let origin = origin("factory");
    text::write(tree, PATH, &content, 0o644, &origin)?;
    if !tree.contains("etc/os-release") {
        tree.put("etc/os-release", Node::symlink("../usr/lib/os-release", &origin))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_files_stay_and_gaps_are_filled() {
        let mut tree = Tree::new();
        let from = origin("test");
        tree.put("etc/hosts", Node::file(*b"mine", 0o600, &from)).unwrap();
        tree.put("bin", Node::symlink("usr/bin", &from)).unwrap();
        tree.put("usr/bin/bash", Node::file(*b"", 0o755, &from)).unwrap();
        tree.put("usr/lib/os-release", Node::file(*b"ID=debian\nVERSION_CODENAME=trixie\n", 0o644, &from)).unwrap();
        apply(&mut tree, &ImageIdentity { variant: "small".into(), name: "tiny".into(), version: "1.2".into() }).unwrap();
        let read = |path: &str| text::read(&tree, path).unwrap().unwrap();
        assert_eq!(read("etc/hosts"), "mine");
        assert_eq!(read("etc/shells"), "# Login shells of this host.\n/bin/bash\n/usr/bin/bash\n");
        assert_eq!(read("etc/machine-id"), "uninitialized\n");
        let release = read("etc/os-release");
        assert!(release.contains("VARIANT_ID=\"small\"\n"), "{release}");
        assert!(release.contains("ID=garboard\n") && release.contains("IMAGE_VERSION=\"1.2\"\n"), "{release}");
        assert!(release.contains("VERSION_CODENAME=trixie\n"), "{release}");
        assert_eq!(tree.get("tmp").unwrap().mode, 0o1777);
        assert!(tree.contains("media/state"));
    }
}
