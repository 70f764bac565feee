//! Units as numbers, and the dependencies between them with their inverses.
//!
//! Pure data. A name keeps its number for the life of PID 1, so that a reload can throw away all edges and build them again while
//! jobs and states stay where they are.

use std::collections::{BTreeSet, HashMap};

/// A unit, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u32);

/// A kind of dependency, read as "unit KIND other".
#[allow(missing_docs)] // Each is the setting of the same name, or its inverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dep {
    Requires,
    RequiredBy,
    Requisite,
    RequisiteOf,
    Wants,
    WantedBy,
    BindsTo,
    BoundBy,
    PartOf,
    ConsistsOf,
    Upholds,
    UpheldBy,
    Conflicts,
    ConflictedBy,
    Before,
    After,
    OnFailure,
    OnFailureOf,
    OnSuccess,
    OnSuccessOf,
    Triggers,
    TriggeredBy,
    PropagatesReloadTo,
    ReloadPropagatedFrom,
    PropagatesStopTo,
    StopPropagatedFrom,
}

impl Dep {
    /// Every kind.
    pub const ALL: [Self; 26] = [
        Self::Requires,
        Self::RequiredBy,
        Self::Requisite,
        Self::RequisiteOf,
        Self::Wants,
        Self::WantedBy,
        Self::BindsTo,
        Self::BoundBy,
        Self::PartOf,
        Self::ConsistsOf,
        Self::Upholds,
        Self::UpheldBy,
        Self::Conflicts,
        Self::ConflictedBy,
        Self::Before,
        Self::After,
        Self::OnFailure,
        Self::OnFailureOf,
        Self::OnSuccess,
        Self::OnSuccessOf,
        Self::Triggers,
        Self::TriggeredBy,
        Self::PropagatesReloadTo,
        Self::ReloadPropagatedFrom,
        Self::PropagatesStopTo,
        Self::StopPropagatedFrom,
    ];

    /// The same edge seen from the other unit.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::Requires => Self::RequiredBy,
            Self::RequiredBy => Self::Requires,
            Self::Requisite => Self::RequisiteOf,
            Self::RequisiteOf => Self::Requisite,
            Self::Wants => Self::WantedBy,
            Self::WantedBy => Self::Wants,
            Self::BindsTo => Self::BoundBy,
            Self::BoundBy => Self::BindsTo,
            Self::PartOf => Self::ConsistsOf,
            Self::ConsistsOf => Self::PartOf,
            Self::Upholds => Self::UpheldBy,
            Self::UpheldBy => Self::Upholds,
            Self::Conflicts => Self::ConflictedBy,
            Self::ConflictedBy => Self::Conflicts,
            Self::Before => Self::After,
            Self::After => Self::Before,
            Self::OnFailure => Self::OnFailureOf,
            Self::OnFailureOf => Self::OnFailure,
            Self::OnSuccess => Self::OnSuccessOf,
            Self::OnSuccessOf => Self::OnSuccess,
            Self::Triggers => Self::TriggeredBy,
            Self::TriggeredBy => Self::Triggers,
            Self::PropagatesReloadTo => Self::ReloadPropagatedFrom,
            Self::ReloadPropagatedFrom => Self::PropagatesReloadTo,
            Self::PropagatesStopTo => Self::StopPropagatedFrom,
            Self::StopPropagatedFrom => Self::PropagatesStopTo,
        }
    }
}

/// Names and edges.
#[derive(Debug, Default)]
pub struct Graph {
    names: Vec<String>,
    numbers: HashMap<String, UnitId>,
    aliases: HashMap<String, UnitId>,
    edges: BTreeSet<(UnitId, Dep, UnitId)>,
    /// Numbers of units that were forgotten.
    free: Vec<UnitId>,
}

impl Graph {
    /// The unit of this name, made if it is new.
    pub fn intern(&mut self, name: &str) -> UnitId {
        if let Some(&id) = self.numbers.get(name) {
            return id;
        }
        if let Some(id) = self.free.pop()
            && let Some(slot) = self.names.get_mut(id.0 as usize)
        {
            name.clone_into(slot);
            self.numbers.insert(name.to_owned(), id);
            return id;
        }
        #[allow(clippy::cast_possible_truncation)] // Four billion unit names do not fit in memory.
        let id = UnitId(self.names.len() as u32);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), id);
        id
    }

    /// The unit of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<UnitId> {
        self.aliases.get(name).or_else(|| self.numbers.get(name)).copied()
    }

    /// Makes `alias` mean `unit`, until the edges are cleared.
    pub fn alias(&mut self, alias: &str, unit: UnitId) {
        if self.name(unit) != alias {
            self.aliases.insert(alias.to_owned(), unit);
        }
    }

    /// The name a unit was made with.
    #[must_use]
    pub fn name(&self, unit: UnitId) -> &str {
        self.names.get(unit.0 as usize).map_or("", String::as_str)
    }

    /// Adds an edge and its inverse. A unit never depends on itself.
    pub fn add(&mut self, unit: UnitId, dep: Dep, other: UnitId) {
        if unit == other {
            return;
        }
        self.edges.insert((unit, dep, other));
        self.edges.insert((other, dep.inverse(), unit));
    }

    /// Everything that `unit` has this dependency on, by number.
    pub fn of(&self, unit: UnitId, dep: Dep) -> impl Iterator<Item = UnitId> + '_ {
        self.edges.range((unit, dep, UnitId(0))..=(unit, dep, UnitId(u32::MAX))).map(|(_, _, other)| *other)
    }

    /// Whether the edge is there.
    #[must_use]
    pub fn has(&self, unit: UnitId, dep: Dep, other: UnitId) -> bool {
        self.edges.contains(&(unit, dep, other))
    }

    /// Forgets a unit and its edges; its number may be given to another.
    pub fn forget(&mut self, unit: UnitId) {
        for dep in Dep::ALL {
            let others: Vec<UnitId> = self.of(unit, dep).collect();
            for other in others {
                self.edges.remove(&(unit, dep, other));
                self.edges.remove(&(other, dep.inverse(), unit));
            }
        }
        self.aliases.retain(|_, other| *other != unit);
        if let Some(name) = self.names.get_mut(unit.0 as usize) {
            self.numbers.remove(name.as_str());
            name.clear();
            self.free.push(unit);
        }
    }

    /// Forgets all edges and aliases; names stay.
    pub fn clear_edges(&mut self) {
        self.edges.clear();
        self.aliases.clear();
    }

    /// All units, by number.
    pub fn units(&self) -> impl Iterator<Item = UnitId> + use<> {
        #[allow(clippy::cast_possible_truncation)]
        (0..self.names.len() as u32).map(UnitId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_unit_leaves_no_edge_and_its_number_is_used_again() {
        let mut graph = Graph::default();
        let (a, b, c) = (graph.intern("a"), graph.intern("b"), graph.intern("c"));
        graph.add(a, Dep::Requires, b);
        graph.add(c, Dep::After, b);
        graph.alias("bee", b);
        graph.forget(b);
        assert_eq!((graph.find("b"), graph.find("bee")), (None, None));
        assert!(Dep::ALL.iter().all(|dep| graph.of(a, *dep).chain(graph.of(c, *dep)).next().is_none()));
        assert_eq!(graph.intern("d"), b);
        assert_eq!(graph.name(b), "d");
        assert!(Dep::ALL.iter().all(|dep| dep.inverse().inverse() == *dep));
    }
}
