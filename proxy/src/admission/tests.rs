//! The door: places are never more than there are, those who wait get them in a fair order, and nobody is
//! shut out for good.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;

fn door(text: &str) -> Arc<Admission> {
    Arc::new(Admission::new(&toml::from_str(text).unwrap()))
}

/// Asks for a place as often as `tenants` says; tells who got one at once, and who waits.
macro_rules! ask {
    ($door:expr, $tenant:expr, $priority:expr) => {
        Box::pin({
            let (door, tenant) = (Arc::clone(&$door), Arc::from($tenant));
            async move { door.admit(&tenant, $priority).await }
        })
    };
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn who_finds_no_place_waits_for_one_and_not_for_ever() {
    let door = door("limits.in_flight = 2\noverload.queue = 1\noverload.queue_ms = 50");
    let first = ask!(door, "acme", None).await.unwrap();
    let _second = ask!(door, "acme", None).await.unwrap();
    let mut third = ask!(door, "acme", None);
    assert!(poll(third.as_mut()).is_pending());
    let fourth = ask!(door, "acme", None).await.unwrap_err();
    assert_eq!((fourth.status, fourth.code), (503, "overloaded"));
    assert!(
        fourth
            .retry_after_s
            .is_some_and(|seconds| (1..=3).contains(&seconds))
    );
    drop(first);
    let third = third.await.unwrap();
    assert_eq!(door.taken(), 2);
    let before = Instant::now();
    assert!(ask!(door, "acme", None).await.is_err());
    assert!(before.elapsed() >= Duration::from_millis(50));
    drop(third);
    assert_eq!(door.taken(), 1, "who left the line gets nothing");
    assert!(door.line.is_empty());
    assert!(ask!(door, "acme", None).await.is_ok());
}

#[tokio::test]
async fn the_less_urgent_leave_places_to_the_more_urgent() {
    let door = door(
        "limits.in_flight = 10\noverload.batch_percent = 50\noverload.best_effort_percent = 20\n\
         overload.queue_ms = 0\n[[overload.share]]\ntenant = \"night*\"\npriority = \"batch\"",
    );
    let best = Some(Priority::BestEffort);
    let mut taken = Vec::new();
    for (tenant, asked, places) in [
        ("acme", best, 2),
        ("nightly", None, 5),
        ("nightly", Some(Priority::Interactive), 5),
        ("acme", Some(Priority::Batch), 5),
        ("acme", None, 10),
    ] {
        while let Ok(flight) = ask!(door, tenant, asked).await {
            taken.push(flight);
        }
        assert_eq!(door.taken(), places, "{tenant} {asked:?}");
    }
}

#[tokio::test]
async fn the_most_urgent_and_then_who_has_least_are_called_first() {
    let door = door("limits.in_flight = 4\n[[overload.share]]\ntenant = \"heavy\"\nweight = 3");
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(ask!(door, "heavy", None).await.unwrap());
    }
    let mut batch = ask!(door, "light", Some(Priority::Batch));
    assert!(poll(batch.as_mut()).is_pending());
    let mut more = ask!(door, "heavy", None);
    assert!(poll(more.as_mut()).is_pending());
    let mut light = ask!(door, "light", None);
    assert!(poll(light.as_mut()).is_pending());
    held.pop();
    let Poll::Ready(Ok(light)) = poll(light.as_mut()) else {
        panic!("who has nothing goes first");
    };
    assert!(poll(more.as_mut()).is_pending());
    held.pop();
    let Poll::Ready(Ok(_more)) = poll(more.as_mut()) else {
        panic!("2 of weight 3 are less than 1 of weight 1");
    };
    drop(light);
    assert!(
        poll(batch.as_mut()).is_pending(),
        "three of four places are taken"
    );
    held.pop();
    assert!(poll(batch.as_mut()).is_ready());
}

#[tokio::test]
async fn a_full_line_gives_way_to_who_waits_less() {
    let door = door("limits.in_flight = 1\noverload.queue = 3");
    let held = ask!(door, "heavy", None).await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| ask!(door, "heavy", None)).collect();
    for one in &mut waiting {
        assert!(poll(one.as_mut()).is_pending());
    }
    let mut light = ask!(door, "light", None);
    assert!(poll(light.as_mut()).is_pending());
    let newest = waiting.pop().unwrap();
    assert!(newest.await.is_err(), "the newest of the longest gives way");
    assert!(ask!(door, "heavy", None).await.is_err());
    assert!(ask!(door, "other", Some(Priority::Batch)).await.is_err());
    drop(held);
    let Poll::Ready(Ok(oldest)) = poll(waiting[0].as_mut()) else {
        panic!("of two who have nothing it has waited longer");
    };
    drop(oldest);
    assert!(poll(waiting[1].as_mut()).is_pending());
    assert!(poll(light.as_mut()).is_ready(), "they take turns");
}

