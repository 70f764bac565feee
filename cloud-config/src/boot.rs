//! One application of a cloud-config, from finding the source to the record; and the final stage's scripts.
//!
//! Whatever goes wrong ends in the record, never in a failure to return.

use crate::apply::files::{Meta, write_atomic};
use crate::apply::{Done, FINAL_QUEUE, FinalQueue, Outcome, Queued, STATE_DIR, System, apply};
use crate::diagnostics::{Diagnostics, Place};
use crate::pipeline::{lacks_addresses, understand};
use crate::plan::{Facts, Metadata};
use crate::source::{self, Delivered, Detected, Source};
use crate::status::{RUN_RECORD, Record, STATE_RECORD};
use crate::substitute::Addresses;
use crate::userdata::Frequency;
use plain_output::say;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a cloud-config that uses `$private_ipv4` may wait for the network daemon to know it. Nothing else ever waits.
const ADDRESS_WAIT: Duration = Duration::from_secs(20);
/// Where the network daemon writes this host's addresses.
const ENVIRONMENT: &str = "run/garboard/environment";
/// The source's network configuration, for the network daemon.
const NETWORK_CONFIG: &str = "run/garboard/cloud-config/network-config";

/// Finds a source and applies it. A `file` is used instead of any source.
pub fn apply_source(file: Option<PathBuf>, system: &mut dyn System) -> Record {
    let begin = Instant::now();
    let root = system.root().to_owned();
    let mut record = Record { applied_at: system.now(), ..Record::default() };
    let mut diagnostics = Diagnostics::default();
    if let Some(mut delivered) = find(file, &root, &mut record, &mut diagnostics) {
        delivered.metadata.addresses = addresses(&root, &delivered);
        record.instance_id = delivered.metadata.instance_id.clone().unwrap_or_else(|| machine_instance(&root));
        record.place.clone_from(&delivered.place);
        let facts = Facts { hostname: current_hostname(&root) };
        if !delivered.network_config.is_empty() {
            let kept = write_atomic(&root.join(NETWORK_CONFIG), &delivered.network_config, Meta { mode: 0o600, uid: 0, gid: 0 });
            match kept {
                Ok(_) => diagnostics.info(Place::default(), "the source's network configuration is kept, but not used by this release"),
                Err(error) => diagnostics.error(Place::default(), error.to_string()),
            }
        }
        let understood = understand(&delivered.user_data, &delivered.vendor_data, &delivered.metadata, &facts, diagnostics);
        record.diagnostics = understood.diagnostics;
        record.steps = apply(&understood.plan, &record.instance_id, system);
    } else {
        record.diagnostics = diagnostics.sorted();
    }
    record.milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    save(&root, &record);
    record
}

/// The first source that is there, read; the others are named in the record.
fn find(file: Option<PathBuf>, root: &Path, record: &mut Record, diagnostics: &mut Diagnostics) -> Option<Delivered> {
    let detected = if file.is_some() { Detected { root: root.to_owned(), disks: Vec::new() } } else { Detected::gather(root) };
    let sources: Vec<Box<dyn Source>> = match file {
        Some(path) => vec![Box::new(source::File(Some(path)))],
        None => source::all(),
    };
    let mut present = sources.iter().filter(|s| s.is_present(&detected));
    let chosen = present.next()?;
    record.source = Some(chosen.name().to_owned());
    record.ignored = present.map(|s| s.name().to_owned()).collect();
    match chosen.fetch(&detected, diagnostics) {
        Ok(delivered) => Some(delivered),
        Err(error) => {
            record.failure = Some(error.to_string());
            None
        }
    }
}

