//! How processes are killed.

use crate::service::{KillConfig, KillMode};

use super::setters::{boolean, choice, signal};
use super::{Effect, Table, yes};

pub(super) static KILL: Table<KillConfig> = Table::new(&[
    yes("KillMode", |c, i| {
        choice(
            &mut c.mode,
            i,
            &[
                ("control-group", KillMode::ControlGroup),
                ("mixed", KillMode::Mixed),
                ("process", KillMode::Process),
                ("none", KillMode::None),
            ],
            "a kill mode (control-group, mixed, process, none)",
        )
    }),
    yes("KillSignal", |c, i| signal(&mut c.signal, i)),
    yes("RestartKillSignal", |c, i| {
        c.restart_signal = Some(crate::value::parse_signal(i.value)?);
        Ok(Effect::Active)
    }),
    yes("FinalKillSignal", |c, i| signal(&mut c.final_signal, i)),
    yes("WatchdogSignal", |c, i| signal(&mut c.watchdog_signal, i)),
    yes("SendSIGHUP", |c, i| boolean(&mut c.send_sighup, i)),
    yes("SendSIGKILL", |c, i| boolean(&mut c.send_sigkill, i)),
]);
