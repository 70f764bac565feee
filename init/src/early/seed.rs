//! The random seed on state. It is mixed in but not credited: a copied state partition would make two machines draw the same numbers.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const SEED: &str = "/var/lib/garboard/random-seed";
const LEN: usize = 512;

/// Mixes the seed in and replaces it at once, so that it is used only once.
pub(super) fn feed() -> io::Result<()> {
    match fs::read(SEED) {
        Ok(seed) => fs::write("/dev/urandom", seed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    store()
}

/// Stores a new seed.
pub(super) fn store() -> io::Result<()> {
    let mut seed = [0; LEN];
    // PID 1 does not wait for the pool: early in a first boot the seed may be poor, and is replaced at shutdown.
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK)?;
    let path = Path::new(SEED);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&seed)?;
    fs::rename(temporary, path)
}