/// The host's addresses: the metadata's, else the network daemon's, waited for only if the user-data uses one.
fn addresses(root: &Path, delivered: &Delivered) -> Addresses {
    let begin = Instant::now();
    loop {
        let known = known_addresses(root, delivered);
        let enough = !lacks_addresses(&delivered.user_data, &delivered.vendor_data, &known);
        if enough || begin.elapsed() > ADDRESS_WAIT {
            return known;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The host's addresses as far as they are known now.
pub fn known_addresses(root: &Path, delivered: &Delivered) -> Addresses {
    let text = std::fs::read_to_string(root.join(ENVIRONMENT)).unwrap_or_default();
    delivered.metadata.addresses.clone().or(Addresses::from_environment(&text))
}

/// Without an instance id, the machine is its own instance.
fn machine_instance(root: &Path) -> String {
    match std::fs::read_to_string(root.join("etc/machine-id")) {
        Ok(id) if !id.trim().is_empty() => format!("machine-{}", id.trim()),
        _ => "machine".to_owned(),
    }
}

/// The host name as it is now.
pub fn current_hostname(root: &Path) -> String {
    let read = |p: &str| std::fs::read_to_string(root.join(p)).ok().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty());
    read("proc/sys/kernel/hostname").or_else(|| read("etc/hostname")).unwrap_or_default()
}

/// Nobody but root reads the records: they name users and paths. Without a source only this boot's is written.
fn save(root: &Path, record: &Record) {
    let Ok(text) = serde_json::to_vec_pretty(record) else { return };
    let mut places = vec![RUN_RECORD];
    places.extend(record.source.as_ref().map(|_| STATE_RECORD));
    for place in places {
        if let Err(error) = write_atomic(&root.join(place.trim_start_matches('/')), &text, Meta { mode: 0o600, uid: 0, gid: 0 }) {
            eprintln!("cloud-config: the record cannot be kept: {error}");
        }
    }
}

/// This boot's record, or else the last one that applied anything.
pub fn load_record(root: &Path) -> Option<Record> {
    [RUN_RECORD, STATE_RECORD].iter().find_map(|place| {
        let bytes = std::fs::read(root.join(place.trim_start_matches('/'))).ok()?;
        serde_json::from_slice(&bytes).ok()
    })
}

/// The final stage: runs what was queued, each as often as it should. Returns what went wrong.
pub fn run_scripts(system: &mut dyn System) -> Vec<Done> {
    let root = system.root().to_owned();
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let Ok(bytes) = std::fs::read(below(FINAL_QUEUE)) else { return Vec::new() };
    let queue: FinalQueue = match serde_json::from_slice(&bytes) {
        Ok(queue) => queue,
        Err(error) => {
            let detail = Some(format!("{FINAL_QUEUE}: {error}"));
            return vec![Done { place: Place::default(), what: "read the queue".to_owned(), outcome: Outcome::Failed, detail }];
        }
    };
    let mut done = Vec::new();
    for script in &queue.scripts {
        done.push(run_script(script, &queue.instance, system));
        // After each one: a script may well reboot the machine.
        if let Some(record) = load_record(&root) {
            save(&root, &Record { scripts: done.clone(), ..record });
        }
    }
    if let Some(message) = &queue.message {
        say!("{}", final_message(message, system.now(), &root));
    }
    done
}

fn run_script(script: &Queued, instance: &str, system: &mut dyn System) -> Done {
    let semaphore = match script.frequency {
        Frequency::Boot => None,
        Frequency::Instance => Some(format!("{STATE_DIR}/instances/{instance}/sem/{}", script.name)),
        Frequency::Once => Some(format!("{STATE_DIR}/sem/{}", script.name)),
    };
    let semaphore = semaphore.map(|s| system.root().join(s.trim_start_matches('/')));
    let done = |outcome, detail| Done { place: Place::default(), what: format!("run {}", script.name), outcome, detail };
    if let Some(path) = semaphore.as_deref().filter(|p| p.exists()) {
        let before = std::fs::read_to_string(path).unwrap_or_default();
        return done(Outcome::Unchanged, Some(format!("ran before for this instance: {}", before.trim())));
    }
    let program = system.root().join(script.path.strip_prefix("/").unwrap_or(&script.path));
    say!("running {}", script.name);
    let result = system.run(&program, &[("INSTANCE_ID", instance)]);
    // Only what ended is remembered, well or not: a script that a power cut ended is run again.
    if let Some(path) = &semaphore {
        let text = match &result {
            Ok(()) => "done\n".to_owned(),
            Err(why) => format!("{why}\n"),
        };
        if let Err(error) = write_atomic(path, text.as_bytes(), Meta { mode: 0o600, uid: 0, gid: 0 }) {
            return done(Outcome::Failed, Some(format!("it ran, but will run again at the next boot: {error}")));
        }
    }
    match result {
        Ok(()) => done(Outcome::Changed, None),
        Err(why) => done(Outcome::Failed, Some(why)),
    }
}

/// cloud-init's variables of this message.
fn final_message(message: &str, now: u64, root: &Path) -> String {
    let uptime = std::fs::read_to_string(root.join("proc/uptime")).unwrap_or_default();
    let uptime = uptime.split_whitespace().next().unwrap_or("?").to_owned();
    let source = load_record(root).and_then(|r| r.source).unwrap_or_else(|| "none".to_owned());
    let mut text = message.to_owned();
    for (name, value) in [
        ("uptime", &uptime),
        ("timestamp", &crate::status::utc(now)),
        ("version", &env!("CARGO_PKG_VERSION").to_owned()),
        ("datasource", &source),
    ] {
        for name in [name.to_owned(), name.to_ascii_uppercase()] {
            text = text.replace(&format!("${name}"), value).replace(&format!("${{{name}}}"), value);
        }
    }
    text
}

/// The metadata of a check away from the host.
pub fn example_metadata() -> Metadata {
    Metadata { addresses: Addresses::examples(), ..Metadata::default() }
}
