//! One static binary under three names: `reboot-locksmith daemon`, `locksmithctl`, `systemd-inhibit`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let name = args.first().and_then(|first| first.rsplit('/').next()).unwrap_or_default();
    match (name, args.get(1).map(String::as_str)) {
        ("locksmithctl", _) => reboot_locksmith::cli::locksmithctl(&args),
        ("systemd-inhibit", _) => reboot_locksmith::cli::inhibit::main(&args),
        // As the links of the image do, for those who have none.
        (_, Some("locksmithctl")) => reboot_locksmith::cli::locksmithctl(args.get(1..).unwrap_or_default()),
        (_, Some("systemd-inhibit")) => reboot_locksmith::cli::inhibit::main(args.get(1..).unwrap_or_default()),
        ("locksmithd", _) | (_, Some("daemon")) => reboot_locksmith::cli::daemon(),
        _ => {
            eprintln!("usage: reboot-locksmith daemon\n       locksmithctl --help\n       systemd-inhibit --help");
            ExitCode::from(2)
        }
    }
}
