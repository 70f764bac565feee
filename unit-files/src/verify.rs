//! Everything there is to say about a unit before it runs: `systemctl verify`, and the build's checks.

use crate::calendar::CalendarZone;
use crate::diagnostic::{Diagnostic, Severity};
use crate::exec::ExecCommand;
use crate::loader::Loader;
use crate::name::{UnitKind, UnitName};
use crate::source::UnitSource;
use crate::timer::TimerTrigger;
use crate::unit::{Config, DependencyKind, LoadState, Unit};

/// Findings for a unit and for what it needs. `exists` answers whether a program is there (given a path, or a bare name
/// to look up), so that nothing here touches a file system.
pub fn verify<S: UnitSource>(loader: &Loader<S>, name: &UnitName, exists: impl Fn(&str) -> bool) -> Vec<Diagnostic> {
    let unit = loader.load(name);
    let mut found = unit.diagnostics.clone();
    let mut say = |severity, key: &str, message: String| {
        found.push(Diagnostic { severity, location: None, key: key.to_owned(), message });
    };
    match unit.load_state {
        LoadState::NotFound | LoadState::Masked | LoadState::Error => {
            say(Severity::Error, "", unit.load_error.clone().unwrap_or_default());
            return found;
        }
        LoadState::Loaded | LoadState::BadSetting => {}
    }
    for (key, command) in commands(&unit) {
        if !command.ignore_failure && !command.path.is_empty() && !exists(&command.path) {
            say(Severity::Error, key, format!("{}: {key}={}: there is no such program", unit.name, command.path));
        }
    }
    if let Config::Timer(timer) = &unit.config {
        for trigger in &timer.triggers {
            if let TimerTrigger::Calendar(spec) = trigger
                && let CalendarZone::Named(zone) = &spec.zone
                && !exists(&format!("/usr/share/zoneinfo/{zone}"))
            {
                say(Severity::Warning, "OnCalendar", format!("{}: OnCalendar={}: there is no time zone {zone}", unit.name, spec.text));
            }
        }
    }
    for kind in [DependencyKind::Requires, DependencyKind::BindsTo, DependencyKind::Requisite, DependencyKind::Triggers] {
        for needed in unit.dependencies.get(kind) {
            match loader.load(needed).load_state {
                LoadState::NotFound => {
                    say(Severity::Error, kind.as_str(), format!("{}: {}={needed}: there is no such unit", unit.name, kind.as_str()));
                }
                LoadState::Masked => {
                    say(Severity::Error, kind.as_str(), format!("{}: {}={needed}: that unit is masked", unit.name, kind.as_str()));
                }
                LoadState::BadSetting | LoadState::Error => {
                    say(Severity::Error, kind.as_str(), format!("{}: {}={needed}: that unit cannot be used", unit.name, kind.as_str()));
                }
                LoadState::Loaded => {}
            }
        }
    }
    for needed in unit.dependencies.get(DependencyKind::Requires) {
        let ordered = unit.dependencies.has(DependencyKind::After, needed.as_str())
            || unit.dependencies.has(DependencyKind::Before, needed.as_str())
            || loader.load(needed).dependencies.has(DependencyKind::Before, unit.name.as_str());
        if !ordered && unit.kind == UnitKind::Service {
            let text = format!("{}: Requires={needed} without After={needed} starts both at once and waits for neither", unit.name);
            say(Severity::Warning, "Requires", text);
        }
    }
    found
}

/// All commands of a unit with their directives.
fn commands(unit: &Unit) -> Vec<(&'static str, &ExecCommand)> {
    let lists: Vec<(&'static str, &Vec<ExecCommand>)> = match &unit.config {
        Config::Service(service) => vec![
            ("ExecCondition", &service.exec_condition),
            ("ExecStartPre", &service.exec_start_pre),
            ("ExecStart", &service.exec_start),
            ("ExecStartPost", &service.exec_start_post),
            ("ExecReload", &service.exec_reload),
            ("ExecStop", &service.exec_stop),
            ("ExecStopPost", &service.exec_stop_post),
        ],
        Config::Socket(socket) => vec![
            ("ExecStartPre", &socket.exec_start_pre),
            ("ExecStartPost", &socket.exec_start_post),
            ("ExecStopPre", &socket.exec_stop_pre),
            ("ExecStopPost", &socket.exec_stop_post),
        ],
        _ => Vec::new(),
    };
    lists.into_iter().flat_map(|(key, commands)| commands.iter().map(move |command| (key, command))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemorySource;
    use crate::specifier::HostFacts;

    #[test]
    fn a_time_zone_that_is_not_there_is_named() {
        let lib = "/usr/lib/systemd/system";
        let source = MemorySource::default()
            .file(&format!("{lib}/a.service"), "[Service]\nExecStart=/bin/a\n")
            .file(&format!("{lib}/sysinit.target"), "[Unit]\n")
            .file(&format!("{lib}/a.timer"), "[Timer]\nOnCalendar=daily Europe/Berlin\nOnCalendar=daily Nowhere/City\n");
        let loader = Loader::new(source, HostFacts::default());
        let found = verify(&loader, &UnitName::parse("a.timer").unwrap(), |path| path == "/usr/share/zoneinfo/Europe/Berlin");
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["a.timer: OnCalendar=daily Nowhere/City: there is no time zone Nowhere/City"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let lib = "/usr/lib/systemd/system";
        let source = MemorySource::default()
            .file(&format!("{lib}/sysinit.target"), "[Unit]\n")
            .file(&format!("{lib}/b.service"), "[Service]\nExecStart=/bin/true\n")
            .file(
                &format!("{lib}/a.service"),
                "[Unit]\nRequires=b.service gone.service\nAfter=gone.service\n[Service]\nExecStart=/bin/a\nExecStop=-/bin/b\nFoo=1\n",
            );
        let loader = Loader::new(source, HostFacts::default());
        let found = verify(&loader, &UnitName::parse("a.service").unwrap(), |program| program == "/bin/true");
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 4, "{text:?}");
        assert!(text[0].contains("Foo="), "{text:?}");
        assert!(text[1].contains("/bin/a"), "{text:?}");
        assert!(text[2].contains("gone.service"), "{text:?}");
        assert!(text[3].contains("b.service without After"), "{text:?}");
    }
}
