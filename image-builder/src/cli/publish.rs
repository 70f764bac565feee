//! `garboard publish`: from release parts to a repository of static files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use disk_layout::{VeritySuperblock, Version};
use jiff::Timestamp;
use publisher::Expiries;
use publisher::keys::Keys;
use publisher::publish::{Context, DEFAULT_LEVEL, Offer, Published, prune, publish, refresh, withdraw};
use publisher::repository::Repository;
use release_format::{Name, Rollout, Wave};
use serde::Serialize;

use super::report::Report;
use crate::image::source::Source;
use crate::image::verity;
use crate::progress::{Event, Progress};

/// Arguments of `garboard publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Where 'garboard build' wrote release parts; all of them are published
    out: Option<PathBuf>,
    /// The repository; made when it is not there
    #[arg(long, value_name = "DIR")]
    repo: PathBuf,
    /// The channel
    #[arg(long, value_name = "NAME", default_value = "stable")]
    channel: Name,
    /// Directory of the keys, as 'garboard keys init' made it
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Offer it to more and more hosts, evenly spread: for example 1%@1h,10%@6h,50%@1d,100%@3d
    #[arg(long, value_name = "CURVE", value_parser = curve)]
    wave: Option<Curve>,
    /// Offer it to no host until it is published again with a --wave
    #[arg(long, conflicts_with = "wave")]
    hold: bool,
    /// Hosts older than this version take this version first
    #[arg(long, value_name = "V")]
    stepping_stone: Option<Version>,
    /// From how many versions before it patches are made; those that run older ones borrow of them what fits
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=64))]
    patches: u8,
    /// zstd level of the packs, 1 to 22
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
    /// Sign anew what expires, with the keys that are here; the timestamp key alone is enough for most of a year
    #[arg(long)]
    refresh: bool,
    /// Retire all but the newest releases of each channel (--keep), and delete what no other needs
    #[arg(long)]
    prune: bool,
    /// How many releases of each channel --prune leaves
    #[arg(long, value_name = "N", default_value_t = 5)]
    keep: usize,
    /// Take a version back: no host takes it any more
    #[arg(long, value_name = "V")]
    withdraw: Option<Version>,
    /// The image, for --withdraw where the channel is there for several
    #[arg(long, value_name = "NAME")]
    image: Option<Name>,
    /// For how many days targets and snapshot metadata are valid, and so bundles
    #[arg(long, value_name = "DAYS", default_value_t = Expiries::default().targets)]
    targets_days: u32,
    /// For how many days the timestamp is valid: it must be refreshed within them
    #[arg(long, value_name = "DAYS", default_value_t = Expiries::default().timestamp)]
    timestamp_days: u32,
    /// The time, for example 2026-01-31T12:00:00Z, instead of this host's
    #[arg(long, value_name = "TIME", hide = true)]
    now: Option<Timestamp>,
}

/// The points of a roll-out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Curve(Vec<Wave>);

#[derive(Serialize)]
struct Done {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    published: Vec<Published>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refreshed: Option<serde_json::Value>,
}

pub(super) fn main(args: &PublishArgs, report: &Report) -> Result<()> {
    if args.out.is_none() && !args.refresh && !args.prune && args.withdraw.is_none() {
        bail!("nothing to do: name a directory with release parts, or --refresh, --prune or --withdraw");
    }
    let keys = Keys::open(&args.keys)?;
    let mut repository = Repository::open(&args.repo, &keys)?;
    let defaults = Expiries::default();
    let expiries = Expiries { targets: args.targets_days, snapshot: args.targets_days, timestamp: args.timestamp_days, ..defaults };
    let now = args.now.unwrap_or_else(Timestamp::now);
    let mut context = Context { repository: &mut repository, keys: &keys, expiries: &expiries, now };
    let mut done = Done { published: Vec::new(), withdrawn: None, pruned: None, refreshed: None };
    let mut lines = Vec::new();
    if let Some(version) = &args.withdraw {
        withdraw(&mut context, &args.channel, args.image.as_ref(), version)?;
        lines.push(format!("version {version} is withdrawn from channel {}", args.channel));
        done.withdrawn = Some(version.to_string());
    }
    if let Some(out) = &args.out {
        let start = u64::try_from(now.as_second()).unwrap_or(0);
        let waves = args.wave.as_ref().map(|curve| curve.0.clone()).or_else(|| args.hold.then(Vec::new));
        let rollout = waves.map(|waves| Rollout { start, waves, paused: args.hold });
        let offer = Offer { rollout, stepping_stone: args.stepping_stone.clone(), patches: usize::from(args.patches) };
        done.published = publish(&mut context, out, &args.channel, &offer, args.level, &root_hash)?;
        lines.extend(done.published.iter().flat_map(|published| describe(published, &args.channel)));
    }
    if args.prune {
        let pruned = prune(&mut context, args.keep)?;
        let retired = if pruned.retired.is_empty() { "nothing".to_owned() } else { pruned.retired.join(", ") };
        lines.push(format!("retired {retired}; deleted {} files, {}", pruned.files, human_bytes(pruned.bytes)));
        done.pruned = Some(serde_json::to_value(&pruned)?);
    }
    if args.refresh {
        let refreshed = refresh(&mut context)?;
        let expires = refreshed.expires.iter().map(|(role, expires)| format!("{role} until {expires}"));
        lines.push(format!("valid: {}", expires.collect::<Vec<_>>().join(", ")));
        refreshed.warnings.iter().for_each(|text| report.event(Event::Warning { text: text.clone() }));
        done.refreshed = Some(serde_json::to_value(&refreshed)?);
    }
    report.result(&lines.join("\n"), &done);
    Ok(())
}

