//! What many units have in common, kept once: a host with a thousand container units has one set of settings of processes and
//! one of resources for nearly all of them, and each is larger than the rest of a unit.

use std::collections::HashSet;
use std::sync::Arc;

use crate::exec::{ExecCommand, ExecContext};
use crate::name::UnitName;
use crate::resources::CgroupConfig;
use crate::service::ServiceConfig;
use crate::unit::{Config, Unit};

/// How many different ones are compared with; units that are alike are mostly read near each other.
const REMEMBERED: usize = 16;

/// The settings that were seen last.
#[derive(Debug, Default)]
pub struct Shared {
    exec: Vec<Arc<ExecContext>>,
    cgroup: Vec<Arc<CgroupConfig>>,
    names: HashSet<UnitName>,
}

impl Shared {
    /// Lets a unit use what an earlier one has, where both say the same, and gives back the room that reading it left over.
    pub fn share(&mut self, unit: &mut Unit) {
        unit.dependencies.share_names(&mut self.names);
        if let Config::Service(config) = &mut unit.config {
            shrink(config);
        }
        let (exec, cgroup) = match &mut unit.config {
            Config::Service(config) => (&mut config.exec, &mut config.cgroup),
            Config::Socket(config) => (&mut config.exec, &mut config.cgroup),
            Config::Mount(config) => (&mut config.exec, &mut config.cgroup),
            Config::Swap(config) => (&mut config.exec, &mut config.cgroup),
            _ => return,
        };
        share(&mut self.exec, exec);
        share(&mut self.cgroup, cgroup);
    }
}

fn shrink(config: &mut ServiceConfig) {
    let commands: [&mut Vec<ExecCommand>; 8] = [
        &mut config.exec_condition,
        &mut config.exec_start_pre,
        &mut config.exec_start,
        &mut config.exec_start_post,
        &mut config.exec_reload,
        &mut config.exec_reload_post,
        &mut config.exec_stop,
        &mut config.exec_stop_post,
    ];
    for list in commands {
        list.shrink_to_fit();
        for command in list {
            command.argv.shrink_to_fit();
            command.argv.iter_mut().for_each(String::shrink_to_fit);
        }
    }
}

fn share<T: PartialEq>(known: &mut Vec<Arc<T>>, own: &mut Arc<T>) {
    let found = match known.iter().position(|other| other == own) {
        Some(at) => {
            let found = known.remove(at);
            *own = Arc::clone(&found);
            found
        }
        None => Arc::clone(own),
    };
    known.insert(0, found);
    known.truncate(REMEMBERED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_are_kept_once_and_the_oldest_forgotten() {
        let mut known = Vec::new();
        let (mut a, mut b, mut c) = (Arc::new(1), Arc::new(1), Arc::new(2));
        for own in [&mut a, &mut b, &mut c] {
            share(&mut known, own);
        }
        assert!(Arc::ptr_eq(&a, &b) && !Arc::ptr_eq(&a, &c));
        for mut other in (3..).map(Arc::new).take(REMEMBERED) {
            share(&mut known, &mut other);
        }
        assert_eq!((known.len(), Arc::strong_count(&c)), (REMEMBERED, 1));
    }
}
