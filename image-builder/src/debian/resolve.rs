//! Chooses packages. As every name has one candidate (see `universe`), a choice only exists between alternatives and
//! between providers of a virtual name; everything else follows. So this is the search that apt does in spirit, made
//! complete: all that is forced is taken first, then the oldest open choice in the order of the dependency's
//! alternatives, going back when that leads into a conflict. Installed packages are never added twice over: a choice
//! that something chosen meanwhile satisfies is no choice. The result depends on nothing but the input.
//!
//! A general solver (resolvo) was considered: its decision order is by difficulty, not by Debian's order of
//! alternatives, which gives other sets than apt, and its explanations name versions where only one exists.

use std::collections::HashMap;
use std::fmt::Write as _;

use thiserror::Error;

use super::dependency::{Clause, Relation};
use super::packages::Package;
use super::request::PackageRequest;
use super::universe::Universe;

/// How often the search may go back before it gives up.
const MAX_STEPS: usize = 20_000;

/// Why no set of packages satisfies a request. Each is one line.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ResolveError {
    /// A name of the recipe does not exist.
    #[error("no package '{name}' in {suites}{}", hint(near))]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked for.
        suites: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A name of the recipe is virtual.
    #[error("'{name}' is not a package but provided by {}: name one of them in the recipe", providers.join(", "))]
    Virtual {
        /// The name.
        name: String,
        /// Who provides it.
        providers: Vec<String>,
    },
    /// The recipe includes and excludes a package.
    #[error("the recipe both includes and excludes '{0}': remove one of them")]
    IncludedAndExcluded(String),
    /// A dependency that nothing satisfies.
    #[error("cannot install {chain}: {package} needs {clause}, but {reason}")]
    Unsatisfiable {
        /// From the recipe down.
        chain: String,
        /// Who needs it.
        package: String,
        /// What.
        clause: String,
        /// Why not.
        reason: String,
    },
    /// Two packages that exclude each other.
    #[error(
        "cannot install both {first} and {second}: {owner} conflicts with {relation}; exclude one of them, or name another provider in [packages.prefer]"
    )]
    Conflict {
        /// From the recipe down.
        first: String,
        /// From the recipe down.
        second: String,
        /// Whose field says so.
        owner: String,
        /// What it says.
        relation: String,
    },
    /// Too many choices.
    #[error("no set of packages was found within {MAX_STEPS} steps; name what is wanted in [packages.prefer]; the first problem was: {0}")]
    TooHard(Box<ResolveError>),
}

fn hint(near: &[String]) -> String {
    match near {
        [] => "; check the spelling and the recipe's components".to_owned(),
        near => format!("; did you mean {}?", near.join(" or ")),
    }
}

/// One chosen package.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// The package.
    pub package: Package<'a>,
    /// The number of its suite in the universe.
    pub suite: usize,
}

/// Chooses the packages for a request, sorted by name.
///
/// # Errors
/// When there is no such set; the message names the chain of dependencies.
pub fn resolve<'a>(universe: &'a Universe, request: &'a PackageRequest) -> Result<Vec<Chosen<'a>>, ResolveError> {
    let mut solver = Solver { universe, request, known: Vec::new(), by_name: HashMap::new(), clauses: Vec::new() };
    for (names, suites) in request
        .from
        .iter()
        .map(|(name, suite)| (name, suite.clone()))
        .chain(request.prefer.values().map(|name| (name, universe.describe())))
    {
        if universe.candidate(names).is_none() {
            return Err(ResolveError::Unknown { name: names.clone(), suites, near: universe.similar(names) });
        }
    }
    let mut goals = Vec::new();
    for name in &request.include {
        if request.excludes(name) {
            return Err(ResolveError::IncludedAndExcluded(name.clone()));
        }
        goals.push(solver.id(name).ok_or_else(|| solver.missing(name))?);
    }
    let state = solver.search(&goals)?;
    let state = if request.recommends { solver.recommended(state) } else { state };
    let mut chosen: Vec<Chosen<'a>> = state.installed.iter().filter_map(|&id| solver.known.get(id)).map(|known| known.chosen).collect();
    chosen.sort_by_key(|chosen| chosen.package.name);
    Ok(chosen)
}

