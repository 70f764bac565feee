//! The top of the control group tree: PID 1 in `/init.scope`, units in `/system.slice`, nothing at the root, since the
//! runtimes want controllers there and a group with processes of its own cannot pass controllers on.

use std::fs;
use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";
const WANTED: [&str; 8] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"];
/// Not every kernel has the others.
const EXPECTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Makes the groups and switches the controllers on; one that is refused costs only itself.
pub(super) fn set_up() -> Vec<String> {
    let root = Path::new(ROOT);
    let mut notes = Vec::new();
    for group in ["init.scope", "system.slice"] {
        if let Err(error) = fs::create_dir_all(root.join(group)) {
            notes.push(format!("cannot make the control group /{group}: {error}"));
            return notes;
        }
    }
    if let Err(error) = fs::write(root.join("init.scope/cgroup.procs"), "1") {
        notes.push(format!("cannot move PID 1 into /init.scope: {error}"));
    }
    for group in [root.to_owned(), root.join("system.slice")] {
        let available = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
        let is_present = |controller: &&str| available.split_whitespace().any(|name| name == *controller);
        for controller in EXPECTED.iter().filter(|controller| !is_present(controller)) {
            notes.push(format!("this kernel offers no cgroup controller '{controller}' in {}", group.display()));
        }
        let present: Vec<&str> = WANTED.iter().copied().filter(|controller| is_present(controller)).collect();
        // Every write waits for the whole kernel to take notice, so all at once if possible.
        let enable = |controllers: &[&str]| {
            let words: Vec<String> = controllers.iter().map(|controller| format!("+{controller}")).collect();
            fs::write(group.join("cgroup.subtree_control"), words.join(" "))
        };
        if enable(&present).is_ok() {
            continue;
        }
        for controller in present {
            if let Err(error) = enable(&[controller]) {
                notes.push(format!("cannot enable the cgroup controller '{controller}' in {}: {error}", group.display()));
            }
        }
    }
    notes
}
