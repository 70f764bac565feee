//! Resolves, fetches and unpacks a list of packages from the mirror that this host uses, and prints how long each part took:
//! `cargo run --example packages -- --suite trixie --from forky:systemd-boot-efi --exclude 'perl*' bash docker.io`.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use image_builder::debian::Debian;
use image_builder::debian::cache::Cache;
use image_builder::debian::lock::Lock;
use image_builder::debian::mirror::{Mirror, host_sources};
use image_builder::debian::release::Keyring;
use image_builder::debian::request::PackageRequest;
use image_builder::debian::transport::Transport;
use image_builder::progress::{Event, Progress};

struct Lines(Instant);

impl Progress for Lines {
    fn event(&self, event: Event) {
        if !matches!(event, Event::Advance { .. }) {
            eprintln!("{:8.3} {event:?}", self.0.elapsed().as_secs_f64());
        }
    }
}

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    let mut request = PackageRequest {
        architecture: "amd64".to_owned(),
        suite: "trixie".to_owned(),
        components: vec!["main".to_owned()],
        security: true,
        recommends: false,
        include: Vec::new(),
        exclude: Vec::new(),
        prefer: Default::default(),
        from: Default::default(),
    };
    let mut cache = None;
    let mut lock_path = None;
    let (mut offline, mut resolve_only, mut mirror, mut allow_expired) = (false, false, None, Vec::new());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--suite" => request.suite = value()?,
            "--exclude" => request.exclude.push(value()?),
            "--prefer" => request.prefer.extend(value()?.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()))),
            "--from" => request.from.extend(value()?.split_once(':').map(|(suite, name)| (name.to_owned(), suite.to_owned()))),
            "--recommends" => request.recommends = true,
            "--no-security" => request.security = false,
            "--cache" => cache = Some(PathBuf::from(value()?)),
            "--lock" => lock_path = Some(PathBuf::from(value()?)),
            "--mirror" => mirror = Some(value()?),
            "--allow-expired" => allow_expired.push(value()?),
            "--offline" => offline = true,
            "--resolve-only" => resolve_only = true,
            name => request.include.push(name.to_owned()),
        }
    }
    request.normalize();
    let debian = Debian {
        mirror: Mirror::choose(mirror.as_deref(), env::var("GARBOARD_MIRROR").ok().as_deref(), None, || host_sources(Path::new("/"))).ok(),
        keyring: Keyring::debian()?,
        cache: cache.map_or_else(Cache::open_default, Cache::open)?,
        transport: Transport::new(),
        offline,
        allow_expired,
        now: i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?,
    };
    let progress = Lines(start);
    if resolve_only {
        for package in debian.resolve(&request, &progress)?.packages {
            println!("{} {} {}", package.name, package.version, package.suite);
        }
        return Ok(());
    }
    let earlier = lock_path.as_deref().map(Lock::read).transpose()?.flatten();
    let (lock, assembled) = match earlier.filter(|lock| lock.request == request) {
        Some(lock) => {
            let assembled = debian.unpack(&lock, &progress)?;
            (lock, assembled)
        }
        None => debian.lock(&request, None, &progress)?,
    };
    println!("{:.3} s: {} packages, {} nodes", start.elapsed().as_secs_f64(), lock.packages.len(), assembled.tree.len());
    if let Some(path) = lock_path {
        lock.write(&path)?;
    }
    Ok(())
}
