//! The environment of a unit's process.

use unit_files::environment::{parse_environment_file, split_assignment};

use super::spec::{Failure, Spec, exit};
use super::{Variables, identity};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Puts it together: what every process gets, what PID 1 knows, `Environment=`, then `EnvironmentFile=`; later wins.
pub fn collect(spec: &Spec, user: Option<&identity::User>, directories: &[(&'static str, String)]) -> Result<Variables, Failure> {
    let context = &spec.context;
    let mut variables = Variables::new();
    let mut set = |name: &str, value: &str| {
        variables.insert(name.to_owned(), value.to_owned());
    };
    let path = if context.exec_search_path.is_empty() { PATH.to_owned() } else { context.exec_search_path.join(":") };
    set("PATH", &path);
    set("LANG", "C.UTF-8");
    set("INVOCATION_ID", &spec.invocation);
    let login = context.set_login_environment.unwrap_or(user.is_some());
    if login {
        let root = identity::User { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: "/bin/sh".into() };
        let user = user.unwrap_or(&root);
        set("USER", &user.name);
        set("LOGNAME", &user.name);
        set("HOME", &user.home);
        set("SHELL", &user.shell);
    }
    for (name, value) in directories {
        set(name, value);
    }
    for (name, value) in spec.environment.iter().chain(&context.environment) {
        set(name, value);
    }
    for file in &context.environment_files {
        for (name, value) in read_files(&file.path, file.optional)? {
            set(&name, &value);
        }
    }
    for unset in &context.unset_environment {
        match split_assignment(unset) {
            Some((name, value)) if variables.get(name).is_some_and(|have| have == value) => {
                variables.remove(name);
            }
            Some(_) => {}
            None => {
                variables.remove(unset);
            }
        }
    }
    Ok(variables)
}

fn read_files(path: &str, optional: bool) -> Result<Vec<(String, String)>, Failure> {
    let paths = if path.contains(['*', '?', '[']) { glob(path) } else { vec![path.to_owned()] };
    if paths.is_empty() && !optional {
        return Err(Failure { code: exit::EXEC, message: format!("EnvironmentFile={path}: nothing matches") });
    }
    let mut out = Vec::new();
    for path in paths {
        match std::fs::read(&path) {
            Ok(bytes) => out.extend(parse_environment_file(&bytes).assignments),
            Err(_) if optional => {}
            Err(why) => return Err(Failure { code: exit::EXEC, message: format!("EnvironmentFile={path}: {why}") }),
        }
    }
    Ok(out)
}

/// Files of one directory that match a pattern in the last component, sorted.
fn glob(pattern: &str) -> Vec<String> {
    let (directory, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
    let mut found: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|file| crate::engine::pattern::matches(name, file))
        .map(|file| format!("{directory}/{file}"))
        .collect();
    found.sort();
    found
}