struct Known<'a> {
    chosen: Chosen<'a>,
    provides: Vec<Relation<'a>>,
    conflicts: Vec<Relation<'a>>,
    /// Numbers in `Solver::clauses`.
    depends: Vec<usize>,
    recommends: Vec<usize>,
}

struct Solver<'a> {
    universe: &'a Universe,
    request: &'a PackageRequest,
    known: Vec<Known<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// Who needs it, and what.
    clauses: Vec<(usize, Clause<'a>)>,
}

/// A partial answer.
#[derive(Clone, Default)]
struct State<'a> {
    /// In order of being chosen.
    installed: Vec<usize>,
    /// By own and by provided names.
    by_name: HashMap<&'a str, Vec<usize>>,
    /// Which clause brought a package; none for the recipe's own.
    because: HashMap<usize, usize>,
    /// How many of `installed` have had their clauses looked at.
    examined: usize,
    /// Clauses with a choice, oldest first.
    open: Vec<usize>,
}

/// A way to satisfy a clause: a package, or nothing because an excluded package would do it.
type Way = Option<usize>;

impl<'a> Solver<'a> {
    fn id(&mut self, name: &str) -> Option<usize> {
        if let Some(&id) = self.by_name.get(name) {
            return Some(id);
        }
        let (package, suite) = self.universe.candidate(name)?;
        let architecture = &self.request.architecture;
        let id = self.known.len();
        let mut add = |list: Vec<Clause<'a>>| -> Vec<usize> {
            list.into_iter()
                .map(|clause| {
                    self.clauses.push((id, clause));
                    self.clauses.len() - 1
                })
                .collect()
        };
        let depends = add(package.depends(architecture).collect());
        let recommends = add(package.recommends(architecture).collect());
        let known = Known {
            chosen: Chosen { package, suite },
            provides: package.provides().collect(),
            conflicts: package.conflicts(architecture).collect(),
            depends,
            recommends,
        };
        self.known.push(known);
        self.by_name.insert(package.name, id);
        Some(id)
    }

    fn missing(&self, name: &str) -> ResolveError {
        let providers: Vec<String> = self.universe.providers(name).into_iter().map(|(package, _)| package.name.to_owned()).collect();
        if providers.is_empty() {
            ResolveError::Unknown { name: name.to_owned(), suites: self.universe.describe(), near: self.universe.similar(name) }
        } else {
            ResolveError::Virtual { name: name.to_owned(), providers }
        }
    }

    fn search(&mut self, goals: &[usize]) -> Result<State<'a>, ResolveError> {
        let mut state = State::default();
        for &goal in goals {
            self.install(&mut state, goal, None)?;
        }
        self.complete(state, &mut 0)
    }

    /// Depth-first over the open choices. The problem of the preferred ways is the one that is told.
    fn complete(&mut self, mut state: State<'a>, steps: &mut usize) -> Result<State<'a>, ResolveError> {
        self.force(&mut state)?;
        let Some((clause, ways)) = self.choice(&mut state)? else { return Ok(state) };
        let mut problem = None;
        for way in ways {
            *steps += 1;
            if *steps > MAX_STEPS {
                break;
            }
            match self.take(state.clone(), clause, way).and_then(|state| self.complete(state, steps)) {
                Ok(state) => return Ok(state),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        match problem {
            Some(problem) if *steps > MAX_STEPS && !matches!(problem, ResolveError::TooHard(_)) => {
                Err(ResolveError::TooHard(Box::new(problem)))
            }
            Some(problem) => Err(problem),
            None => Ok(state),
        }
    }

    fn take(&mut self, mut state: State<'a>, clause: usize, way: Way) -> Result<State<'a>, ResolveError> {
        if let Some(id) = way {
            self.install(&mut state, id, Some(clause))?;
        }
        Ok(state)
    }

    /// Looks at all clauses of what is installed and takes what leaves no choice, until nothing is left but choices.
    fn force(&mut self, state: &mut State<'a>) -> Result<(), ResolveError> {
        loop {
            while let Some(&id) = state.installed.get(state.examined) {
                state.examined += 1;
                let clauses = self.known.get(id).map(|known| known.depends.clone()).unwrap_or_default();
                for clause in clauses {
                    match self.ways(state, clause)? {
                        None => {}
                        Some(ways) => match ways.as_slice() {
                            [Some(only)] => self.install(state, *only, Some(clause))?,
                            [None] => {}
                            _ => state.open.push(clause),
                        },
                    }
                }
            }
            // What was chosen meanwhile may have satisfied a choice, or left it one way only.
            let mut settled = true;
            for clause in std::mem::take(&mut state.open) {
                match self.ways(state, clause)? {
                    None => {}
                    Some(ways) => match ways.as_slice() {
                        [Some(only)] => {
                            self.install(state, *only, Some(clause))?;
                            settled = false;
                        }
                        [None] => {}
                        _ => state.open.push(clause),
                    },
                }
            }
            if settled {
                return Ok(());
            }
        }
    }

    /// The oldest open choice.
    fn choice(&mut self, state: &mut State<'a>) -> Result<Option<(usize, Vec<Way>)>, ResolveError> {
        while !state.open.is_empty() {
            let clause = state.open.remove(0);
            if let Some(ways) = self.ways(state, clause)? {
                return Ok(Some((clause, ways)));
            }
        }
        Ok(None)
    }

    fn install(&mut self, state: &mut State<'a>, id: usize, clause: Option<usize>) -> Result<(), ResolveError> {
        if state.installed.contains(&id) {
            return Ok(());
        }
        if let Some(clause) = clause {
            state.because.insert(id, clause);
        }
        if let Some((owner, other, relation)) = self.conflict(state, id) {
            let (first, second) = (self.chain(state, other), self.chain(state, id));
            return Err(ResolveError::Conflict { first, second, owner: self.name(owner).to_owned(), relation: relation.to_string() });
        }
        state.installed.push(id);
        if let Some(known) = self.known.get(id) {
            state.by_name.entry(known.chosen.package.name).or_default().push(id);
            for provided in &known.provides {
                state.by_name.entry(provided.name).or_default().push(id);
            }
        }
        Ok(())
    }

    /// Whether a package cannot be together with what is installed: whose field says so, with whom, and the field.
    fn conflict(&self, state: &State<'a>, id: usize) -> Option<(usize, usize, Relation<'a>)> {
        let known = self.known.get(id)?;
        for relation in &known.conflicts {
            for &other in state.by_name.get(relation.name).into_iter().flatten() {
                if other != id && self.satisfies(other, relation) {
                    return Some((id, other, *relation));
                }
            }
        }
        for &other in &state.installed {
            for relation in self.known.get(other).map(|known| known.conflicts.as_slice()).unwrap_or_default() {
                if self.satisfies(id, relation) {
                    return Some((other, other, *relation));
                }
            }
        }
        None
    }

    fn satisfies(&self, id: usize, relation: &Relation<'_>) -> bool {
        self.known.get(id).is_some_and(|known| {
            let named = known.chosen.package.name == relation.name || known.provides.iter().any(|provided| provided.name == relation.name);
            named && known.chosen.package.satisfies(relation)
        })
    }

    /// How a clause can be satisfied, the preferred way first; `None` when it is satisfied already.
    fn ways(&mut self, state: &State<'a>, clause: usize) -> Result<Option<Vec<Way>>, ResolveError> {
        let (owner, relations) = self.clauses.get(clause).cloned().unwrap_or_default();
        for relation in &relations {
            let installed = state.by_name.get(relation.name).into_iter().flatten();
            if installed.into_iter().any(|&id| self.satisfies(id, relation)) {
                return Ok(None);
            }
        }
        let mut ways: Vec<Way> = Vec::new();
        let mut notes = Vec::new();
        for relation in &relations {
            if self.request.excludes(relation.name) {
                ways.push(None);
                break;
            }
            let mut excluded = false;
            let mut names: Vec<&str> = self.universe.candidate(relation.name).map(|(package, _)| package.name).into_iter().collect();
            names.extend(
                self.universe.providers(relation.name).into_iter().map(|(package, _)| package.name).filter(|name| *name != relation.name),
            );
            if names.is_empty() {
                notes.push(format!("{} has no {}", self.universe.describe(), relation.name));
            }
            for name in names {
                let Some(id) = self.id(name) else { continue };
                if !self.satisfies(id, relation) {
                    if let Some(known) = self.known.get(id).filter(|_| name == relation.name) {
                        let Chosen { package, suite } = known.chosen;
                        notes.push(format!("{} has {name} {}", self.universe.suite_name(suite), package.version));
                    }
                    continue;
                }
                if self.request.excludes(name) {
                    excluded = true;
                } else if let Some((whose, other, relation)) = self.conflict(state, id) {
                    let with = if whose == id { self.name(other) } else { name };
                    notes.push(format!(
                        "{} conflicts with {with} ({relation}), and {} is wanted",
                        self.name(whose),
                        self.chain(state, other)
                    ));
                } else if !ways.contains(&Some(id)) {
                    ways.push(Some(id));
                }
            }
            if excluded && ways.is_empty() {
                ways.push(None);
                break;
            }
        }
        self.prefer(&relations, &mut ways);
        if ways.is_empty() {
            let wanted = relations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
            let package = self.describe(owner);
            return Err(ResolveError::Unsatisfiable {
                chain: self.chain(state, owner),
                package,
                clause: wanted,
                reason: notes.join(", and "),
            });
        }
        Ok(Some(ways))
    }

    fn prefer(&mut self, relations: &[Relation<'_>], ways: &mut [Way]) {
        for relation in relations {
            let Some(preferred) = self.request.prefer.get(relation.name) else { continue };
            if let Some(id) = self.id(preferred)
                && let Some(at) = ways.iter().position(|way| *way == Some(id))
                && let Some(start) = ways.get_mut(..=at)
            {
                start.rotate_right(1);
                return;
            }
        }
    }

    /// Adds what is recommended, as far as it can be had.
    fn recommended(&mut self, mut state: State<'a>) -> State<'a> {
        let mut at = 0;
        while let Some(&id) = state.installed.get(at) {
            at += 1;
            for clause in self.known.get(id).map(|known| known.recommends.clone()).unwrap_or_default() {
                let Ok(Some(ways)) = self.ways(&state, clause) else { continue };
                let Some(Some(way)) = ways.first().copied() else { continue };
                let tried = self.take(state.clone(), clause, Some(way)).and_then(|state| self.complete(state, &mut 0));
                if let Ok(better) = tried {
                    state = better;
                }
            }
        }
        state
    }

    fn name(&self, id: usize) -> &'a str {
        self.known.get(id).map_or("?", |known| known.chosen.package.name)
    }

    fn describe(&self, id: usize) -> String {
        let Some(known) = self.known.get(id) else { return "?".to_owned() };
        let Chosen { package, suite } = known.chosen;
        format!("{} {} ({})", package.name, package.version, self.universe.suite_name(suite))
    }

    /// A package with those that brought it, for example `containerd (needed by docker.io)`.
    fn chain(&self, state: &State<'a>, id: usize) -> String {
        let mut text = self.name(id).to_owned();
        let mut at = id;
        let mut owners = Vec::new();
        while let Some(&(owner, _)) = state.because.get(&at).and_then(|&clause| self.clauses.get(clause)) {
            if owners.len() > 20 {
                break;
            }
            owners.push(self.name(owner));
            at = owner;
        }
        if !owners.is_empty() {
            let _ = write!(text, " (needed by {})", owners.join(" <- "));
        }
        text
    }
}
