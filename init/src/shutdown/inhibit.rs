//! Inhibitors, as those mind them who ask this host to go down: who forbids it is named, who asks for a moment gets it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reboot_rules::inhibitors::{DELAY_MAX, Inhibitor, of_shutdown, read};
use unit_files::calendar::Zone;

const HELD: &str = "/run/garboard/inhibitors";
const LASTING: &str = "/media/state/garboard/inhibitors";
/// There while inhibitors of mode `delay` are waited for: what their owners may watch for.
const PENDING: &str = "/run/garboard/shutdown-pending";
const SETTINGS: &str = "/var/lib/cloud-config/settings.json";

/// Where inhibitors are, and how long those of mode `delay` are waited for.
#[derive(Clone, Debug)]
pub struct Inhibitors {
    held: PathBuf,
    lasting: PathBuf,
    pending: PathBuf,
    delay: Duration,
}

impl Inhibitors {
    /// Those of this host.
    pub fn of_host() -> Self {
        let settings = std::fs::read(SETTINGS).ok().and_then(|bytes| reboot_rules::settings::parse(&bytes, &|_| Ok(Zone::utc())).ok());
        let delay = settings.map_or(DELAY_MAX, |settings| settings.inhibit_delay);
        Self { held: HELD.into(), lasting: LASTING.into(), pending: PENDING.into(), delay: Duration::from_secs(delay) }
    }

    fn now(&self) -> (Vec<Inhibitor>, Vec<Inhibitor>) {
        of_shutdown(read(&self.held, &self.lasting, reboot_rules::system_clock()))
    }

    /// How long those of mode `delay` are waited for.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Who forbids it now, one line each.
    pub fn blocking(&self) -> Vec<String> {
        self.now().0.iter().map(Inhibitor::describe).collect()
    }
}

/// Minds the inhibitors of this host before `verb`. Who is not root is refused anyway, without having waited.
pub fn mind(verb: &str) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    respect(verb, Inhibitors::of_host(), &mut |line| eprintln!("{line}"))
}

/// Comes back when nothing forbids to go down and those who asked for a moment have had it; `say` hears for whom it waits.
pub fn respect(verb: &str, inhibitors: Inhibitors, say: &mut dyn FnMut(&str)) -> Result<(), String> {
    let end = Instant::now() + inhibitors.delay;
    let mut told = false;
    loop {
        let (block, delay) = inhibitors.now();
        if !block.is_empty() {
            let who: Vec<String> = block.iter().map(Inhibitor::describe).collect();
            remove(&inhibitors.pending);
            return Err(format!("this host does not {verb} now: {}; `systemctl {verb} -i` goes on all the same", who.join("; ")));
        }
        if delay.is_empty() || Instant::now() >= end {
            for late in delay {
                say(&format!("not waiting any longer: {}", late.describe()));
            }
            // It stays until the host is down when there was something to wait for: whoever looks late still sees it.
            return Ok(());
        }
        if !told {
            told = true;
            let _ = std::fs::write(&inhibitors.pending, format!("{{\"kind\":\"{verb}\",\"at\":{}}}", reboot_rules::system_clock()));
            for inhibitor in &delay {
                say(&format!("waiting up to {} s: {}", inhibitors.delay.as_secs(), inhibitor.describe()));
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use reboot_rules::inhibitors::{Mode, hold};

    fn inhibitor(mode: Mode) -> Inhibitor {
        Inhibitor { what: "shutdown".into(), who: "db".into(), why: "flushing".into(), mode, pid: 5, ..Inhibitor::default() }
    }

    #[test]
    fn who_forbids_is_named_and_who_asks_for_a_moment_gets_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let all = Inhibitors { held: path("held"), lasting: path("lasting"), pending: path("pending"), delay: Duration::from_millis(300) };
        let mut said = Vec::new();
        let mut ask = |all: &Inhibitors| respect("reboot", all.clone(), &mut |line| said.push(line.to_owned()));
        assert_eq!(ask(&all), Ok(()));
        let block = hold(&path("held"), &inhibitor(Mode::Block)).unwrap();
        let refused = ask(&all).unwrap_err();
        assert!(refused.contains("does not reboot now: db forbids it: flushing") && refused.contains("-i"), "{refused}");
        drop(block);
        let delay = hold(&path("held"), &inhibitor(Mode::Delay)).unwrap();
        let begin = Instant::now();
        assert_eq!(ask(&all), Ok(()));
        assert!(begin.elapsed() >= Duration::from_millis(300) && path("pending").exists());
        let begin = Instant::now();
        let patient = Inhibitors { delay: Duration::from_secs(60), ..all };
        let owner = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(delay);
        });
        assert_eq!(ask(&patient), Ok(()));
        owner.join().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert!(said[0].contains("waiting up to 0 s: db asks to wait") && said[1].contains("not waiting any longer"), "{said:?}");
    }
}
