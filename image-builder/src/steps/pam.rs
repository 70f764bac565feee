//! PAM without `pam-auth-update`: the five `common-*` files as Debian renders them for `pam_unix` alone, and the modes
//! that sudo insists on. There is no `pam_systemd`, since there is no logind to talk to.

use super::{StepsError, origin, text};
use crate::tree::Tree;

const COMMON: &[(&str, &str)] = &[
    (
        "common-auth",
        "auth\t[success=1 default=ignore]\tpam_unix.so\n\
         auth\trequisite\t\t\tpam_deny.so\n\
         auth\trequired\t\t\tpam_permit.so\n",
    ),
    (
        "common-account",
        "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so\n\
         account\trequisite\t\t\tpam_deny.so\n\
         account\trequired\t\t\tpam_permit.so\n",
    ),
    (
        "common-password",
        "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\n\
         password\trequisite\t\t\tpam_deny.so\n\
         password\trequired\t\t\tpam_permit.so\n",
    ),
    (
        "common-session",
        "session\t[default=1]\t\t\tpam_permit.so\n\
         session\trequisite\t\t\tpam_deny.so\n\
         session\trequired\t\t\tpam_permit.so\n\
         session\toptional\t\t\tpam_umask.so\n\
         session\trequired\t\t\tpam_unix.so\n",
    ),
    (
        "common-session-noninteractive",
        "session\t[default=1]\t\t\tpam_permit.so\n\
         session\trequisite\t\t\tpam_deny.so\n\
         session\trequired\t\t\tpam_permit.so\n\
         session\toptional\t\t\tpam_umask.so\n\
         session\trequired\t\t\tpam_unix.so\n",
    ),
];

/// Writes the `common-*` files where libpam-runtime is in the image.
///
/// # Errors
/// When the tree refuses a path.
pub fn apply(tree: &mut Tree) -> Result<(), StepsError> {
    if !tree.contains("usr/share/pam") {
        return Ok(());
    }
    let origin = origin("pam");
    for (name, rules) in COMMON {
        let content = format!("# /etc/pam.d/{name}: included by the services' own files. Accounts are local; see pam_unix(8).\n{rules}");
        text::write(tree, &format!("etc/pam.d/{name}"), &content, 0o644, &origin)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn every_common_file_ends_in_a_decision() {
        let mut tree = Tree::new();
        apply(&mut tree).unwrap();
        assert!(!tree.contains("etc/pam.d"), "without PAM there is nothing to configure");
        tree.put("usr/share/pam/common-auth", Node::file(*b"", 0o644, &origin("test"))).unwrap();
        apply(&mut tree).unwrap();
        for (name, _) in COMMON {
            let text = text::read(&tree, &format!("etc/pam.d/{name}")).unwrap().unwrap();
            assert!(text.contains("pam_deny.so") && text.contains("pam_unix.so") && !text.contains("pam_systemd"), "{name}");
        }
    }
}
