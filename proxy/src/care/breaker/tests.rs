//! The breaker under a simulated clock: when it opens, that one call at a time tries, and that rests grow.

use super::*;

const RULES: Rules = Rules {
    failures: 5,
    least_success: 50,
    least_calls: 10,
    rest_ms: 10_000,
    most_rest_ms: 300_000,
    closing: 3,
};

fn fail(breaker: &mut Breaker, now_ms: i64) -> Failure {
    let Some(entry) = breaker.enter(now_ms) else {
        return Failure::Rests;
    };
    let failure = breaker.failed(entry, now_ms, 0, &RULES);
    if failure == Failure::Trips {
        assert!(breaker.open(now_ms, 0, &RULES));
    }
    failure
}

fn succeed(breaker: &mut Breaker, now_ms: i64) {
    let entry = breaker.enter(now_ms).unwrap();
    breaker.succeeded(entry, now_ms, &RULES);
}

#[test]
fn five_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
    let mut breaker = Breaker::default();
    for _ in 0..4 {
        fail(&mut breaker, 0);
    }
    succeed(&mut breaker, 0);
    for _ in 0..4 {
        assert_eq!(fail(&mut breaker, 0), Failure::Counted);
    }
    assert!(breaker.is_usable(0));
    assert_eq!(fail(&mut breaker, 0), Failure::Trips);
    assert!(!breaker.is_usable(9_999) && breaker.is_usable(10_000));
}

/// Every second call fails, and then one more: never two in a row until then.
#[test]
fn fewer_successes_than_half_of_ten_calls_open_it() {
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        succeed(&mut breaker, 500);
        assert_eq!(fail(&mut breaker, 500), Failure::Counted);
    }
    assert_eq!(fail(&mut breaker, 500), Failure::Trips);
    // What is older than the window does not count.
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        succeed(&mut breaker, 500);
        fail(&mut breaker, 500);
    }
    assert_eq!(fail(&mut breaker, 10_500), Failure::Counted);
}

#[test]
fn one_call_at_a_time_tries_and_three_successes_close_it() {
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        fail(&mut breaker, 0);
    }
    assert_eq!(breaker.enter(9_999), None);
    let first = breaker.enter(10_000).unwrap();
    assert!(matches!(first, Entry::Probe(_)));
    assert_eq!(breaker.enter(10_000), None, "another one is trying");
    // Its caller leaves: nothing is known, and the next may try.
    breaker.left(first);
    for _ in 0..3 {
        assert!(!breaker.is_closed());
        succeed(&mut breaker, 10_001);
    }
    assert!(breaker.is_closed());
    // A call from before that ends only now says nothing.
    breaker.left(first);
    assert!(breaker.is_closed());
}

#[test]
fn rests_grow_up_to_the_most_and_are_forgotten_while_all_is_well() {
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        fail(&mut breaker, 0);
    }
    let mut now = 0;
    for rest in [10_000, 20_000, 30_000] {
        assert_eq!(breaker.until_ms() - now, rest);
        now += rest;
        assert_eq!(fail(&mut breaker, now), Failure::Rests);
    }
    for _ in 0..60 {
        now = breaker.until_ms();
        fail(&mut breaker, now);
    }
    assert_eq!(breaker.until_ms() - now, 300_000);
    now = breaker.until_ms();
    for _ in 0..3 {
        succeed(&mut breaker, now);
    }
    now += 3_600_000;
    for _ in 0..5 {
        fail(&mut breaker, now);
    }
    assert_eq!(breaker.until_ms() - now, 10_000);
}

#[test]
fn calls_that_nobody_better_could_take_close_it_too() {
    let mut breaker = Breaker::default();
    for _ in 0..5 {
        fail(&mut breaker, 0);
    }
    for _ in 0..2 {
        breaker.succeeded(Entry::Panic, 1, &RULES);
    }
    breaker.failed(Entry::Panic, 1, 0, &RULES);
    // What was under way when it opened shows how it was.
    breaker.succeeded(Entry::Through, 1, &RULES);
    assert!(!breaker.is_closed());
    breaker.succeeded(Entry::Panic, 1, &RULES);
    assert!(breaker.is_closed());
}

/// Any order of calls, endings and times: never two probes under way, and none before its time.
#[test]
fn no_course_of_events_lets_two_probes_through() {
    let mut seed = 7_u64;
    let mut luck = |bound: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for _ in 0..200 {
        let mut breaker = Breaker::default();
        let (mut now, mut under_way, mut probes) = (0, Vec::new(), 0);
        for _ in 0..400 {
            now += i64::try_from(luck(3_000)).unwrap();
            if luck(2) == 0 {
                let was = breaker.until_ms();
                let entry = breaker
                    .enter(now)
                    .or((luck(9) == 0).then_some(Entry::Panic));
                if let Some(Entry::Probe(_)) = entry {
                    assert!(was <= now, "{was} {now}");
                    probes += 1;
                }
                under_way.extend(entry);
                let trying = under_way.iter().filter(|it| {
                    matches!((breaker.state, it), (State::HalfOpen { probe: Some(a) }, Entry::Probe(b)) if a == *b)
                });
                assert!(trying.count() <= 1);
            } else if !under_way.is_empty() {
                let at = usize::try_from(luck(under_way.len() as u64)).unwrap();
                let entry = under_way.swap_remove(at);
                match luck(4) {
                    0 => breaker.succeeded(entry, now, &RULES),
                    1 => breaker.left(entry),
                    _ => {
                        if breaker.failed(entry, now, luck(1_024), &RULES) == Failure::Trips {
                            breaker.open(now, luck(1_024), &RULES);
                        }
                    }
                }
            }
        }
        assert!(probes > 0 || breaker.rests == 0);
    }
}
