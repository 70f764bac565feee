//! The quorum's guard, asked by hosts of a cluster of three.

use std::time::{Duration, Instant};

use reboot_lock::quorum::{Verdict, decide, prepare, survey};

use super::lab::Lab;
use super::run;

#[test]
fn a_member_goes_down_only_while_the_others_are_well_and_not_as_leader() {
    let Some(mut lab) = Lab::new(3, "http", &[]) else { return };
    run(async {
        lab.start_all().await;
        let etcd = lab.etcd();
        let local: Vec<url::Url> = (0..3).map(|member| lab.url(member).parse().unwrap()).collect();
        // All members need a moment to be there.
        settled(&etcd, &local[0]).await;
        let leader = etcd.health(&local[0]).await.unwrap().leader;
        let mut of_leader = None;
        for url in &local {
            if etcd.health(url).await.unwrap().member == leader {
                of_leader = Some(url.clone());
            }
        }
        let of_leader = of_leader.unwrap();
        assert!(matches!(decide(&survey(&etcd, Some(&of_leader)).await.unwrap()), Verdict::Allow { move_leader_to: Some(_), .. }));
        assert_eq!(prepare(&etcd, Some(&of_leader)).await.unwrap(), Verdict::Allow { move_leader_to: None, warning: None });
        assert_ne!(etcd.health(&of_leader).await.unwrap().leader, leader);
        assert_eq!(prepare(&etcd, None).await.unwrap(), Verdict::NotAMember);

        lab.kill(2);
        match prepare(&etcd, Some(&local[0])).await.unwrap() {
            Verdict::Refuse { why } => assert!(why.contains("etcd member m2 does not answer"), "{why}"),
            other => panic!("{other:?}"),
        }
        // The one that is down may be rebooted: it takes nothing away.
        assert!(matches!(prepare(&etcd, Some(&local[2])).await.unwrap(), Verdict::Allow { .. }));
        lab.start(2);
        settled(&etcd, &local[0]).await;
    });
}

/// Waits until a member may go down.
async fn settled(etcd: &reboot_lock::etcd::Etcd, local: &url::Url) {
    let begun = Instant::now();
    loop {
        match survey(etcd, Some(local)).await.map(|picture| decide(&picture)) {
            Ok(Verdict::Allow { .. }) => return,
            other => assert!(begun.elapsed() < Duration::from_secs(30), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
