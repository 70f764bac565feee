//! Which call gets which answer, and the program that gives it.

use std::collections::BTreeMap;

use unit_files::exec::SyscallRule;

use super::calls::{Architecture, Calls};
use super::errno;
use super::program::{self, Instruction};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and the kernel log tells.
    Log,
    /// It fails with an error number.
    Errno(u16),
    /// The process ends with SIGSYS.
    Kill,
}

impl Action {
    /// As the kernel wants it.
    #[must_use]
    pub fn answer(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// A test of the lower half of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// Which argument, from 0.
    pub argument: u8,
    /// The bits that count.
    pub mask: u32,
    /// What they are held against.
    pub value: u32,
    /// Holds when they are equal, or when they are not.
    pub equal: bool,
}

/// A call with certain arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ArgumentRule {
    /// All of them have to hold.
    tests: Vec<Test>,
    action: Action,
}

/// The whole filter of one architecture.
pub struct Filter {
    architecture: Architecture,
    calls: Calls,
    /// Every known call.
    table: BTreeMap<u32, Action>,
    /// Calls that are newer than the table.
    unknown: Action,
    /// Looked at first.
    arguments: BTreeMap<u32, Vec<ArgumentRule>>,
}

impl Filter {
    fn new(architecture: Architecture, known: Action, unknown: Action) -> Self {
        let calls = Calls::of(architecture);
        let table = calls.all().map(|number| (number, known)).collect();
        Self { architecture, calls, table, unknown, arguments: BTreeMap::new() }
    }

    /// `SystemCallFilter=`: the first line decides whether it is a list of what is allowed or of what is not; the next lines add
    /// and take away. With no line, everything is allowed.
    ///
    /// # Errors
    /// When something that is to be denied is not known.
    pub fn of_calls(rules: &[SyscallRule], error_number: Option<&str>, architecture: Architecture) -> Result<Self, String> {
        let deny = match error_number {
            None | Some("" | "kill") => Action::Kill,
            Some(text) => Action::Errno(errno::parse(text).ok_or_else(|| format!("SystemCallErrorNumber={text}: no such error"))?),
        };
        let Some(first) = rules.first() else { return Ok(Self::new(architecture, Action::Allow, Action::Allow)) };
        let allow_list = !first.deny;
        let mut filter = if allow_list {
            // What came after us: "not there" makes programs use what was there before.
            let mut filter = Self::new(architecture, deny, Action::Errno(libc::ENOSYS as u16));
            filter.set("@default", Action::Allow)?;
            filter
        } else {
            Self::new(architecture, Action::Allow, Action::Allow)
        };
        for rule in rules {
            for word in &rule.names {
                let (name, how) = word.split_once(':').map_or((word.as_str(), None), |(name, how)| (name, Some(how)));
                let own = match how {
                    None => None,
                    Some("kill") => Some(Action::Kill),
                    Some(how) => Some(Action::Errno(errno::parse(how).ok_or_else(|| format!("SystemCallFilter={word}: no such error"))?)),
                };
                match (rule.deny, own) {
                    // Without our table's knowledge of it, an allowed call is one that is refused.
                    (false, None) => drop(filter.set(name, Action::Allow)),
                    (_, Some(action)) => filter.set(name, action)?,
                    (true, None) => filter.set(name, deny)?,
                }
            }
        }
        Ok(filter)
    }

    /// `SystemCallLog=`.
    ///
    /// # Errors
    /// When a name is not known.
    pub fn log(rules: &[SyscallRule], architecture: Architecture) -> Result<Self, String> {
        let all_but = rules.first().is_some_and(|first| first.deny);
        let start = if all_but { Action::Log } else { Action::Allow };
        let mut filter = Self::new(architecture, start, start);
        for rule in rules {
            for name in &rule.names {
                filter.set(name, if rule.deny { Action::Allow } else { Action::Log })?;
            }
        }
        Ok(filter)
    }

    fn set(&mut self, name: &str, action: Action) -> Result<(), String> {
        let numbers = self.calls.resolve(name).ok_or_else(|| format!("no system call or group is called {name} here"))?;
        self.table.extend(numbers.into_iter().map(|number| (number, action)));
        Ok(())
    }

    /// Denies a call or group, unless it is denied already.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn deny_also(&mut self, name: &str, action: Action) -> Result<(), String> {
        let numbers = self.calls.resolve(name).ok_or_else(|| format!("no system call or group is called {name} here"))?;
        for number in numbers {
            let now = self.table.entry(number).or_insert(action);
            if *now == Action::Allow {
                *now = action;
            }
        }
        Ok(())
    }

    /// A call with certain arguments gets another answer; names that this architecture does not have are passed over.
    pub fn when(&mut self, name: &str, tests: &[Test], action: Action) {
        if let Some(number) = self.calls.number(name) {
            self.arguments.entry(number).or_default().push(ArgumentRule { tests: tests.to_vec(), action });
        }
    }

    /// The program.
    ///
    /// # Errors
    /// When it would be longer than the kernel takes.
    pub fn compile(&self) -> Result<Vec<Instruction>, String> {
        let mut out = vec![program::load(program::ARCHITECTURE), program::if_equal(self.architecture.audit(), 1, 0)];
        out.push(program::answer(Action::Kill.answer()));
        out.push(program::load(program::NUMBER));
        if self.architecture == Architecture::X86_64 {
            // x32 calls carry this bit under the same architecture.
            out.extend([program::if_above(0x3fff_ffff, 0, 1), program::answer(Action::Kill.answer())]);
        }
        for (number, rules) in &self.arguments {
            let mut body = Vec::new();
            for rule in rules {
                body.extend(rule.compile()?);
            }
            body.push(program::load(program::NUMBER));
            let length = u8::try_from(body.len()).map_err(|_| "a system call filter is too long".to_owned())?;
            out.push(program::if_equal(*number, 0, length));
            out.extend(body);
        }
        // One comparison for each run of numbers with the same answer, upwards.
        let mut numbers = self.table.iter().peekable();
        let mut next = 0;
        while let Some((number, action)) = numbers.next() {
            if *number > next {
                // A hole: not a call, and none will be added there.
                out.extend([program::if_above(number - 1, 1, 0), program::answer(self.unknown.answer())]);
            }
            let mut last = *number;
            while let Some((following, _)) = numbers.next_if(|(following, other)| **following == last + 1 && *other == action) {
                last = *following;
            }
            out.extend([program::if_above(last, 1, 0), program::answer(action.answer())]);
            next = last + 1;
        }
        out.push(program::answer(self.unknown.answer()));
        if out.len() > libc::BPF_MAXINSNS as usize {
            return Err("the system call filter is too long".to_owned());
        }
        Ok(out)
    }
}

impl ArgumentRule {
    /// Falls through to what follows when a test does not hold.
    fn compile(&self) -> Result<Vec<Instruction>, String> {
        let mut out = Vec::new();
        let length = self.tests.len() * 3 + 1;
        for (index, test) in self.tests.iter().enumerate() {
            let rest = length - (index + 1) * 3;
            let away = u8::try_from(rest).map_err(|_| "a system call filter is too long".to_owned())?;
            out.extend([program::load(program::argument(test.argument)), program::and(test.mask)]);
            out.push(if test.equal { program::if_equal(test.value, 0, away) } else { program::if_equal(test.value, away, 0) });
        }
        out.push(program::answer(self.action.answer()));
        Ok(out)
    }
}
