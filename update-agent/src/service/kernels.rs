//! Updates whose kernel is rebuilt by a kernel patch, or cannot be.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use release_format::{Kernel, KernelPatch};

use super::machine::{World, asked, world_of_kernels, world_of_kernels_behind};
use super::server::{Behaviour, Shared};
use crate::agent::Agent;
use crate::download::{Taken, Way};
use crate::kernel::Rebuild;

/// What becomes of a kernel that was rebuilt.
type Fault = fn(Vec<u8>) -> Result<Vec<u8>, String>;

/// What `rebuild-kernel.service` would do, here.
#[derive(Clone, Default)]
struct Here {
    asked: Rc<Cell<u32>>,
    fault: Option<Fault>,
    memory: Option<u64>,
    /// When the agent is to be killed.
    when: Option<(When, Arc<Mutex<Shared>>, Behaviour)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    While,
    /// Nothing more comes from the server.
    After,
}

#[async_trait(?Send)]
impl Rebuild for Here {
    fn available(&self) -> u64 {
        self.memory.unwrap_or(2 << 30)
    }

    async fn rebuild(&self, old: &[u8], patch: &[u8]) -> Result<Vec<u8>, String> {
        self.asked.set(self.asked.get() + 1);
        match &self.when {
            Some((When::While, ..)) => std::future::pending().await,
            Some((When::After, server, nothing_comes)) => server.lock().unwrap().behaviour = nothing_comes.clone(),
            _ => {}
        }
        let made = KernelPatch::decode(patch).and_then(|patch| patch.rebuild(old)).map_err(|error| error.to_string())?;
        self.fault.map_or(Ok(made.clone()), |fault| fault(made))
    }
}

fn agent(world: &World, here: &Here) -> Agent {
    let mut agent = world.machine.agent(&world.server.url);
    agent.kernels = Box::new(here.clone());
    agent
}

async fn updated(world: &World, here: &Here) -> (Taken, u64) {
    let mut agent = agent(world, here);
    agent.update(&asked()).await.unwrap();
    assert_eq!(world.machine.boots(), "1.1");
    let kept = std::fs::read(world.machine.state().uki_path(&"1.1".parse().unwrap())).unwrap();
    assert!(kept == world.new.uki);
    let sent = world.server.shared.lock().unwrap().sent;
    (agent.status.way.clone().unwrap().taken, sent)
}

/// The kernel patch of the repository.
fn object(world: &World) -> std::path::PathBuf {
    let mut objects = std::fs::read_dir(world.shop.repository().join("objects")).unwrap().map(|entry| entry.unwrap().path());
    objects.find(|path| path.extension().is_some_and(|kind| kind == "kernel")).unwrap()
}

#[tokio::test]
async fn a_kernel_is_rebuilt_where_there_is_the_memory_and_costs_what_changed_in_it() {
    let world = world_of_kernels().await;
    assert!(world.new.uki.len() > 300_000 && Kernel::open(&world.new.uki[512..]).is_some());
    let here = Here::default();
    let (taken, sent) = updated(&world, &here).await;
    assert_eq!((taken.way, taken.kernel, taken.fallbacks, here.asked.get()), (Way::Patch, true, 0, 1), "{taken:?}");
    let kernel = std::fs::metadata(object(&world)).unwrap().len();
    assert!(sent < 1000 && taken.received == sent + kernel, "{sent} {kernel} {taken:?}");
    assert!(taken.render().contains("the kernel rebuilt"), "{}", taken.render());

    let world = world_of_kernels().await;
    let here = Here { memory: Some(1 << 30), ..Here::default() };
    let (taken, sent) = updated(&world, &here).await;
    assert_eq!((taken.way, taken.kernel, taken.fallbacks, here.asked.get()), (Way::Patch, false, 0, 0), "{taken:?}");
    assert!(sent > 300_000, "{sent}");
}

#[tokio::test]
async fn a_host_two_releases_behind_borrows_the_kernel_patch_too() {
    let world = world_of_kernels_behind().await;
    let here = Here::default();
    let (taken, sent) = updated(&world, &here).await;
    assert_eq!((taken.way, taken.kernel, taken.fallbacks, here.asked.get()), (Way::Patch, true, 0, 1), "{taken:?}");
    assert!(sent < 20_000, "{sent} {taken:?}");
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_kernel_patch_the_patch_pack_makes_the_kernel() {
    let faults: [Fault; 3] = [
        |_| Err("killed for want of memory".to_owned()),
        |mut made| {
            made[5000] ^= 1;
            Ok(made)
        },
        |made| Ok(made[..made.len() - 1].to_vec()),
    ];
    for fault in faults {
        let world = world_of_kernels().await;
        let (taken, _) = updated(&world, &Here { fault: Some(fault), ..Here::default() }).await;
        assert_eq!((taken.way, taken.kernel, taken.fallbacks), (Way::Patch, false, 1), "{taken:?}");
    }
    // What the server has is gone, or another object.
    for damage in 0..2 {
        let world = world_of_kernels().await;
        let path = object(&world);
        if damage == 0 {
            std::fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[30] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        let here = Here::default();
        let (taken, _) = updated(&world, &here).await;
        assert_eq!((taken.way, taken.kernel, taken.fallbacks, here.asked.get()), (Way::Patch, false, 1, 0), "{taken:?}");
    }
    // The running version's kernel has a flipped bit in the copy of its UKI: the kernel patch does not fit, nor does the plain one.
    let world = world_of_kernels().await;
    let path = world.machine.state().uki_path(&"1.0".parse().unwrap());
    let prepared = agent(&world, &Here::default());
    let mut uki = std::fs::read(&path).unwrap();
    uki[200_000] ^= 1;
    std::fs::write(&path, uki).unwrap();
    drop(prepared);
    let (taken, _) = updated(&world, &Here::default()).await;
    assert_eq!((taken.way, taken.kernel), (Way::Patch, false), "{taken:?}");
    assert!(taken.fallbacks > 0, "{taken:?}");
}

/// Killed before, while, and after a kernel was rebuilt, it goes on; one that was put in place is not made again.
#[tokio::test]
async fn an_agent_that_is_killed_while_a_kernel_is_rebuilt_goes_on() {
    let nothing_comes = Behaviour { drop_after: Some((0, 99)), ..Behaviour::default() };
    for (when, again) in [(When::Before, 1), (When::While, 1), (When::After, 0)] {
        let world = world_of_kernels().await;
        let first = Here { when: Some((when, world.server.shared.clone(), nothing_comes.clone())), ..Here::default() };
        if when == When::Before {
            world.server.behave(nothing_comes.clone());
        }
        let mut killed = agent(&world, &first);
        let stopped = tokio::time::timeout(Duration::from_secs(5), killed.update(&asked())).await;
        assert!(stopped.is_err() || stopped.unwrap().is_err(), "{when:?}: nothing was cut");
        drop(killed);
        assert_eq!(world.machine.boots(), "1.0");
        world.server.behave(Behaviour::default());
        let here = Here::default();
        let (taken, _) = updated(&world, &here).await;
        assert_eq!((taken.way, taken.kernel, here.asked.get()), (Way::Patch, true, again), "{when:?}: {taken:?}");
    }
}
