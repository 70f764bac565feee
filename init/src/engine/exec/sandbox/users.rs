//! `PrivateUsers=`: a user namespace, in which only some of the host's users exist and root is root of nothing outside.
//!
//! Who is mapped to whom must be written by a process outside, so a second one of this program does that.

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use crate::sys::process::unshare;

/// Enters it; `ids` are the unit's user and group.
pub fn enter(kind: &str, (uid, gid): (u32, u32)) -> io::Result<()> {
    let map = |id: u32| match kind {
        "identity" => "0 0 65536\n".to_owned(),
        "full" => "0 0 4294967295\n".to_owned(),
        _ if id == 0 => "0 0 1\n".to_owned(),
        _ => format!("0 0 1\n{id} {id} 1\n"),
    };
    if !matches!(kind, "self" | "identity" | "full") {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("PrivateUsers={kind} is not supported")));
    }
    let mut mapper = Command::new("/proc/self/exe")
        .args(["map-ids", &std::process::id().to_string(), &map(uid), &map(gid)])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let entered = unshare(libc::CLONE_NEWUSER);
    // It waits for this, so that it writes the maps of the new namespace and not of the old.
    if let Some(mut pipe) = mapper.stdin.take().filter(|_| entered.is_ok()) {
        let _ = pipe.write_all(b"1");
    }
    let done = mapper.wait()?;
    entered?;
    if done.success() { Ok(()) } else { Err(io::Error::other("the ids cannot be mapped")) }
}

/// `init map-ids PID UIDS GIDS`: writes the maps of another process as soon as a byte comes on stdin.
pub fn map_ids(args: &[String]) -> ExitCode {
    let [pid, uids, gids] = args else { return ExitCode::from(2) };
    let mut byte = [0];
    let go = io::stdin().read_exact(&mut byte);
    let write = |name: &str, text: &str| std::fs::write(format!("/proc/{pid}/{name}"), text);
    match go.and_then(|()| write("uid_map", uids)).and_then(|()| write("gid_map", gids)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
