//! How units lean on each other.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::name::UnitName;

/// How one unit can lean on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DependencyKind {
    /// Starting this starts that; this fails if that fails and is ordered before.
    Requires,
    /// That must already be running.
    Requisite,
    /// Starting this starts that, whatever comes of it.
    Wants,
    /// Like `Requires`, and this stops whenever that stops.
    BindsTo,
    /// Stopping or restarting that does the same to this.
    PartOf,
    /// While this runs, that is restarted whenever it is down.
    Upholds,
    /// Starting this stops that, and the other way round.
    Conflicts,
    /// This starts before that, and stops after it.
    Before,
    /// This starts after that, and stops before it.
    After,
    /// Started when this fails.
    OnFailure,
    /// Started when this ends well.
    OnSuccess,
    /// Reloading this reloads that.
    PropagatesReloadTo,
    /// Reloading that reloads this.
    ReloadPropagatedFrom,
    /// Stopping this stops that.
    PropagatesStopTo,
    /// Stopping that stops this.
    StopPropagatedFrom,
    /// Shares that unit's private namespaces.
    JoinsNamespaceOf,
    /// This (a socket, timer or path) starts that.
    Triggers,
    /// That (a socket, timer or path) starts this.
    TriggeredBy,
}

impl DependencyKind {
    /// All kinds, in the order in which `systemctl show` prints them.
    pub const ALL: [Self; 18] = [
        Self::Requires,
        Self::Requisite,
        Self::Wants,
        Self::BindsTo,
        Self::PartOf,
        Self::Upholds,
        Self::Conflicts,
        Self::Before,
        Self::After,
        Self::OnFailure,
        Self::OnSuccess,
        Self::PropagatesReloadTo,
        Self::ReloadPropagatedFrom,
        Self::PropagatesStopTo,
        Self::StopPropagatedFrom,
        Self::JoinsNamespaceOf,
        Self::Triggers,
        Self::TriggeredBy,
    ];

    /// The directive, and the property of `systemctl show`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requires => "Requires",
            Self::Requisite => "Requisite",
            Self::Wants => "Wants",
            Self::BindsTo => "BindsTo",
            Self::PartOf => "PartOf",
            Self::Upholds => "Upholds",
            Self::Conflicts => "Conflicts",
            Self::Before => "Before",
            Self::After => "After",
            Self::OnFailure => "OnFailure",
            Self::OnSuccess => "OnSuccess",
            Self::PropagatesReloadTo => "PropagatesReloadTo",
            Self::ReloadPropagatedFrom => "ReloadPropagatedFrom",
            Self::PropagatesStopTo => "PropagatesStopTo",
            Self::StopPropagatedFrom => "StopPropagatedFrom",
            Self::JoinsNamespaceOf => "JoinsNamespaceOf",
            Self::Triggers => "Triggers",
            Self::TriggeredBy => "TriggeredBy",
        }
    }

    /// Whether starting the unit pulls the other in.
    #[must_use]
    pub const fn pulls_in(self) -> bool {
        matches!(self, Self::Requires | Self::Wants | Self::BindsTo | Self::Upholds)
    }
}

/// The dependencies that a unit states itself, or that follow from its settings. Only this side is here: the reverse of
/// each edge (`WantedBy`, `Before` of somebody's `After`) is for whoever holds all units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
// In order, and without gaps: PID 1 holds thousands of these.
pub struct Dependencies(Vec<(DependencyKind, UnitName)>);

impl Dependencies {
    /// The units of one kind of dependency.
    pub fn get(&self, kind: DependencyKind) -> impl Iterator<Item = &UnitName> {
        let first = self.0.partition_point(|(other, _)| *other < kind);
        self.0.iter().skip(first).take_while(move |(other, _)| *other == kind).map(|(_, name)| name)
    }

    /// Every edge.
    pub fn iter(&self) -> impl Iterator<Item = (DependencyKind, &UnitName)> {
        self.0.iter().map(|(kind, name)| (*kind, name))
    }

    fn find(&self, kind: DependencyKind, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, found)| other.cmp(&kind).then_with(|| found.as_str().cmp(name)))
    }

    /// Whether the edge is there.
    #[must_use]
    pub fn has(&self, kind: DependencyKind, name: &str) -> bool {
        self.find(kind, name).is_ok()
    }

    /// Adds an edge.
    pub fn add(&mut self, kind: DependencyKind, name: UnitName) {
        if let Err(at) = self.find(kind, name.as_str()) {
            self.0.insert(at, (kind, name));
        }
    }

    /// Removes every edge of a kind (an empty assignment).
    pub fn clear(&mut self, kind: DependencyKind) {
        self.0.retain(|(other, _)| *other != kind);
    }

    /// Uses the names of `known` where they are the same, and adds its own to them.
    pub fn share_names(&mut self, known: &mut HashSet<UnitName>) {
        for (_, name) in &mut self.0 {
            match known.get(name) {
                Some(other) => name.clone_from(other),
                None => drop(known.insert(name.clone())),
            }
        }
        self.0.shrink_to_fit();
    }

    /// Takes one edge out.
    pub fn remove(&mut self, kind: DependencyKind, name: &str) {
        if let Ok(at) = self.find(kind, name) {
            self.0.remove(at);
        }
    }
}
