//! Servers that break, lie, stall, or want to be left alone.

use disk_layout::SlotName;

use super::machine::{World, asked, borrowing_world, patched_world, similar_world, update, world};
use super::server::Behaviour;
use crate::crash::long;
use crate::slots::{Content, Slots};

#[tokio::test]
async fn bad_servers_each_have_their_name_and_change_nothing_that_boots() {
    let world = world().await;
    let cases = [
        ("redirects", Behaviour { redirect: true, ..Behaviour::default() }),
        ("length", Behaviour { page: Some("<html>no</html>"), ..Behaviour::default() }),
        ("http-status", Behaviour { status: Some((400, None, 99)), ..Behaviour::default() }),
        ("not-found", Behaviour { status: Some((404, None, 99)), ..Behaviour::default() }),
        ("server-busy", Behaviour { status: Some((429, Some(9999), 99)), ..Behaviour::default() }),
        ("server-busy", Behaviour { status: Some((503, Some(9999), 99)), ..Behaviour::default() }),
        ("length", Behaviour { lie: 5, ..Behaviour::default() }),
        ("payload-digest", Behaviour { flip: 99, ..Behaviour::default() }),
    ];
    for (kind, behaviour) in cases {
        world.server.behave(behaviour.clone());
        let error = update(&world).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{behaviour:?}: {error}");
        assert_eq!(world.machine.boots(), "1.0");
    }
    world.server.behave(Behaviour { status: Some((429, Some(9999), 99)), ..Behaviour::default() });
    let error = update(&world).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(9999));
    world.server.behave(Behaviour::default());
    assert_eq!(update(&world).await.unwrap().as_deref(), Some("1.1"));
}

#[tokio::test]
async fn metadata_that_does_not_come_has_names_too() {
    let world = world().await;
    let all = |behaviour: Behaviour| Behaviour { everything: true, ..behaviour };
    for (kind, behaviour) in [
        ("redirects", all(Behaviour { redirect: true, ..Behaviour::default() })),
        ("http-status", all(Behaviour { status: Some((500, None, 99)), ..Behaviour::default() })),
        ("stalled", all(Behaviour { stall_after: Some(10), ..Behaviour::default() })),
        ("dropped", all(Behaviour { drop_after: Some((10, 99)), ..Behaviour::default() })),
        ("metadata-syntax", all(Behaviour { page: Some("<html>no</html>"), ..Behaviour::default() })),
    ] {
        world.server.behave(behaviour);
        let mut agent = world.machine.agent(&world.server.url);
        let error = agent.update(&asked()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(Slots::read(world.machine.disk).unwrap().get(SlotName::B), &Content::Empty);
    }
}

#[tokio::test]
async fn servers_without_ranges_and_with_passing_faults_serve() {
    for behaviour in [
        Behaviour { no_ranges: true, ..Behaviour::default() },
        Behaviour { status: Some((503, Some(0), 2)), ..Behaviour::default() },
        Behaviour { flip: 1, ..Behaviour::default() },
        Behaviour { trickle: Some((997, 0)), ..Behaviour::default() },
        Behaviour { no_ranges: true, drop_after: Some((50_000, 1)), ..Behaviour::default() },
    ] {
        let world = world().await;
        world.server.behave(behaviour.clone());
        let result = update(&world).await;
        assert_eq!(result.unwrap().as_deref(), Some("1.1"), "{behaviour:?}");
        assert_eq!(world.machine.boots(), "1.1");
    }
}

/// Ends the line once at each percent of what an update fetches. No more than `twice` bytes may come again: what had come of the payload that
/// was cut, where that is not kept, and up to 4 KiB when a file is asked for anew from about its beginning.
async fn dropped_anywhere<F: Future<Output = World>>(twice: u64, world: impl Fn() -> F) {
    let first = world().await;
    first.server.behave(Behaviour::default());
    update(&first).await.unwrap();
    let whole = first.server.shared.lock().unwrap().sent;
    assert!(whole > 50_000, "{whole}");
    for percent in (0..100).step_by(if long() { 1 } else { 10 }) {
        let world = world().await;
        let at = whole * percent / 100;
        world.server.behave(Behaviour { drop_at: Some(at), ..Behaviour::default() });
        assert_eq!(update(&world).await.unwrap().as_deref(), Some("1.1"), "{percent} %");
        let (sent, left) = {
            let shared = world.server.shared.lock().unwrap();
            (shared.sent, shared.behaviour.drop_at)
        };
        assert_eq!(left, None, "{percent} %: the line did break");
        assert!(sent <= whole + twice, "{percent} %: {sent} of {whole}");
        assert_eq!(world.machine.boots(), "1.1");
    }
}

#[tokio::test]
async fn a_line_that_drops_at_every_percent_is_taken_up_where_it_broke() {
    // The largest payload is the file behind the gap.
    dropped_anywhere((4 + 48) * 1024, world).await;
}

#[tokio::test]
async fn a_line_that_drops_while_missing_chunks_come_is_taken_up_where_it_broke() {
    dropped_anywhere(256 * 1024, similar_world).await;
}

#[tokio::test]
async fn a_line_that_drops_while_a_patch_comes_is_taken_up_where_it_broke() {
    dropped_anywhere(4 * 1024, patched_world).await;
}

#[tokio::test]
async fn a_line_that_drops_while_a_borrowed_patch_comes_is_taken_up_where_it_broke() {
    dropped_anywhere(8 * 1024, borrowing_world).await;
}

#[tokio::test]
async fn a_file_that_changes_under_way_is_noticed() {
    let world = world().await;
    world.server.behave(Behaviour { drop_after: Some((100_000, 1)), other_size: true, ..Behaviour::default() });
    let error = update(&world).await.unwrap_err();
    assert_eq!(error.kind(), "range", "{error}");
    world.server.behave(Behaviour::default());
    assert_eq!(update(&world).await.unwrap().as_deref(), Some("1.1"), "and it goes on when the server is right again");
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let world = world().await;
    world.server.behave(Behaviour { everything: true, endless: true, ..Behaviour::default() });
    let error = update(&world).await.unwrap_err();
    assert_eq!(error.kind(), "metadata-too-large", "{error}");
    assert!(world.machine.disk.log.borrow().is_empty());
    // Of a pack no more is read than the index says.
    world.server.behave(Behaviour { endless: true, ..Behaviour::default() });
    assert_eq!(update(&world).await.unwrap().as_deref(), Some("1.1"));
}