#[tokio::test]
async fn who_comes_too_often_is_told_soon_and_others_have_their_time() {
    let door = door("limits.in_flight = 1\noverload.queue = 8\noverload.queue_ms = 60000");
    let held = ask!(door, "heavy", None).await.unwrap();
    let mut first = ask!(door, "heavy", None);
    assert!(poll(first.as_mut()).is_pending());
    tokio::time::sleep(Duration::from_millis(110)).await;
    assert!(ask!(door, "heavy", None).await.is_err());
    let mut light = ask!(door, "light", None);
    assert!(poll(light.as_mut()).is_pending());
    tokio::time::sleep(Duration::from_millis(30)).await;
    drop(first);
    drop(held);
    assert!(poll(light.as_mut()).is_ready(), "it has waited on");
}

/// A thousand times whoever comes, waits, leaves and ends: no place is lost, and none is given twice.
#[tokio::test]
async fn no_place_is_lost_whatever_callers_do() {
    let door = door("limits.in_flight = 7\noverload.queue = 5\noverload.queue_ms = 2");
    let mut random = 42_u64;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % below
    };
    let (mut waiting, mut held) = (Vec::new(), Vec::new());
    for _ in 0..4_000 {
        match next(6) {
            0..=2 => {
                let tenant = ["a", "b", "c"][usize::try_from(next(3)).unwrap()];
                let rank = usize::try_from(next(3)).unwrap();
                let mut one = ask!(door, tenant, Some(Priority::ALL[rank]));
                match poll(one.as_mut()) {
                    Poll::Ready(Ok(flight)) => held.push(flight),
                    Poll::Ready(Err(_)) => {}
                    Poll::Pending => waiting.push(one),
                }
            }
            3 if !held.is_empty() => drop(held.swap_remove(0)),
            4 if !waiting.is_empty() => drop(waiting.swap_remove(0)),
            _ if next(20) == 0 => tokio::time::sleep(Duration::from_millis(next(3))).await,
            _ => {}
        }
        waiting.retain_mut(|one| match poll(one.as_mut()) {
            Poll::Ready(Ok(flight)) => {
                held.push(flight);
                false
            }
            Poll::Ready(Err(_)) => false,
            Poll::Pending => true,
        });
        assert!(held.len() <= 7);
        assert_eq!(door.taken(), held.len());
    }
    drop((waiting, held));
    assert_eq!(door.taken(), 0);
    assert!(door.line.is_empty());
}

#[tokio::test]
async fn under_pressure_each_tenant_keeps_its_part_of_what_gets_done() {
    let door = door("");
    let mut flights = Vec::new();
    for tenant in ["heavy"; 90].into_iter().chain(["light"; 10]) {
        flights.push(ask!(door, tenant, None).await.unwrap());
    }
    drop(flights);
    door.turn();
    // A hundred got done for two tenants; a tenth less is shared out.
    assert_eq!(door.gauge.part(1), 45);
    door.gauge.late(0, Duration::from_millis(500));
    let let_in = |tenant: &str, count: usize| {
        let asked =
            (0..count).filter(|_| matches!(poll(ask!(door, tenant, None)), Poll::Ready(Ok(_))));
        asked.count()
    };
    assert_eq!((let_in("light", 10), let_in("heavy", 900)), (10, 45));
    let batch = ask!(door, "light", Some(Priority::Batch))
        .await
        .unwrap_err();
    assert!(
        batch.message.contains("more comes than"),
        "{}",
        batch.message
    );
    door.gauge.late(0, Duration::from_millis(450));
    assert_eq!(let_in("heavy", 10), 10);
    assert!(ask!(door, "light", Some(Priority::Batch)).await.is_err());
    // Nothing gets done: the door stays open by a crack.
    door.gauge.late(0, Duration::from_secs(10));
    door.turn();
    door.turn();
    assert_eq!(let_in("heavy", 10), 1);
}

#[tokio::test]
async fn bodies_have_no_more_than_their_room() {
    let room = Room::new(&toml::from_str("bodies_mb = 1\nqueue_ms = 10").unwrap());
    let mut small = Taken::default();
    assert!(room.fits(&mut small, 10_000).await);
    assert_eq!(room.taken(), 0, "small ones are not counted");
    let mut first = Taken::default();
    assert!(room.fits(&mut first, 100_000).await);
    assert!(room.fits(&mut first, 700_000).await, "it grows");
    let mut second = Taken::default();
    assert!(!room.fits(&mut second, 700_000).await);
    let mut third = Taken::default();
    let mut waiting = Box::pin(room.fits(&mut third, 700_000));
    assert!(poll(waiting.as_mut()).is_pending());
    drop(first);
    assert!(waiting.await);
    drop(third);
    assert!(
        room.fits(&mut second, 99_000_000).await,
        "one that is larger than all gets all"
    );
    drop(second);
    assert_eq!(room.taken(), 0);
}
