//! Whether a member of an etcd cluster may go down now: the rule, as a function of what the members say. `guard` asks them, and holds the one
//! reservation that a cluster has, so that hosts of different groups cannot take two members down at once.

#[cfg(test)]
mod faults;
mod guard;
#[cfg(test)]
pub(crate) mod model;

use crate::etcd::{Health, Member};

pub use guard::{Guard, Reservation, Reserved, prepare, survey};

/// A member that lags so many entries behind is still catching up.
pub const MAX_LAG: u64 = 1000;

/// A cluster as it looks now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The member on this host; `None` when this host is none.
    pub own: Option<u64>,
    /// All members, each with what it says about itself or why it says nothing.
    pub members: Vec<(Member, Result<Health, String>)>,
}

/// May this host's member go down?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This host is no member: nothing to look after.
    NotAMember,
    /// Yes.
    Allow {
        /// It should lead first: this member is to be the leader, as we are it now.
        move_leader_to: Option<u64>,
        /// Said in the log and in `why`.
        warning: Option<String>,
    },
    /// No.
    Refuse {
        /// Why.
        why: String,
    },
}

fn named(member: &Member) -> String {
    if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() }
}

/// What is wrong with another member, if anything.
fn trouble(member: &Member, health: &Result<Health, String>, newest: u64, cluster: Option<u64>, leader: u64) -> Option<String> {
    let name = named(member);
    if member.learner {
        return Some(format!("etcd member {name} is a learner: it must be promoted or removed first"));
    }
    if member.name.is_empty() {
        return Some(format!("etcd member {name} has not started yet"));
    }
    match health {
        Err(reason) => Some(format!("etcd member {name} does not answer: {reason}")),
        Ok(health) if health.member != member.id => Some(format!("at the address of etcd member {name} another one answers")),
        Ok(health) if cluster.is_some_and(|cluster| cluster != health.cluster) => Some(format!("etcd member {name} is in another cluster")),
        Ok(health) if !health.errors.is_empty() => Some(format!("etcd member {name} says: {}", health.errors.join(", "))),
        Ok(health) if health.leader == 0 => Some(format!("etcd member {name} sees no leader")),
        Ok(health) if health.leader != leader => Some(format!("etcd member {name} sees another leader than the others")),
        Ok(health) if !health.healthy => Some(format!("etcd member {name} is not healthy")),
        Ok(health) if newest.saturating_sub(health.raft_applied) > MAX_LAG => {
            Some(format!("etcd member {name} is still catching up: {} entries behind", newest.saturating_sub(health.raft_applied)))
        }
        Ok(_) => None,
    }
}

/// Decides whether this host's member may go down.
#[must_use]
pub fn decide(picture: &Picture) -> Verdict {
    let Some((own, own_health)) = picture.own.and_then(|own| picture.members.iter().find(|(member, _)| member.id == own)) else {
        return Verdict::NotAMember;
    };
    if own.learner {
        let warning = Some("this etcd member is a learner: it has no vote yet".to_owned());
        return Verdict::Allow { move_leader_to: None, warning };
    }
    let healths = || picture.members.iter().filter_map(|(_, health)| health.as_ref().ok());
    let newest = healths().map(|health| health.raft_index.max(health.raft_applied)).max().unwrap_or(0);
    let leader = healths().map(|health| health.leader).find(|leader| *leader != 0).unwrap_or(0);
    let cluster = own_health.as_ref().ok().map(|health| health.cluster);
    let others: Vec<_> = picture.members.iter().filter(|(member, _)| member.id != own.id).collect();
    if let Some(why) = others.iter().find_map(|(member, health)| trouble(member, health, newest, cluster, leader)) {
        return Verdict::Refuse { why };
    }
    // All others are well now, so all others remain.
    let voters = others.len() + 1;
    let quorum = voters / 2 + 1;
    let warning = (others.len() < quorum).then(|| match voters {
        1 => "this is the only etcd member: etcd is away during the reboot".to_owned(),
        _ => format!("etcd has only {voters} members: it has no quorum during the reboot"),
    });
    let best = others.iter().max_by_key(|(_, health)| health.as_ref().map_or(0, |health| health.raft_applied));
    let move_leader_to = if leader == own.id { best.map(|(member, _)| member.id) } else { None };
    Verdict::Allow { move_leader_to, warning }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> (Member, Result<Health, String>) {
        let member = Member { id, name: format!("m{id}"), client_urls: Vec::new(), learner: false };
        let health = Health {
            member: id,
            cluster: 7,
            version: "3.5.16".to_owned(),
            leader: 1,
            raft_index: 5000,
            raft_applied: 5000,
            learner: false,
            errors: Vec::new(),
            healthy: true,
        };
        (member, Ok(health))
    }

    fn cluster(size: u64, own: u64) -> Picture {
        Picture { own: Some(own), members: (1..=size).map(member).collect() }
    }

    fn refused(change: impl Fn(&mut Picture), because: &str) {
        let mut picture = cluster(3, 2);
        change(&mut picture);
        match decide(&picture) {
            Verdict::Refuse { why } => assert!(why.contains(because), "{why}"),
            other => panic!("{other:?} instead of: {because}"),
        }
    }

    #[test]
    fn a_member_may_go_when_all_others_are_well() {
        assert_eq!(decide(&cluster(3, 2)), Verdict::Allow { move_leader_to: None, warning: None });
        assert_eq!(decide(&cluster(5, 5)), Verdict::Allow { move_leader_to: None, warning: None });
        assert_eq!(decide(&Picture { own: None, ..cluster(3, 2) }), Verdict::NotAMember);
        assert_eq!(decide(&Picture { own: Some(9), ..cluster(3, 2) }), Verdict::NotAMember);
    }

    #[test]
    fn a_leader_hands_over_to_the_member_that_is_furthest() {
        let mut picture = cluster(3, 1);
        picture.members[1].1.as_mut().unwrap().raft_applied = 4990;
        assert_eq!(decide(&picture), Verdict::Allow { move_leader_to: Some(3), warning: None });
    }

    #[test]
    fn small_clusters_warn() {
        for (size, text) in [(1, "only etcd member"), (2, "only 2 members")] {
            match decide(&cluster(size, 1)) {
                Verdict::Allow { warning: Some(warning), .. } => assert!(warning.contains(text)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn no_member_goes_while_another_is_not_well() {
        refused(|picture| picture.members[2].1 = Err("connection refused".to_owned()), "m3 does not answer");
        refused(|picture| picture.members[2].1.as_mut().unwrap().healthy = false, "not healthy");
        refused(|picture| picture.members[2].1.as_mut().unwrap().errors.push("NOSPACE".to_owned()), "NOSPACE");
        refused(|picture| picture.members[2].1.as_mut().unwrap().raft_applied = 3999, "catching up: 1001");
        refused(|picture| picture.members[2].1.as_mut().unwrap().leader = 0, "sees no leader");
        refused(|picture| picture.members[2].1.as_mut().unwrap().leader = 3, "another leader");
        refused(|picture| picture.members[2].1.as_mut().unwrap().cluster = 8, "another cluster");
        refused(|picture| picture.members[2].1.as_mut().unwrap().member = 1, "another one answers");
        refused(|picture| picture.members[2].0.learner = true, "learner");
        refused(|picture| picture.members[2].0.name.clear(), "has not started");
        // Not the own state: the reboot may be what mends it.
        let mut picture = cluster(3, 2);
        picture.members[1].1 = Err("connection refused".to_owned());
        assert!(matches!(decide(&picture), Verdict::Allow { .. }));
    }
}