fn describe(published: &Published, channel: &Name) -> Vec<String> {
    let Published { image, version, .. } = published;
    let Some(costs) = &published.costs else {
        return vec![format!("{image} {version}: already published with these bytes; channel {channel} offers it")];
    };
    let mut lines = vec![
        format!(
            "{image} {version} is in channel {channel}; new in the repository: {}{}",
            human_bytes(published.new_pack),
            if published.rebased { ", with all that earlier packs hold of it, so that they can be pruned" } else { "" }
        ),
        format!(
            "  in full        {:>10} in {} requests, for {} of root image and UKI",
            human_bytes(costs.full.bytes + costs.map_and_index),
            costs.full.requests,
            human_bytes(published.image_bytes)
        ),
    ];
    for from in &costs.chunks_from {
        let patch = match (from.patch, from.refused_patch) {
            (Some(bytes), _) => {
                let kernel = from.patch_with_kernel.map(|bytes| format!(" ({} where the kernel can be rebuilt)", human_bytes(bytes)));
                let patch = if from.borrowed { "by patches of other versions" } else { "by patch" };
                format!("{:>10} {patch}{}", human_bytes(bytes), kernel.unwrap_or_default())
            }
            (None, Some(bytes)) => format!("{:>10} by patch (not offered)", human_bytes(bytes)),
            (None, None) => format!("{:>10} no patch", ""),
        };
        let chunks = human_bytes(from.by_chunks(costs.map_and_index));
        let way = from.way(&costs.full);
        lines.push(format!("  from {:<9}{patch}, {chunks} by chunks in {} requests: offers {way}", from.version, from.cost.requests));
    }
    let differences: Vec<u64> = costs.chunks_from.iter().filter_map(|from| from.difference).collect();
    let of = match (differences.iter().min(), differences.iter().max()) {
        (Some(least), Some(most)) => format!("; by chunks, where there is a difference, {} to {}", human_bytes(*least), human_bytes(*most)),
        _ => String::new(),
    };
    lines.push(format!("  of this content map and index: {}{of}; figures by patch have it in them", human_bytes(costs.map_and_index)));
    lines.extend(costs.lost_patches.iter().map(|lost| format!("  nothing is borrowed of the patch {lost}")));
    lines.extend(costs.lost_starts.iter().map(|lost| format!("  no patch is made {lost}")));
    lines
}

/// Bytes as people say them: three digits, in powers of 1024.
pub(super) fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if unit == "B" || value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `1%@1h,100%@2d`
fn curve(text: &str) -> Result<Curve> {
    let wave = |part: &str| {
        let bad = || anyhow!("'{part}' is not a wave such as 10%@6h");
        let (percent, until) = part.trim().split_once("%@").ok_or_else(bad)?;
        let split = until.find(|c: char| !c.is_ascii_digit()).unwrap_or(until.len());
        let (number, unit) = until.split_at_checked(split).ok_or_else(bad)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => bail!("'{until}' is not a time such as 90m: the units are s, m, h and d"),
        };
        let until = number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).ok_or_else(bad)?;
        Ok(Wave { percent: percent.parse().map_err(|_| bad())?, until })
    };
    let waves = text.split(',').map(wave).collect::<Result<Vec<_>>>()?;
    let rises = waves.iter().zip(waves.iter().skip(1)).all(|(before, after)| before.percent < after.percent && before.until <= after.until);
    if !rises || waves.iter().any(|wave| wave.percent == 0 || wave.percent > 100) {
        bail!("percentages must rise from 1 to at most 100, and times must not go back");
    }
    Ok(Curve(waves))
}

