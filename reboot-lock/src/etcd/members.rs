//! What etcd says about its own cluster: members, and the state of each as it tells itself.

use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::gateway::{self, Header, number};
use super::transport::Safety;
use super::{Etcd, endpoint};
use crate::store::StoreError;

/// A member of the cluster, as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<Url>,
    /// It does not vote yet.
    pub learner: bool,
}

/// How a member is, by its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The member that answered.
    pub member: u64,
    /// Its cluster.
    pub cluster: u64,
    /// Its program's version.
    pub version: String,
    /// The leader it knows; 0: none.
    pub leader: u64,
    /// The last entry of the log that it knows to be agreed on.
    pub raft_index: u64,
    /// The last that it has done.
    pub raft_applied: u64,
    /// It does not vote yet.
    pub learner: bool,
    /// Alarms, and whatever else it complains about.
    pub errors: Vec<String>,
    /// What its `/health` says.
    pub healthy: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusAnswer {
    header: Header,
    version: String,
    #[serde(deserialize_with = "number")]
    leader: u64,
    #[serde(rename = "raftIndex", deserialize_with = "number")]
    raft_index: u64,
    #[serde(rename = "raftAppliedIndex", deserialize_with = "number")]
    raft_applied: u64,
    #[serde(rename = "isLearner")]
    learner: bool,
    errors: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MembersAnswer {
    members: Vec<MemberAnswer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MemberAnswer {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: u64,
    name: String,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
    #[serde(rename = "isLearner")]
    learner: bool,
}

fn status(body: &[u8], healthy: bool) -> Result<Health, String> {
    let answer: StatusAnswer = gateway::read(body)?;
    Ok(Health {
        member: answer.header.member_id,
        cluster: answer.header.cluster_id,
        version: answer.version,
        leader: answer.leader,
        raft_index: answer.raft_index,
        raft_applied: answer.raft_applied,
        learner: answer.learner,
        errors: answer.errors,
        healthy,
    })
}

/// `/health` says `{"health":"true"}`, since 3.5 with a reason beside it.
fn says_healthy(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Says {
        health: serde_json::Value,
    }
    gateway::read::<Says>(body).is_ok_and(|says| says.health == json!("true") || says.health == json!(true))
}

impl Etcd {
    /// The members.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn members(&self) -> Result<Vec<Member>, StoreError> {
        // Without `linearizable` (3.5) a member that was cut off would tell what it last knew.
        let answer = self.transport.call("v3/cluster/member/list", &json!({ "linearizable": true }), Safety::Repeatable).await;
        let answer = match answer {
            // 3.4 does not know the word, and always answers from what it has.
            Err(StoreError::Protocol { .. }) => self.transport.call("v3/cluster/member/list", &json!({}), Safety::Repeatable).await?,
            other => other?,
        };
        let read: MembersAnswer = gateway::read(&answer.body).map_err(|reason| answer.nonsense(reason))?;
        let member = |member: MemberAnswer| Member {
            id: member.id,
            name: member.name,
            client_urls: member.client_urls.iter().filter_map(|url| endpoint(url).ok()).collect(),
            learner: member.learner,
        };
        Ok(read.members.into_iter().map(member).collect())
    }

    /// How the member at `url` is. One that cannot say whether it is healthy is not.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn health(&self, url: &Url) -> Result<Health, StoreError> {
        let answer = self.transport.ask(url, "v3/maintenance/status", &json!({})).await?;
        let healthy = self.transport.get(url, "health").await.is_ok_and(|body| says_healthy(&body));
        status(&answer.body, healthy).map_err(|reason| answer.nonsense(reason))
    }

    /// Makes `to` the leader; `leader` is a URL of the member that leads now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn move_leader(&self, leader: &Url, to: u64) -> Result<(), StoreError> {
        self.transport.ask(leader, "v3/maintenance/transfer-leadership", &json!({ "targetID": to.to_string() })).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_a_member() {
        let body = br#"{"header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437","revision":"1","raft_term":"2"},"version":"3.5.16","dbSize":"20480","leader":"10276657743932975437","raftIndex":"8","raftTerm":"2","raftAppliedIndex":"7","dbSizeInUse":"16384","errors":["NOSPACE"],"isLearner":true}"#;
        let health = status(body, true).unwrap();
        assert_eq!(
            (health.member, health.leader, health.cluster),
            (10_276_657_743_932_975_437, 10_276_657_743_932_975_437, 14_841_639_068_965_178_418)
        );
        assert_eq!((health.raft_index, health.raft_applied, health.learner), (8, 7, true));
        assert_eq!(health.errors, ["NOSPACE"]);
        assert!(says_healthy(br#"{"health":"true","reason":""}"#) && !says_healthy(br#"{"health":"false"}"#) && !says_healthy(b"ok"));
    }
}
