//! Parsing `Exec...=` lines.

use thiserror::Error;

use crate::exec::{ExecCommand, Privilege};
use crate::specifier::{SpecifierContext, SpecifierError};
use crate::words::{Escapes, WordError, Words};

/// Why a command line is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// It cannot be split into words.
    #[error("the command line cannot be read: {0}")]
    Words(#[from] WordError),
    /// A specifier is wrong.
    #[error("the command line cannot be read: {0}")]
    Specifier(#[from] SpecifierError),
    /// Prefixes that exclude each other.
    #[error("the prefix {0:?} does not go with the others")]
    Prefix(String),
    /// No program.
    #[error("the command line names no program")]
    Empty,
    /// A program that is neither absolute nor a bare name.
    #[error("{0:?} is neither an absolute path nor a plain program name")]
    Program(String),
    /// `@` without the word for `argv[0]`.
    #[error("'@' needs a second word, which becomes argv[0]")]
    NoArgumentZero,
}

/// The commands of one `Exec...=` value (several when `;` separates them), and whether it has escapes that mean nothing.
///
/// # Errors
/// When any of it is of no use.
pub fn parse_commands(value: &str, context: &SpecifierContext<'_>) -> Result<(Vec<ExecCommand>, bool), CommandError> {
    let mut words = Words::new(value, Escapes::C);
    let mut commands = Vec::new();
    while !words.rest().is_empty() {
        if words.skip_token(";") {
            continue;
        }
        commands.push(parse_one(&mut words, context)?);
    }
    Ok((commands, words.oddities.unknown_escape))
}

fn parse_one(words: &mut Words<'_>, context: &SpecifierContext<'_>) -> Result<ExecCommand, CommandError> {
    let first = words.next_word()?.ok_or(CommandError::Empty)?;
    let mut command = ExecCommand::default();
    let mut argument_zero = false;
    let mut program = first.as_str();
    loop {
        let mut chars = program.chars();
        let Some(prefix) = chars.next() else { return Err(CommandError::Empty) };
        let repeated = || Err(CommandError::Prefix(prefix.to_string()));
        match prefix {
            '-' if command.ignore_failure => return repeated(),
            '-' => command.ignore_failure = true,
            '@' if argument_zero => return repeated(),
            '@' => argument_zero = true,
            ':' if command.no_expansion => return repeated(),
            ':' => command.no_expansion = true,
            '|' if command.via_shell => return repeated(),
            '|' => command.via_shell = true,
            '+' if command.privilege == Privilege::Unit => command.privilege = Privilege::Full,
            '!' if command.privilege == Privilege::Unit => command.privilege = Privilege::KeepIdentity,
            '!' if command.privilege == Privilege::KeepIdentity => command.privilege = Privilege::KeepIdentityWithoutAmbient,
            '+' | '!' => return repeated(),
            _ => break,
        }
        program = chars.as_str();
    }
    let path = context.expand(program)?;
    if path.is_empty() {
        return Err(CommandError::Empty);
    }
    let fine = if path.starts_with('/') {
        !path.ends_with('/') && !path.split('/').any(|part| part == "..") && !path.chars().any(char::is_control)
    } else {
        !path.contains('/') && path != "." && path != ".." && !path.chars().any(char::is_control)
    };
    if !fine {
        return Err(CommandError::Program(path));
    }
    if !argument_zero {
        command.argv.push(path.clone());
    }
    command.path = path;
    loop {
        if words.skip_token(";") {
            break;
        }
        if words.skip_token("\\;") {
            command.argv.push(";".to_owned());
            continue;
        }
        match words.next_word()? {
            Some(word) => command.argv.push(context.expand(&word)?),
            None => break,
        }
    }
    match command.argv.first() {
        None => Err(CommandError::NoArgumentZero),
        Some(_) => Ok(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::UnitName;
    use crate::specifier::HostFacts;

    fn parse(value: &str) -> Result<Vec<ExecCommand>, CommandError> {
        let (name, facts) = (UnitName::parse("x@y.service").unwrap(), HostFacts::default());
        parse_commands(value, &SpecifierContext { name: &name, fragment: None, facts: &facts }).map(|(commands, _)| commands)
    }

    #[test]
    fn prefixes_combine() {
        let commands = parse("-@:+/bin/%i zero '%n' $X").unwrap();
        let expected = ExecCommand {
            path: "/bin/y".into(),
            argv: vec!["zero".into(), "x@y.service".into(), "$X".into()],
            ignore_failure: true,
            no_expansion: true,
            privilege: Privilege::Full,
            via_shell: false,
        };
        assert_eq!(commands, [expected]);
        assert_eq!(parse("!!/bin/a").unwrap()[0].privilege, Privilege::KeepIdentityWithoutAmbient);
    }

    #[test]
    fn a_lone_semicolon_separates_commands() {
        let commands = parse(r"/bin/a 1 ; -/bin/b \; ';' x;y ;").unwrap();
        assert_eq!(commands.len(), 2);
        assert_eq!(commands[0].argv, ["/bin/a", "1"]);
        assert_eq!(commands[1].argv, ["/bin/b", ";", ";", "x;y"]);
        assert!(commands[1].ignore_failure);
    }

    #[test]
    fn what_names_no_program_is_an_error() {
        for bad in ["-", "bin/a", "/bin/", "+!/bin/a", "--/bin/a", "@/bin/a", "'' x", "/bin/%z", "/bin/a 'x", "/a/../b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("mkdir -p /x").unwrap()[0].path, "mkdir");
        assert_eq!(parse("").unwrap(), []);
    }
}
