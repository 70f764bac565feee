//! Three members and hosts that lock and unlock all the time, while members are killed, cut off and frozen, their disks are slow, and the hosts'
//! clocks jump. (The clocks of members jump where there are machines: `qemu-tests`.)

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::hosts::{Hosts, WAITER_TTL};
use super::lab::Lab;
use super::run;

/// Half a day: more than any lease.
const JUMP: i64 = 12 * 3600;

fn sweep(rounds: usize) {
    let Some(mut lab) = Lab::new(3, "http", &[]) else { return };
    run(async {
        lab.start_all().await;
        let hosts = Hosts::start(&lab, None).await;
        for round in 0..rounds {
            for fault in 0..4 {
                let member = (round + fault) % 3;
                match fault {
                    0 => lab.kill(member),
                    1 | 3 => lab.cut(member, true),
                    _ => lab.freeze(member, true),
                }
                tokio::time::sleep(Duration::from_millis(1500)).await;
                hosts.progress("with a member away").await;
                match fault {
                    0 => lab.start(member),
                    1 | 3 => lab.cut(member, false),
                    _ => lab.freeze(member, false),
                }
                lab.works().await;
            }
            // Two members away: nobody can lock. Then both are back.
            lab.cut(0, true);
            lab.kill(1);
            hosts.say_that_etcd_fails().await;
            lab.cut(0, false);
            lab.start(1);
            lab.works().await;
            hosts.progress("after an outage").await;
        }
        hosts.finish().await;
    });
}

/// With locks that expire, whose leases go through the same disks.
fn slow_disks(rounds: usize) {
    let Some(mut lab) = Lab::new(3, "http", &[]) else { return };
    run(async {
        lab.start_all().await;
        let hosts = Hosts::start(&lab, Some(Duration::from_secs(120))).await;
        for round in 0..rounds {
            // One disk that takes longer than a leader may be silent: if it is the leader's, another has to lead.
            lab.slow_disk(round % 3, Some(Duration::from_secs(2)));
            tokio::time::sleep(Duration::from_millis(1500)).await;
            hosts.progress("with one slow disk").await;
            // Every disk slow, none too slow.
            for member in 0..3 {
                lab.slow_disk(member, Some(Duration::from_millis(100)));
            }
            hosts.progress("with slow disks").await;
            // Two that hang for longer than anybody waits for an answer.
            lab.slow_disk(0, None);
            for member in 1..3 {
                lab.slow_disk(member, Some(Duration::from_secs(60)));
            }
            hosts.say_that_etcd_fails().await;
            for member in 1..3 {
                lab.slow_disk(member, None);
            }
            hosts.progress("after disks that hung").await;
        }
        hosts.finish().await;
    });
}

/// The clocks of half of the hosts go forth and those of the others back, by more than the locks and the places in the queue last.
fn jumping_clocks() {
    let Some(mut lab) = Lab::new(3, "http", &[]) else { return };
    run(async {
        lab.start_all().await;
        let hosts = Hosts::start(&lab, Some(Duration::from_secs(60))).await;
        for jump in [JUMP, -JUMP, 0] {
            hosts.jump(jump);
            // So long that every place in the queue has to be renewed.
            tokio::time::sleep(WAITER_TTL + Duration::from_secs(1)).await;
            hosts.progress("after a jump").await;
        }
        let trail = hosts.finish().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let far = JUMP.unsigned_abs() / 2;
        assert!(trail.iter().any(|record| record.time > now + far), "nobody's clock was fast");
        assert!(trail.iter().any(|record| record.time < now - far), "nobody's clock was slow");
    });
}

#[test]
fn hosts_and_members_that_fail_lose_no_lock_and_give_none_away_twice() {
    sweep(1);
}

#[test]
fn slow_disks_lose_no_lock_and_give_none_away_twice() {
    slow_disks(1);
}

#[test]
fn clocks_of_hosts_that_jump_lose_no_lock_and_give_none_away_twice() {
    jumping_clocks();
}

#[test]
#[ignore = "minutes: scripts/test-long locks"]
fn ten_rounds_of_faults() {
    sweep(10);
}

#[test]
#[ignore = "minutes: scripts/test-long locks"]
fn ten_rounds_of_slow_disks() {
    slow_disks(10);
}
