//! `init network-wait`: returns when the host is online, or fails when that takes too long.

use super::published::NetworkStatus;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, Instant};

/// Waits until `network.json` in `directory` says `online`; false when `longest` has passed first.
pub fn until_online(directory: &Path, longest: Duration) -> io::Result<bool> {
    let end = Instant::now() + longest;
    std::fs::create_dir_all(directory)?;
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&inotify, directory, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE)?;
    loop {
        if is_online(&directory.join("network.json")) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = rustix::event::Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&inotify, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        while rustix::io::read(&inotify, &mut buffer).is_ok() {}
    }
}

fn is_online(path: &Path) -> bool {
    std::fs::read(path).ok().and_then(|json| serde_json::from_slice::<NetworkStatus>(&json).ok()).is_some_and(|status| status.online)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::published::write_whole;

    /// Text of every unit file that our own packages bring.
    fn own_units() -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut units = Vec::new();
        let parts = std::fs::read_dir(root).unwrap().map(|part| part.unwrap().path().join("units"));
        for directory in parts.filter(|directory| directory.is_dir()) {
            for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let name = entry.file_name().into_string().unwrap();
                if entry.file_type().unwrap().is_file() {
                    units.push((name, std::fs::read_to_string(entry.path()).unwrap()));
                }
            }
        }
        assert!(units.len() > 12, "{units:?}");
        units
    }

    #[test]
    fn of_our_units_only_the_scripts_of_a_cloud_config_wait_for_the_network() {
        let waits: Vec<String> = own_units()
            .into_iter()
            .filter(|(_, text)| {
                let mut lines = text.lines().filter(|line| ["After=", "Requires=", "BindsTo="].iter().any(|key| line.starts_with(key)));
                lines.any(|line| line.contains("network-online.target") || line.contains("garboard-network-wait"))
            })
            .map(|(name, _)| name)
            .collect();
        assert_eq!(waits, ["cloud-config-final.service"]);
    }

    #[test]
    fn it_returns_as_soon_as_the_host_is_online_and_gives_up_in_time() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!until_online(directory.path(), Duration::from_millis(20)).unwrap());
        let path = directory.path().join("network.json");
        let writer = std::thread::spawn(move || {
            for online in [false, true] {
                std::thread::sleep(Duration::from_millis(30));
                write_whole(&path, &serde_json::to_string(&NetworkStatus { online, ..NetworkStatus::default() }).unwrap()).unwrap();
            }
        });
        let begun = Instant::now();
        assert!(until_online(directory.path(), Duration::from_secs(20)).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(5));
        writer.join().unwrap();
    }
}
