//! The work before a reboot: the operator's hooks, one after the other, then containers, all within one bound; and undoing it.
//!
//! A hook is an executable in `/etc/garboard/pre-reboot.d`, run with the word `pre-reboot`, in order of names. When the reboot is called off,
//! those that ran are run again with the word `cancelled`, in reverse. Containers are stopped as `docker stop` does it, each with its own
//! signal and time; called off, they are started again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::policy::Wanted;

/// What hooks are told, as `GARBOARD_VERSION` and `GARBOARD_REASON`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occasion {
    /// The version that the next boot starts.
    pub version: String,
    /// Why.
    pub reason: String,
}

impl Occasion {
    /// That of a reboot that is wanted.
    #[must_use]
    pub fn of(wanted: &Wanted) -> Self {
        Self { version: wanted.version.clone().unwrap_or_default(), reason: wanted.reason.clone() }
    }
}

/// The hooks, in order.
#[must_use]
pub fn hooks(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_hook = |path: &PathBuf| {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.') || name.to_string_lossy().ends_with('~'));
        !hidden && std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    let mut found: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_hook).collect();
    found.sort();
    found
}

/// Runs a hook with a bound; its whole process group ends with it.
///
/// # Errors
/// One line: how it failed.
pub async fn run_hook(hook: &Path, word: &str, occasion: &Occasion, limit: Duration) -> Result<(), String> {
    let name = hook.display();
    let mut child = Command::new(hook)
        .arg(word)
        .env("GARBOARD_VERSION", &occasion.version)
        .env("GARBOARD_REASON", &occasion.reason)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{name} cannot be run: {error}"))?;
    let group = Group(child.id());
    match timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{name} ended with {status}")),
        Ok(Err(error)) => Err(format!("{name}: {error}")),
        Err(_) => {
            drop(group);
            Err(format!("{name} took more than {}", reboot_rules::show_span(limit.as_secs())))
        }
    }
}

/// A process group that ends with this: also when what waits for it is called off.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).unwrap_or(0)));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Runs docker and gives its output.
async fn docker(program: &Path, args: &[&str], limit: Duration) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let what = format!("docker {}", args.first().unwrap_or(&""));
    let output = timeout(limit, command.output())
        .await
        .map_err(|_| format!("{what} took more than {}", reboot_rules::show_span(limit.as_secs())))?
        .map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    Err(format!("{what} ended with {}: {why}", output.status))
}

/// Containers that run, and of these the ones that Docker would not start again after a reboot since they were stopped by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// All.
    pub all: Vec<String>,
    /// With the restart policy `unless-stopped`.
    pub unless_stopped: Vec<String>,
}

/// Which containers run; none where Docker is not there or does not run.
pub async fn running(program: &Path) -> Running {
    let limit = Duration::from_secs(30);
    if !program.exists() {
        return Running::default();
    }
    let Ok(ids) = docker(program, &["ps", "-q", "--no-trunc"], limit).await else { return Running::default() };
    let all: Vec<String> = ids.split_whitespace().map(str::to_owned).collect();
    if all.is_empty() {
        return Running::default();
    }
    let mut args = vec!["inspect", "-f", "{{.Id}} {{.HostConfig.RestartPolicy.Name}}"];
    args.extend(all.iter().map(String::as_str));
    let policies = docker(program, &args, limit).await.unwrap_or_default();
    let unless_stopped = policies.lines().filter_map(|line| line.strip_suffix(" unless-stopped")).map(str::to_owned).collect();
    Running { all, unless_stopped }
}

/// Stops containers, each with its own time, all within the bound.
///
/// # Errors
/// One line.
pub async fn stop(program: &Path, ids: &[String], deadline: Instant) -> Result<(), String> {
    let mut args = vec!["stop"];
    args.extend(ids.iter().map(String::as_str));
    docker(program, &args, deadline.saturating_duration_since(Instant::now())).await.map(drop)
}

/// Starts containers again.
///
/// # Errors
/// One line.
pub async fn start(program: &Path, ids: &[String]) -> Result<(), String> {
    let mut args = vec!["start"];
    args.extend(ids.iter().map(String::as_str));
    docker(program, &args, Duration::from_secs(120)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &Path, text: &str) {
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn hooks_run_in_order_within_their_time_and_end_with_their_children() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let hook = |name: &str, text: &str| script(&directory.path().join(name), &text.replace("OUT", &out.display().to_string()));
        hook("20-b", "echo b $1 $GARBOARD_VERSION >> OUT; exit 3");
        hook("10-a", "echo a $1 >> OUT");
        hook("30-c", "sleep 5; echo late >> OUT");
        hook(".x", "echo hidden >> OUT");
        std::fs::write(directory.path().join("README"), "not executable").unwrap();
        let hooks = hooks(directory.path());
        assert_eq!(hooks.len(), 3);
        let occasion = Occasion { version: "1.2".into(), reason: String::new() };
        let limit = Duration::from_millis(800);
        assert_eq!(run_hook(&hooks[0], "pre-reboot", &occasion, Duration::from_secs(20)).await, Ok(()));
        let failed = run_hook(&hooks[1], "pre-reboot", &occasion, Duration::from_secs(20)).await.unwrap_err();
        assert!(failed.ends_with("20-b ended with exit status: 3"), "{failed}");
        let late = run_hook(&hooks[2], "pre-reboot", &occasion, limit).await.unwrap_err();
        assert!(late.contains("30-c took more than"), "{late}");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "a pre-reboot\nb pre-reboot 1.2\n");
    }

    #[tokio::test]
    async fn containers_are_told_apart_by_what_docker_does_with_them_after_a_reboot() {
        let directory = tempfile::tempdir().unwrap();
        let docker = directory.path().join("docker");
        assert_eq!(running(&docker).await, Running::default());
        script(
            &docker,
            &format!(
                "case $1 in ps) echo aa; echo bb;; inspect) echo 'aa always'; echo 'bb unless-stopped';; *) echo \"$@\" >> {};; esac",
                directory.path().join("log").display()
            ),
        );
        let found = running(&docker).await;
        assert_eq!((found.all.len(), found.unless_stopped.as_slice()), (2, ["bb".to_owned()].as_slice()));
        stop(&docker, &found.all, Instant::now() + Duration::from_secs(20)).await.unwrap();
        start(&docker, &found.unless_stopped).await.unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap(), "stop aa bb\nstart bb\n");
        script(&docker, "echo 'Cannot connect' >&2; exit 1");
        assert_eq!(running(&docker).await, Running::default());
        assert!(stop(&docker, &found.all, Instant::now() + Duration::from_secs(20)).await.unwrap_err().contains("Cannot connect"));
    }
}
