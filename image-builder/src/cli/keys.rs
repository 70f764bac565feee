//! `garboard keys`: the keys that releases are signed with.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use publisher::keys::{Keys, KeysReport, Threshold};
use publisher::{Expiries, Role};

use super::report::Report;

/// Arguments of `garboard keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make keys for all roles, and root.json, which images trust
    Init(ChangeArgs),
    /// Replace keys, or renew root.json: hosts follow by themselves
    Rotate(RotateArgs),
    /// Show roles, keys, and which private keys are here
    Show(DirArgs),
}

#[derive(Debug, Args)]
struct DirArgs {
    /// Directory of the keys
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    #[command(flatten)]
    dir: DirArgs,
    /// How many root keys there are
    #[arg(long, value_name = "N")]
    root_keys: Option<u64>,
    /// How many of them must sign
    #[arg(long, value_name = "N")]
    root_threshold: Option<u64>,
    /// For how many days root.json is valid
    #[arg(long, value_name = "DAYS", default_value_t = Expiries::default().root)]
    root_days: u32,
    /// The time, for example 2026-01-31T12:00:00Z, instead of this host's
    #[arg(long, value_name = "TIME", hide = true)]
    now: Option<Timestamp>,
}

#[derive(Debug, Args)]
struct RotateArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Which roles get new keys: root, targets, snapshot, timestamp; without it only root.json's expiry is renewed
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    role: Vec<Role>,
}

impl ChangeArgs {
    fn threshold(&self) -> Result<Option<Threshold>> {
        let threshold = match (self.root_keys, self.root_threshold) {
            (None, None) => return Ok(None),
            (keys, signatures) => {
                let signatures = signatures.unwrap_or(1);
                Threshold { keys: keys.unwrap_or(signatures), signatures }
            }
        };
        if threshold.signatures == 0 || threshold.signatures > threshold.keys || threshold.keys > 16 {
            bail!(
                "{} signatures of {} root keys cannot be: at least 1, at most as many as keys, at most 16 keys",
                threshold.signatures,
                threshold.keys
            );
        }
        Ok(Some(threshold))
    }

    fn expiries(&self) -> Expiries {
        Expiries { root: self.root_days, ..Expiries::default() }
    }

    fn now(&self) -> Timestamp {
        self.now.unwrap_or_else(Timestamp::now)
    }
}

pub(super) fn main(args: &KeysArgs, report: &Report) -> Result<()> {
    let keys = match &args.command {
        KeysCommand::Init(args) => Keys::init(&args.dir.dir, args.threshold()?.unwrap_or(Threshold::ONE), &args.expiries(), args.now())?,
        KeysCommand::Rotate(args) => {
            let threshold = args.change.threshold()?;
            if threshold.is_some() && args.role != [Role::Root] {
                bail!("--root-keys and --root-threshold need --role root, alone");
            }
            Keys::open(&args.change.dir.dir)?.rotate(&args.role, threshold, &args.change.expiries(), args.change.now())?
        }
        KeysCommand::Show(args) => Keys::open(&args.dir)?,
    };
    let found = keys.report();
    report.result(&describe(&keys, &found), &found);
    Ok(())
}

fn describe(keys: &Keys, report: &KeysReport) -> String {
    let mut lines = vec![format!("root.json version {}, valid until {}", report.version, report.expires)];
    for role in &report.roles {
        for key in &role.keys {
            let place = key.file.as_ref().map_or_else(|| "not here".to_owned(), |file| file.display().to_string());
            let id = key.id.get(..12).unwrap_or(&key.id);
            lines.push(format!("{:<10} {id}  {place}", role.role.to_string()));
        }
        if role.keys.len() > 1 {
            lines.push(format!("{:<10} {} of {} must sign", "", role.threshold, role.keys.len()));
        }
    }
    lines.extend(report.unused.iter().map(|path| format!("not in use: {}", path.display())));
    lines.extend(report.exposed.iter().map(|path| format!("others can read {}: chmod 600 it", path.display())));
    lines.push(format!("images trust {}", keys.directory().join(publisher::keys::ROOT_FILE).display()));
    lines.join("\n")
}
