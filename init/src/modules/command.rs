//! `modprobe`, as the kernel, iptables and people call it.

use std::process::ExitCode;

use plain_output::say;

use super::Loader;
use super::index::normal;
use super::loader::{LoadError, Step};

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    quiet: bool,
    remove: bool,
    all: bool,
    use_blacklist: bool,
    dry_run: bool,
    show_depends: bool,
    verbose: bool,
    names: Vec<String>,
}

/// The front-end.
pub fn main(args: &[String]) -> ExitCode {
    let options = match parse(args) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("modprobe: {message}");
            return ExitCode::from(2);
        }
    };
    let loader = Loader::of_kernel();
    let mut failed = false;
    for (name, parameters) in targets(&options) {
        let result = if options.remove { remove(&loader, name) } else { load(&loader, &options, name, &parameters) };
        if let Err(message) = result {
            failed = true;
            if !options.quiet {
                eprintln!("modprobe: {message}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// With `-a` or `-r` every word is a module; else the first is one and the others are its parameters.
fn targets(options: &Options) -> Vec<(&str, String)> {
    if options.all || options.remove {
        return options.names.iter().map(|name| (name.as_str(), String::new())).collect();
    }
    match options.names.split_first() {
        Some((name, parameters)) => vec![(name, parameters.join(" "))],
        None => Vec::new(),
    }
}

fn load(loader: &Loader, options: &Options, name: &str, parameters: &str) -> Result<(), String> {
    if options.dry_run || options.show_depends || options.verbose {
        for module in loader.resolve(name, options.use_blacklist).map_err(|error| error.to_string())? {
            for step in loader.plan(&module) {
                match step {
                    Step::Insert { name, .. } => {
                        if let Some(known) = loader.index.module(&name) {
                            say!("insmod {} {}", loader.index.file(known).display(), if name == module { parameters } else { "" });
                        }
                    }
                    Step::Run { command, .. } => say!("install {command}"),
                }
            }
        }
    }
    if options.dry_run || options.show_depends {
        return Ok(());
    }
    match loader.load(name, options.use_blacklist, parameters) {
        // The kernel asks for many things that do not exist and takes "no" for an answer.
        Err(LoadError::Unknown(_)) if options.quiet => Err(String::new()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// Unloads a module, and then what only it had needed.
fn remove(loader: &Loader, name: &str) -> Result<(), String> {
    let modules = loader.resolve(name, false).map_err(|error| error.to_string())?;
    for module in modules {
        unload(&module).map_err(|error| format!("cannot unload the module {module}: {error}"))?;
        for need in loader.index.module(&module).map(|known| known.needs.clone()).unwrap_or_default().iter().rev() {
            // Another user, or never loaded: both mean that it stays as it is.
            let _ = unload(need);
        }
    }
    Ok(())
}

fn unload(module: &str) -> std::io::Result<()> {
    let name = std::ffi::CString::new(normal(module))?;
    Ok(rustix::system::delete_module(&name, libc::O_NONBLOCK)?)
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--" => {
                options.names.extend(words.by_ref().cloned());
            }
            "--quiet" => options.quiet = true,
            "--remove" => options.remove = true,
            "--all" => options.all = true,
            "--use-blacklist" => options.use_blacklist = true,
            "--dry-run" | "--show" => options.dry_run = true,
            "--show-depends" => options.show_depends = true,
            "--verbose" => options.verbose = true,
            "--first-time" | "--ignore-install" | "--syslog" => {}
            "-S" | "-d" | "-C" => {
                return Err(format!("{word} is not supported: modules of the running kernel only"));
            }
            long if long.starts_with("--") => return Err(format!("unknown option {long}")),
            short if short.len() > 1 && short.starts_with('-') => {
                for letter in short.chars().skip(1) {
                    match letter {
                        'q' => options.quiet = true,
                        'r' => options.remove = true,
                        'a' => options.all = true,
                        'b' => options.use_blacklist = true,
                        'n' => options.dry_run = true,
                        'D' => options.show_depends = true,
                        'v' => options.verbose = true,
                        'i' | 's' => {}
                        other => return Err(format!("unknown option -{other}")),
                    }
                }
            }
            name => options.names.push(name.to_owned()),
        }
    }
    if options.names.is_empty() { Err("name a module or an alias".to_owned()) } else { Ok(options) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn as_the_kernel_calls_it() {
        let options = parsed("-q -- net-pf-10").unwrap();
        assert!(options.quiet && !options.all);
        assert_eq!(targets(&options), [("net-pf-10", String::new())]);
    }

    #[test]
    fn many_modules_or_one_with_parameters() {
        assert_eq!(targets(&parsed("-abq overlay br_netfilter").unwrap()).len(), 2);
        assert_eq!(targets(&parsed("loop max_loop=8 x=1").unwrap()), [("loop", "max_loop=8 x=1".to_owned())]);
        assert!(parsed("-q").is_err() && parsed("-Z x").is_err() && parsed("--what x").is_err());
    }
}
