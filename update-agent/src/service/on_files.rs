//! The agent as a process of its own, on a disk that is one file, with its state in a directory: what `scripts/bench --only update` measures,
//! limits and kills. All of it is what runs on a host, but for the ESP, which no kernel with loop devices and vfat need be there to mount.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use disk_layout::SlotName;
use disk_layout::gpt::Geometry;
use release_format::StateFloor;

use super::machine::asked;
use crate::agent::{Agent, Paths, system_clock};
use crate::commit::Running;
use crate::crash::fat_esp::FatEsp;
use crate::host::{Host, HostDisk};
use crate::settings::Settings;
use crate::slots::{Content, Slots};
use crate::state::State;
use crate::status::Status;
use crate::target::{Area, Target};

/// The ESP through the page cache, where a mounted one would be.
struct Cached {
    disk: HostDisk,
    file: File,
    esp_start: u64,
}

impl Target for Cached {
    fn len(&self, area: Area) -> io::Result<u64> {
        self.disk.len(area)
    }

    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read(&self, _: Area, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, self.esp_start + offset)
    }

    fn write(&self, _: Area, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.esp_start + offset)
    }

    fn sync(&self, _: Area) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn agent(directory: &Path, server: &str) -> Agent {
    let path = directory.join("disk.raw");
    let disk = HostDisk::of_file(&path);
    let table = crate::target::read_table(&disk).unwrap();
    let esp_start = table.partition(disk_layout::PartitionRole::Esp.number()).unwrap().first * 512;
    let Content::Image { version, root_hash } = Slots::read(&disk).unwrap().get(SlotName::A).clone() else { panic!("slot a is empty") };
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let cached: &'static Cached = Box::leak(Box::new(Cached { disk: HostDisk::of_file(&path), file, esp_start }));
    std::fs::create_dir_all(directory.join("run")).unwrap();
    let run = |name: &str| directory.join("run").join(name);
    Agent {
        host: Host {
            uki: format!("garboard_{version}.efi"),
            running: Running { slot: SlotName::A, version, root_hash },
            disk: path,
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            image: std::env::var("GARBOARD_AGENT_IMAGE").unwrap().parse().unwrap(),
            architecture: std::env::consts::ARCH.parse().unwrap(),
            floor: StateFloor::default(),
        },
        settings: Settings::parse(format!(r#"{{"garboard": {{"update": {{"server": "{server}"}}}}}}"#).as_bytes()),
        paths: Paths {
            update_root: directory.join("root.json"),
            status: run("status.json"),
            reboot_needed: run("reboot-needed"),
            locksmith: run("no-reboot-daemon"),
            esp_lock: Some(run("esp.lock")),
            control: run("control"),
            metrics: run("metrics"),
        },
        state: State::open(&directory.join("state")).unwrap(),
        target: Box::new(disk),
        esp: Box::new(FatEsp(cached)),
        etcd: Box::new(super::machine::NoEtcd),
        kernels: Box::new(super::machine::NoKernels),
        status: Status::default(),
        retry_after: None,
        clock: system_clock,
    }
}

/// Lines of this process's status, in KiB.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Seconds that this thread ran, and seconds that it waited for a processor, which others had.
fn ran() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let mut seconds = text.split(' ').map(|field| field.parse::<f64>().unwrap_or(0.0) / 1e9);
    (seconds.next().unwrap(), seconds.next().unwrap())
}

/// Installs what the server offers into slot b, and says what that took: `GARBOARD_AGENT_DIRECTORY` has `disk.raw` and `root.json`.
#[test]
#[ignore = "scripts/bench --only update"]
fn the_agent_on_files() {
    let directory = PathBuf::from(std::env::var_os("GARBOARD_AGENT_DIRECTORY").unwrap());
    let server = std::env::var("GARBOARD_AGENT_SERVER").unwrap();
    // As in `main`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    let mut agent = agent(&directory, &server);
    agent.start().unwrap();
    let idle = memory("RssAnon");
    println!("agent: started");
    let (began, (ran_before, waited_before)) = (Instant::now(), ran());
    let version = runtime.block_on(agent.update(&asked())).unwrap().unwrap();
    let (update, (ran, waited)) = (began.elapsed(), ran());
    let (peak, after) = (memory("VmHWM"), memory("RssAnon"));
    daemon_socket::rest();
    let rest = memory("VmRSS");
    let root_hash = match Slots::read(&*agent.target).unwrap().get(SlotName::B) {
        Content::Image { version: of, root_hash } if *of == version => *root_hash,
        other => panic!("slot b holds {other:?}"),
    };
    let began = Instant::now();
    assert!(crate::verity::verifies(&*agent.target, SlotName::B, &root_hash).unwrap());
    let read_back = began.elapsed();
    let (update, read_back, file) = (update.as_secs_f64(), read_back.as_secs_f64(), memory("RssFile"));
    let (ran, waited) = (ran - ran_before, waited - waited_before);
    println!(
        "agent: update={update:.3} ran={ran:.3} waited={waited:.3} read_back={read_back:.3} peak_kib={peak} idle_kib={idle} after_kib={after} file_kib={file} rest_kib={rest}"
    );
}
