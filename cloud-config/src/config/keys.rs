//! Every key that is known, and what becomes of it. A new key begins here.

use Fate::{Kept, Later, Never, Read};

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is read.
    Read,
    /// It is right, but has no effect in this release; the text says what to do meanwhile.
    Later(&'static str),
    /// It is kept, and read by another program; the text says which.
    Kept(&'static str),
    /// It has no meaning on an immutable host; the text says why.
    Never(&'static str),
}

/// A known key.
pub type Key = (&'static str, Fate);

const NO_PACKAGES: &str = "there is no package manager on this host; run the software as a container, or add it to the image's recipe";
const STATE_DISK: &str = "not in this release; the state partition is formatted, grown and mounted by itself";
const LATER: &str = "has no effect in this release";

/// At the top.
pub const TOP: &[Key] = &[
    ("hostname", Read),
    ("fqdn", Read),
    ("prefer_fqdn_over_hostname", Read),
    ("preserve_hostname", Read),
    ("create_hostname_file", Later(LATER)),
    ("manage_etc_hosts", Read),
    ("timezone", Read),
    ("ssh_authorized_keys", Read),
    ("user", Read),
    ("users", Read),
    ("groups", Read),
    ("chpasswd", Read),
    ("password", Later("plain-text passwords are not read by this release; use `chpasswd` with `type: hash`, or an ssh key")),
    ("ssh_pwauth", Later("ssh takes keys only in this release")),
    ("disable_root", Later("root has no password and no ssh key unless you give it one")),
    ("write_files", Read),
    ("runcmd", Read),
    ("bootcmd", Read),
    ("final_message", Read),
    ("coreos", Read),
    ("garboard", Read),
    ("ntp", Later("the image's own time daemon and servers are used; change its configuration with `write_files`")),
    ("ca_certs", Later("use `write_files` into /etc/ssl/certs")),
    ("locale", Later("the host has the C.UTF-8 locale only")),
    ("keyboard", Later(LATER)),
    ("mounts", Later("use a mount unit under `coreos.units`")),
    ("mount_default_fields", Later("use a mount unit under `coreos.units`")),
    ("swap", Later("use a swap unit under `coreos.units`")),
    ("growpart", Never("the state partition grows to the disk at every boot by itself")),
    ("resize_rootfs", Never("the root is read-only and has its size from the build; the state partition grows by itself")),
    ("disk_setup", Later(STATE_DISK)),
    ("fs_setup", Later(STATE_DISK)),
    ("ssh_keys", Later("host keys are made at the first boot; use `write_files` into /etc/ssh to bring your own")),
    ("ssh_deletekeys", Later("host keys are made at the first boot and kept")),
    ("ssh_genkeytypes", Later("host keys are made at the first boot and kept")),
    ("ssh_import_id", Later("needs the network; put the keys under `ssh_authorized_keys`")),
    ("ssh", Later(LATER)),
    ("ssh_publish_hostkeys", Later(LATER)),
    ("ssh_quiet_keygen", Later(LATER)),
    ("allow_public_ssh_keys", Later(LATER)),
    ("no_ssh_fingerprints", Later(LATER)),
    ("authkey_hash", Later(LATER)),
    ("power_state", Later("use `runcmd: [[systemctl, poweroff]]`")),
    ("phone_home", Later("use `runcmd` with curl")),
    ("rsyslog", Later("logs are in the journal; `docs` say how to ship them")),
    ("random_seed", Later("the seed is kept on the state partition by itself")),
    ("wireguard", Later(LATER)),
    ("network", Later("use the source's network-config, or .network units under `coreos.units`")),
    ("manage_resolv_conf", Later("name servers come from DHCP or a .network unit")),
    ("resolv_conf", Later("name servers come from DHCP or a .network unit")),
    ("merge_how", Later("a later part's key always replaces an earlier part's")),
    ("merge_type", Later("a later part's key always replaces an earlier part's")),
    ("vendor_data", Later("vendor data is read, and yours wins")),
    ("output", Later("output goes to the journal: `journalctl -u cloud-config -u cloud-config-final`")),
    ("reporting", Later(LATER)),
    ("launch_index", Later(LATER)),
    ("system_info", Later("the user `core` and its groups are the image's")),
    ("datasource", Later(LATER)),
    ("datasource_list", Later(LATER)),
    ("package_update", Never(NO_PACKAGES)),
    ("package_upgrade", Never("the host updates itself as a whole: `update-agent status`")),
    ("package_reboot_if_required", Never("the host updates itself as a whole: `locksmithctl status`")),
    ("packages", Never(NO_PACKAGES)),
    ("apt", Never(NO_PACKAGES)),
    ("apt_pipelining", Never(NO_PACKAGES)),
    ("apt_update", Never(NO_PACKAGES)),
    ("apt_upgrade", Never(NO_PACKAGES)),
    ("yum_repos", Never(NO_PACKAGES)),
    ("yum_repo_dir", Never(NO_PACKAGES)),
    ("zypper", Never(NO_PACKAGES)),
    ("apk_repos", Never(NO_PACKAGES)),
    ("snap", Never(NO_PACKAGES)),
    ("drivers", Never(NO_PACKAGES)),
    ("ubuntu_pro", Never(NO_PACKAGES)),
    ("ubuntu_advantage", Never(NO_PACKAGES)),
    ("rh_subscription", Never(NO_PACKAGES)),
    ("byobu_by_default", Never(NO_PACKAGES)),
    ("grub_dpkg", Never("there is no GRUB: systemd-boot starts one signed file per slot")),
    ("chef", Never("there is no agent on this host; run it as a container")),
    ("puppet", Never("there is no agent on this host; run it as a container")),
    ("salt_minion", Never("there is no agent on this host; run it as a container")),
    ("mcollective", Never("there is no agent on this host; run it as a container")),
    ("landscape", Never("there is no agent on this host; run it as a container")),
    ("ansible", Never("there is no Python on this host; run ansible against it from outside with `raw`, or in a container")),
    ("lxd", Never("this host runs Docker and containerd")),
];

/// What becomes of settings that only the reboot daemon follows.
const REBOOTS: Fate = Kept("the reboot daemon");

/// Under `garboard`.
pub const GARBOARD: &[Key] = &[("update", Kept("the update agent")), ("reboot", REBOOTS)];

/// Under `users[]`.
pub const USER: &[Key] = &[
    ("name", Read),
    ("gecos", Read),
    ("passwd", Read),
    ("hashed_passwd", Read),
    ("plain_text_passwd", Later("plain-text passwords are not read by this release; give `hashed_passwd`, made by `mkpasswd -m sha-512`")),
    ("lock_passwd", Read),
    ("homedir", Read),
    ("no_create_home", Read),
    ("primary_group", Read),
    ("groups", Read),
    ("no_user_group", Read),
    ("ssh_authorized_keys", Read),
    ("system", Read),
    ("shell", Read),
    ("uid", Read),
    ("sudo", Read),
    ("create_groups", Later("groups that are missing are always made")),
    ("no_log_init", Never("there is no lastlog on this host")),
    ("expiredate", Later(LATER)),
    ("inactive", Later(LATER)),
    ("selinux_user", Never("there is no SELinux on this host")),
    ("snapuser", Never("there is no snap on this host")),
    ("doas", Later("use `sudo`")),
    ("ssh_redirect_user", Later(LATER)),
    ("ssh_import_id", Later("needs the network; put the keys under `ssh_authorized_keys`")),
    ("coreos_ssh_import_github", Later("needs the network; put the keys under `ssh_authorized_keys`")),
    ("coreos_ssh_import_github_users", Later("needs the network; put the keys under `ssh_authorized_keys`")),
    ("coreos_ssh_import_url", Later("needs the network; put the keys under `ssh_authorized_keys`")),
];

/// Under `write_files[]`.
pub const FILE: &[Key] = &[
    ("path", Read),
    ("content", Read),
    ("owner", Read),
    ("permissions", Read),
    ("encoding", Read),
    ("append", Read),
    ("defer", Read),
    ("source", Later("needs the network; only `content` is read")),
];

/// Under `coreos`.
pub const COREOS: &[Key] = &[
    ("units", Read),
    ("etcd", Read),
    ("etcd2", Read),
    ("oem", Read),
    ("update", Kept("the update agent and the reboot daemon")),
    ("locksmith", REBOOTS),
    ("fleet", Never("fleet ended in 2018; write the units under `coreos.units`")),
    ("flannel", Later("run flannel as a container; its settings are kept")),
];

/// Under `coreos.units[]`.
pub const UNIT: &[Key] =
    &[("name", Read), ("mask", Read), ("enable", Read), ("runtime", Read), ("content", Read), ("command", Read), ("drop_ins", Read)];

/// Under `coreos.units[].drop_ins[]`.
pub const DROP_IN: &[Key] = &[("name", Read), ("content", Read)];

/// Under `coreos.oem`.
pub const OEM: &[Key] = &[("id", Read), ("name", Read), ("version_id", Read), ("home_url", Read), ("bug_report_url", Read)];

/// Under `coreos.update`.
pub const UPDATE: &[Key] = &[("reboot_strategy", Read), ("group", Read), ("server", Read)];

/// Under `chpasswd`.
pub const CHPASSWD: &[Key] = &[("expire", Later(LATER)), ("users", Read), ("list", Read)];

/// Under `chpasswd.users[]`.
pub const CHPASSWD_USER: &[Key] = &[("name", Read), ("password", Read), ("type", Read)];
