//! How long the kernel waits when it must be sure that nobody looks at something old any more (an RCU grace period).
//!
//! Mounts, control groups, network interfaces and modules all wait for it, tens of milliseconds each. The kernel hurries
//! while it starts (it interrupts the other processors) and stops doing so when it runs the first process; we let it go on
//! until the start-up jobs are done. `kernel-parameters.txt`, `rcupdate.rcu_expedited`; `/sys/kernel/rcu_expedited`.

const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// For the time of a boot.
pub fn hurry() {
    set("1");
}

/// For life after it.
pub fn relax() {
    set("0");
}

/// A kernel without the switch boots more slowly, that is all.
fn set(value: &str) {
    if let Err(error) = std::fs::write(EXPEDITED, value) {
        crate::kmsg::info(&format!("cannot write {value} to {EXPEDITED}: {error}"));
    }
}