/// The verity root hash of what is in a file, to find out whether it is still what was built.
fn root_hash(file: &File, offset: u64, size: u64, superblock: &VeritySuperblock) -> io::Result<[u8; 32]> {
    struct Range<'a>(&'a File, u64, u64);
    impl Source for Range<'_> {
        fn size(&self) -> u64 {
            self.2
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_exact_at(buffer, self.1 + offset)
        }
    }
    Ok(verity::hash_tree(&Range(file, offset, size), superblock, &|_| ())?.root_hash)
}

#[cfg(test)]
mod tests {
    use publisher::cost::{Cost, CostFrom, Costs};

    use super::*;

    #[test]
    fn curves_are_written_as_people_say_them() {
        let points = |text| curve(text).unwrap().0.iter().map(|wave| (wave.percent, wave.until)).collect::<Vec<_>>();
        assert_eq!(points("1%@90m, 10%@6h,100%@2d"), [(1, 5400), (10, 21_600), (100, 172_800)]);
        for bad in ["", "10", "10%", "10%@", "10%@6", "10%@6w", "x%@6h", "10%@6h,10%@7h", "10%@6h,20%@5h", "101%@1h", "0%@1h"] {
            assert!(curve(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_version_that_hosts_come_from_has_a_line_with_its_ways() {
        let none = CostFrom {
            version: String::new(),
            cost: Cost { bytes: 3 << 20, requests: 12 },
            difference: None,
            patch: None,
            patch_with_kernel: None,
            borrowed: false,
            refused_patch: None,
        };
        let from = |version: &str| CostFrom { version: version.to_owned(), ..none.clone() };
        let published = Published {
            image: "tiny".to_owned(),
            version: "1.9".to_owned(),
            already: false,
            new_pack: 5 << 20,
            rebased: true,
            image_bytes: 400 << 20,
            costs: Some(Costs {
                full: Cost { bytes: 200 << 20, requests: 4 },
                chunks_from: vec![
                    CostFrom { patch: Some(400 << 10), patch_with_kernel: Some(100 << 10), ..from("1.8") },
                    CostFrom { patch: Some(500 << 10), borrowed: true, difference: Some(2048), ..from("1.7") },
                    CostFrom { refused_patch: Some(4 << 20), difference: Some(1 << 20), ..from("1.6") },
                    from("1.5"),
                    CostFrom { cost: Cost { bytes: 200 << 20, requests: 4 }, ..from("1.4") },
                ],
                map_and_index: 512 << 10,
                lost_patches: vec!["from 1.6 to 1.7: it is gone".to_owned()],
                lost_starts: vec!["from 1.5: it is damaged".to_owned()],
            }),
        };
        let channel: Name = "stable".parse().unwrap();
        let expected = [
            "tiny 1.9 is in channel stable; new in the repository: 5.0 MiB, with all that earlier packs hold of it, so that they can be pruned",
            "  in full           200 MiB in 4 requests, for 400 MiB of root image and UKI",
            "  from 1.8         400 KiB by patch (100 KiB where the kernel can be rebuilt), 3.5 MiB by chunks in 12 requests: offers patch",
            "  from 1.7         500 KiB by patches of other versions, 3.0 MiB by chunks in 12 requests: offers patch",
            "  from 1.6         4.0 MiB by patch (not offered), 4.0 MiB by chunks in 12 requests: offers chunks",
            "  from 1.5                 no patch, 3.5 MiB by chunks in 12 requests: offers chunks",
            "  from 1.4                 no patch, 200 MiB by chunks in 4 requests: offers full",
            "  of this content map and index: 512 KiB; by chunks, where there is a difference, 2.0 KiB to 1.0 MiB; figures by patch have it in them",
            "  nothing is borrowed of the patch from 1.6 to 1.7: it is gone",
            "  no patch is made from 1.5: it is damaged",
        ];
        assert_eq!(describe(&published, &channel), expected);
        let again = Published { costs: None, already: true, ..published };
        assert_eq!(describe(&again, &channel), ["tiny 1.9: already published with these bytes; channel stable offers it"]);
    }

    #[test]
    fn sizes_have_three_digits() {
        let texts = [0, 999, 1000, 1 << 20, 200 << 20, 5 << 30].map(human_bytes);
        assert_eq!(texts, ["0 B", "999 B", "1.0 KiB", "1.0 MiB", "200 MiB", "5.0 GiB"]);
    }
}
