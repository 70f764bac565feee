//! How long 1,000 units take to be loaded and ordered: `cargo test --workspace --bins -- --ignored --nocapture thousand_units`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers are not test functions to clippy")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::manager::Manager;
use super::paths::Paths;
use super::protocol::{JobMode, Verb};
use super::transaction::plan;
use crate::boot::BootContext;

const UNITS: usize = 1000;

/// Services as people write them, in layers: each after and wanting some of those before it.
fn write_units(directory: &std::path::Path) {
    let mut default = String::from("[Unit]\n");
    for number in 0..UNITS {
        let mut text = format!("[Unit]\nDescription=Service number {number}\nDocumentation=https://example.org/{number}\n");
        for step in [1, 7, 50] {
            if let Some(earlier) = number.checked_sub(step) {
                writeln!(text, "After=unit{earlier}.service\nWants=unit{earlier}.service").unwrap();
            }
        }
        if number % 10 == 3 {
            writeln!(text, "Requires=unit{}.service\nConditionPathExists=!/nowhere", number - 1).unwrap();
        }
        write!(
            text,
            "[Service]\nType=notify\nEnvironmentFile=-/etc/default/unit{number}\nEnvironment=A=%n B=\"two words\"\nExecStartPre=-/usr/bin/docker rm -f %N\n\
             ExecStart=/usr/bin/docker run --name %N -p 80:80 \\\n  --restart no example.org/image:latest\nExecStop=/usr/bin/docker stop %N\nRestart=always\n\
             RestartSec=5\nLimitNOFILE=65536\nTasksMax=infinity\nKillMode=process\n[Install]\nWantedBy=multi-user.target\n"
        )
        .unwrap();
        std::fs::write(directory.join(format!("unit{number}.service")), text).unwrap();
        writeln!(default, "Wants=unit{number}.service").unwrap();
    }
    std::fs::write(directory.join("default.target"), default).unwrap();
}

#[test]
#[ignore = "a measurement"]
fn a_thousand_units_are_loaded_and_ordered_in_100_ms() {
    let directory = tempfile::tempdir().unwrap();
    let units = directory.path().join("units");
    std::fs::create_dir(&units).unwrap();
    write_units(&units);
    let paths = Paths {
        units: vec![units.to_str().unwrap().to_owned()],
        runtime: directory.path().join("run"),
        cgroups: directory.path().join("cgroups"),
        machine: false,
        ..Paths::default()
    };
    let context = BootContext {
        record: crate::boot::BootRecord::default(),
        cmdline: crate::cmdline::CommandLine::parse(""),
        boot_id: String::new(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        consoles: Vec::new(),
        power_button: None,
    };
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        let mut manager = Manager::new(context.clone(), paths.clone()).unwrap();
        let unit = manager.load("default.target").unwrap();
        let loaded = begin.elapsed();
        let plan = plan(&manager, Verb::Start, &[unit], JobMode::Replace).unwrap();
        let planned = begin.elapsed();
        assert!(plan.jobs.len() >= UNITS && plan.dropped.is_empty(), "{} jobs, {:?}", plan.jobs.len(), plan.dropped);
        println!("{UNITS} units loaded in {loaded:?}, ordered after {planned:?}");
        times.push(planned);
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("bench: 1,000 units loaded and ordered | {:.0} ms | 100 ms", median.as_secs_f64() * 1000.0);
    assert!(median < Duration::from_millis(100), "{times:?}");
}
