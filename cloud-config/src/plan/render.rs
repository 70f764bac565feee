//! A plan as a person reads it: one line an action, files as a diff against what is there.

use super::{Action, FileAction, Plan};
use crate::diagnostics::Place;
use similar::TextDiff;
use std::fmt::Write as _;

/// Prints a plan. `existing` gives a file's content on the host, if it has one.
pub fn render(plan: &Plan, existing: &dyn Fn(&str) -> Option<Vec<u8>>) -> String {
    let mut out = String::new();
    for step in &plan.steps {
        let at = match step.place {
            Place { line: 0, .. } => String::new(),
            Place { part: 0 | 1, line } => format!("  (line {line})"),
            Place { part, line } => format!("  (part {part}, line {line})"),
        };
        let _ = writeln!(out, "{}{at}", describe(&step.action));
        match &step.action {
            Action::WriteFile(file) => out.push_str(&diff(file, existing)),
            Action::RunNow { content, .. } | Action::Queue { content, .. } => indent(&mut out, &String::from_utf8_lossy(content)),
            Action::AuthorizedKeys { keys, .. } => indent(&mut out, &keys.join("\n")),
            _ => {}
        }
    }
    out
}

/// One line that says what an action does, without anything secret.
pub fn describe(action: &Action) -> String {
    match action {
        Action::RunNow { name, .. } => format!("run {name} now"),
        Action::SetHostname { name } => format!("set hostname {name}"),
        Action::WriteFile(file) => {
            let group = file.group.as_deref().map(|g| format!(":{g}")).unwrap_or_default();
            let verb = if file.append { "append to" } else { "write" };
            format!("{verb} {} {:04o} {}{group}", file.path, file.mode, file.owner)
        }
        Action::Link { path, target } if target == "/dev/null" => format!("mask {path}"),
        Action::Link { path, target } => format!("link {path} -> {target}"),
        Action::Unmask { path } => format!("unmask {path}"),
        Action::Group { name, members } if members.is_empty() => format!("group {name}"),
        Action::Group { name, members } => format!("group {name} with {}", members.join(", ")),
        Action::User { name, user } => {
            let mut text = format!("user {name}");
            if let Some(uid) = user.uid {
                let _ = write!(text, " uid {uid}");
            }
            if let Some(group) = &user.primary_group {
                let _ = write!(text, " group {group}");
            }
            if !user.groups.is_empty() {
                let _ = write!(text, " groups {}", user.groups.join(","));
            }
            if let Some(shell) = &user.shell {
                let _ = write!(text, " shell {shell}");
            }
            if user.password.is_some() {
                text.push_str(" with a password");
            }
            text
        }
        Action::Password { user, .. } => format!("password of {user}"),
        Action::AuthorizedKeys { user, keys } => format!("{} ssh key{} for {user}", keys.len(), if keys.len() == 1 { "" } else { "s" }),
        Action::DaemonReload => "systemctl daemon-reload".to_owned(),
        Action::Enable { unit, runtime } => format!("systemctl enable {}{unit}", if *runtime { "--runtime " } else { "" }),
        Action::Command { unit, verb } => format!("systemctl {verb} {unit}"),
        Action::Queue { name, frequency, .. } => {
            let often = match frequency {
                crate::userdata::Frequency::Boot => "at every boot",
                crate::userdata::Frequency::Instance => "once for this instance",
                crate::userdata::Frequency::Once => "once",
            };
            format!("run {name} at the end, {often}")
        }
    }
}

fn diff(file: &FileAction, existing: &dyn Fn(&str) -> Option<Vec<u8>>) -> String {
    let old = existing(&file.path);
    if file.secret {
        return format!("    ({} bytes, not shown: only its owner may read it)\n", file.content.len());
    }
    let mut new = file.content.clone();
    if file.append {
        new = crate::apply::appended(old.as_deref().unwrap_or_default(), &file.content);
    }
    if old.as_deref() == Some(new.as_slice()) {
        return "    (unchanged)\n".to_owned();
    }
    let (Ok(old), Ok(new)) = (String::from_utf8(old.unwrap_or_default()), String::from_utf8(new)) else {
        return format!("    ({} bytes that are not text)\n", file.content.len());
    };
    let mut out = String::new();
    for group in TextDiff::from_lines(&old, &new).unified_diff().context_radius(2).iter_hunks() {
        indent(&mut out, &group.to_string());
    }
    out
}

fn indent(out: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "    {line}");
    }
}
