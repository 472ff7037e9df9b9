//! Proves when schedules come: patterns, both changes of clocks, jitter, missed times, and that no due
//! time ever comes twice, for patterns and zones drawn at random.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schedule(cron: &str, zone: &str) -> Schedule {
    let value = json!({ "id": "s", "cron": cron, "zone": zone, "brief": { "objective": "x" } });
    serde_json::from_value(value).unwrap()
}

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn shown(times: &[i64]) -> Vec<String> {
    let shown = |time: &i64| Timestamp::from_millisecond(*time).unwrap().to_string();
    times.iter().map(shown).collect()
}

#[track_caller]
fn check(cron: &str, zone: &str, from: &str, until: &str, wanted: &[&str]) {
    let times = due(&schedule(cron, zone), ms(from), ms(until));
    assert_eq!(shown(&times), wanted, "{cron} in {zone}");
}

#[test]
fn patterns_mean_what_every_cron_means() {
    let from = "2026-11-20T00:00:00Z"; // A Friday.
    let check = |cron: &str, until: &str, wanted: &[&str]| check(cron, "UTC", from, until, wanted);
    check(
        "*/20 9-10 * * *",
        "2026-11-20T10:30:00Z",
        &[
            "2026-11-20T09:00:00Z",
            "2026-11-20T09:20:00Z",
            "2026-11-20T09:40:00Z",
            "2026-11-20T10:00:00Z",
            "2026-11-20T10:20:00Z",
        ],
    );
    let weekend = ["2026-11-21T08:05:00Z", "2026-11-22T08:05:00Z"];
    for cron in ["5 8 * * sat,SUN", "5 8 * * 6-7", "5 8 * * 0,6"] {
        check(cron, "2026-11-27T00:00:00Z", &weekend);
    }
    // Either day counts where both are narrowed; both must fit where one is not.
    let either = ["2026-11-23T00:00:00Z", "2026-11-25T00:00:00Z"];
    check("0 0 25 * mon", "2026-11-26T00:00:00Z", &either);
    check("0 0 */5 * mon", "2026-12-01T00:00:00Z", &[]);
    let minutes = ["2026-12-01T00:40:00Z", "2026-12-01T00:55:00Z"];
    check("40/15 0 1 dec *", "2027-01-01T00:00:00Z", &minutes);
    check(
        "@monthly",
        "2026-12-30T00:00:00Z",
        &["2026-12-01T00:00:00Z"],
    );
    check(
        "0 0 29 2 *",
        "2029-01-01T00:00:00Z",
        &["2028-02-29T00:00:00Z"],
    );
    // The moment itself is not behind itself; the end belongs to what is asked for.
    check(
        "0 0 * * *",
        "2026-11-21T00:00:00Z",
        &["2026-11-21T00:00:00Z"],
    );
}

#[test]
fn a_time_that_clocks_leave_out_comes_at_the_next_moment_once() {
    // 02:00 becomes 03:00 at 01:00 UTC on the 28th of March 2027.
    let (from, until) = ("2027-03-27T12:00:00Z", "2027-03-29T12:00:00Z");
    let days = ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"];
    check("30 2 * * *", "Europe/Berlin", from, until, &days);
    let dozen = due(
        &schedule("*/10 2 * * *", "Europe/Berlin"),
        ms(from),
        ms("2027-03-28T12:00:00Z"),
    );
    assert_eq!(shown(&dozen), ["2027-03-28T01:00:00Z"]);
    // Three o'clock is there anyway and comes no second time.
    let both = [
        "2027-03-28T01:00:00Z",
        "2027-03-29T00:00:00Z",
        "2027-03-29T01:00:00Z",
    ];
    check("0 2,3 * * *", "Europe/Berlin", from, until, &both);
    // Every hour is an hour apart.
    let hours = ["2027-03-28T00:30:00Z", "2027-03-28T01:30:00Z"];
    let (from, until) = ("2027-03-28T00:00:00Z", "2027-03-28T02:00:00Z");
    check("30 * * * *", "Europe/Berlin", from, until, &hours);
}

#[test]
fn a_time_that_clocks_show_twice_comes_at_the_first() {
    // 03:00 becomes 02:00 at 01:00 UTC on the 31st of October 2027.
    let (from, until) = ("2027-10-30T12:00:00Z", "2027-11-01T12:00:00Z");
    let days = ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"];
    check("30 2 * * *", "Europe/Berlin", from, until, &days);
    let hours = [
        "2027-10-31T00:30:00Z",
        "2027-10-31T01:30:00Z",
        "2027-10-31T02:30:00Z",
    ];
    let (from, until) = ("2027-10-31T00:00:00Z", "2027-10-31T03:00:00Z");
    check("30 * * * *", "Europe/Berlin", from, until, &hours);
}

#[test]
fn a_day_that_a_zone_left_out_comes_with_the_next() {
    // Samoa had no 30th of December in 2011.
    let (from, until) = ("2011-12-29T20:00:00Z", "2012-01-01T00:00:00Z");
    let days = [
        "2011-12-30T10:00:00Z",
        "2011-12-30T19:00:00Z",
        "2011-12-31T19:00:00Z",
    ];
    check("0 9 * * *", "Pacific/Apia", from, until, &days);
}

#[test]
fn what_can_not_be_followed_is_said_in_words() {
    type Change = fn(&mut Schedule);
    let cases: [(Change, &str); 15] = [
        (|s| s.id = "a b".into(), "schedule: "),
        (|s| s.id = String::new(), "schedule: "),
        (
            |s| s.cron = "* * * *".into(),
            "cron: `* * * *` has 4 fields",
        ),
        (|s| s.cron = "60 * * * *".into(), "cron: `60` is no minute"),
        (
            |s| s.cron = "* * * * 8".into(),
            "cron: `8` is no day of the week",
        ),
        (|s| s.cron = "* 5-2 * * *".into(), "cron: `5-2` is no hour"),
        (
            |s| s.cron = "*/0 * * * *".into(),
            "cron: `*/0` is no minute",
        ),
        (|s| s.cron = "+5 * * * *".into(), "cron: `+5` is no minute"),
        (
            |s| s.cron = "0 0 31 feb,apr *".into(),
            "cron: `0 0 31 feb,apr *` never comes",
        ),
        (|s| s.zone = "Europe/Atlantis".into(), "zone: "),
        (|s| s.jitter_s = 86_401, "jitter_s: "),
        (|s| s.missed = Missed::All { most: 0 }, "missed: "),
        (
            |s| s.spend_per_period_usd = Some("1e3".into()),
            "spend_per_period_usd: ",
        ),
        (
            |s| s.pause_after_failures = Some(0),
            "pause_after_failures: ",
        ),
        (|s| s.brief = json!({ "objective": "" }), "brief: "),
    ];
    for (change, words) in cases {
        let mut wrong = schedule("0 7 * * 1-5", "Europe/Berlin");
        assert_eq!(wrong.check(), Ok(()));
        change(&mut wrong);
        let error = wrong.check().unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
    // What can not be followed never fires, rather than to stop whoever asks.
    assert!(due(&schedule("x", "UTC"), 0, i64::MAX).is_empty());
    assert_eq!(next(&schedule("0 0 30 2 *", "UTC"), 0), None);
    assert_eq!(next(&schedule("* * * * *", "UTC"), i64::MAX), None);
}

#[test]
fn a_leap_day_on_a_weekday_is_found_however_far() {
    // A leap day both in February and, since both are narrowed, on any Monday of February.
    let mut far = schedule("0 0 29 2 *", "UTC");
    assert_eq!(far.check(), Ok(()));
    far.cron = "0 0 29 2 */7".into();
    let next = next(&far, ms("2005-01-01T00:00:00Z")).unwrap();
    assert_eq!(shown(&[next]), ["2032-02-29T00:00:00Z"], "a Sunday");
}

fn dues(fires: &[Fire]) -> Vec<String> {
    shown(&fires.iter().map(|fire| fire.due_ms).collect::<Vec<_>>())
}

#[test]
fn missed_times_are_skipped_made_up_for_once_or_counted() {
    let mut daily = schedule("0 7 * * *", "UTC");
    let (last, now) = (ms("2026-11-01T07:00:00Z"), ms("2026-11-05T09:00:00Z"));
    daily.missed = Missed::Skip;
    assert!(fires(&daily, last, now).is_empty());
    daily.missed = Missed::Once;
    assert_eq!(dues(&fires(&daily, last, now)), ["2026-11-05T07:00:00Z"]);
    daily.missed = Missed::All { most: 2 };
    let two = ["2026-11-04T07:00:00Z", "2026-11-05T07:00:00Z"];
    assert_eq!(dues(&fires(&daily, last, now)), two);
    daily.missed = Missed::All { most: 9 };
    assert_eq!(fires(&daily, last, now).len(), 4);
    // On time there is nothing to make up for, whatever the policy.
    let now = ms("2026-11-02T07:00:01Z");
    for missed in [Missed::Skip, Missed::Once, Missed::All { most: 1 }] {
        daily.missed = missed;
        let fires = fires(&daily, last, now);
        assert_eq!(dues(&fires), ["2026-11-02T07:00:00Z"], "{missed:?}");
        assert!(!fires[0].late);
    }
    daily.enabled = false;
    assert!(fires(&daily, last, now).is_empty());
}

#[test]
fn years_of_missed_minutes_are_made_up_for_at_once() {
    let mut minutes = schedule("* * * * *", "Europe/Berlin");
    let (last, now) = (ms("2000-01-01T00:00:00Z"), ms("2026-11-05T09:00:30Z"));
    minutes.missed = Missed::All { most: 100 };
    assert_eq!(fires(&minutes, last, now).len(), 101, "and one on time");
    minutes.missed = Missed::Once;
    assert_eq!(dues(&fires(&minutes, last, now)), ["2026-11-05T09:00:00Z"]);
    assert_eq!(due(&minutes, last, now).len(), MOST_DUE);
}

#[test]
fn failures_behind_one_another_disable_it() {
    let mut paused = schedule("@daily", "UTC");
    paused.pause_after_failures = Some(2);
    let ended: Vec<bool> = [false, true, false, false, false]
        .map(|succeeded| paused.ended(succeeded))
        .into();
    assert_eq!(ended, [false, false, false, true, false], "told once");
    assert!(!paused.enabled && paused.failures == 3);
}

#[test]
fn periods_begin_in_the_zone_of_the_schedule() {
    let mut berlin = schedule("@daily", "Europe/Berlin");
    let at = ms("2026-11-04T23:30:00Z"); // Thursday there.
    for (period, start) in [
        (Period::Day, "2026-11-04T23:00:00Z"),
        (Period::Week, "2026-11-01T23:00:00Z"),
        (Period::Month, "2026-10-31T23:00:00Z"),
    ] {
        berlin.period = period;
        assert_eq!(berlin.period_start_ms(at), Some(ms(start)), "{period:?}");
    }
}

#[test]
fn it_is_written_as_it_is_read() {
    let written = json!({ "id": "s", "cron": "0 7 * * 1-5", "zone": "Europe/Berlin", "jitter_s": 60,
        "brief": { "objective": "x" }, "missed": { "all": { "most": 3 } }, "overlap": "queue",
        "spend_per_period_usd": "5.00", "period": "week", "pause_after_failures": 3,
        "enabled": true, "last_due_ms": 5, "failures": 1 });
    let read: Schedule = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), written);
    let unknown = json!({ "id": "s", "cron": "@daily", "brief": {}, "often": 1 });
    assert!(serde_json::from_value::<Schedule>(unknown).is_err());
}

const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Santiago",
];

fn field(most: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        (0..=most).prop_map(|n| n.to_string()),
        (1..=30_u8).prop_map(|step| format!("*/{step}")),
        (0..=most, 0..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ]
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let missed = prop_oneof![
        Just(Missed::Skip),
        Just(Missed::Once),
        (1..=20_u32).prop_map(|most| Missed::All { most })
    ];
    let week = prop_oneof![Just("*".to_owned()), Just("1-5".to_owned())];
    (
        field(59),
        field(23),
        week,
        0..ZONES.len(),
        0..=7_200_u32,
        missed,
    )
        .prop_map(|(minute, hour, week, zone, jitter_s, missed)| Schedule {
            jitter_s,
            missed,
            ..schedule(&format!("{minute} {hour} * * {week}"), ZONES[zone])
        })
}

/// Two years, with four changes of clocks in most zones.
const SPAN: std::ops::Range<i64> = 1_767_225_600_000..1_830_297_600_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn due_times_increase_and_do_not_depend_on_where_one_begins(
        schedule in any_schedule(), from in SPAN, hours in 1..2_000_i64, cut in 0..100_i64,
    ) {
        let until = from + hours * 3_600_000;
        let whole = due(&schedule, from, until);
        prop_assert!(whole.is_sorted_by(|a, b| a < b));
        prop_assert!(whole.iter().all(|at| *at > from && *at <= until && at % 60_000 == 0));
        prop_assert_eq!(whole.first().copied(), next(&schedule, from).filter(|at| *at <= until));
        if whole.len() < MOST_DUE {
            let middle = from + (until - from) / 100 * cut;
            let mut parts = due(&schedule, from, middle);
            parts.extend(due(&schedule, middle, until));
            prop_assert_eq!(whole, parts);
        }
    }

    #[test]
    fn no_wall_clock_time_comes_twice_unless_each_hour_does(
        schedule in any_schedule(), from in SPAN,
    ) {
        let cron = Cron::parse(&schedule.cron).unwrap();
        let zone = TimeZone::get(&schedule.zone).unwrap();
        let local = |at: &i64| zone.to_datetime(Timestamp::from_millisecond(*at).unwrap());
        let times = due(&schedule, from, from + 40 * DAY_MS);
        let mut clocks: Vec<_> = times.iter().map(local).collect();
        for clock in &clocks {
            // Right behind a gap, anything may come that was left out.
            let before = zone.preceding(zone.to_timestamp(*clock).unwrap() + 1.millisecond()).next();
            let behind_gap = before.is_some_and(|change| zone.to_datetime(change.timestamp()) == *clock);
            let fits = cron.has_day(clock.date())
                && cron.times().any(|time| time == (clock.hour(), clock.minute()));
            prop_assert!(fits || behind_gap, "{clock}");
        }
        if !cron.is_hourly() {
            let all = clocks.len();
            clocks.sort();
            clocks.dedup();
            prop_assert_eq!(clocks.len(), all);
        }
    }

    #[test]
    fn whoever_looks_and_however_often_each_fire_comes_once_and_by_its_policy(
        schedule in any_schedule(), from in SPAN, steps in prop::collection::vec(1..400_i64, 1..30),
    ) {
        let (mut last, mut now, mut seen) = (from, from, std::collections::HashSet::new());
        for minutes in steps {
            let before = now;
            now += minutes * 20_000 + minutes % 7;
            let found = fires(&schedule, last, now);
            prop_assert_eq!(&found, &fires(&schedule, last, now));
            for fire in &found {
                prop_assert!(seen.insert(fire.id), "twice");
                prop_assert!(fire.due_ms > last && fire.at_ms >= fire.due_ms && fire.at_ms <= now);
                prop_assert!(fire.at_ms - fire.due_ms <= i64::from(schedule.jitter_s) * 1_000);
                prop_assert!(next(&schedule, fire.due_ms).is_none_or(|next| fire.at_ms < next));
                prop_assert_eq!(fire.id, fire_id("s", fire.due_ms));
                prop_assert_eq!(upcoming(&schedule, fire.due_ms - 1).map(|it| it.at_ms), Some(fire.at_ms));
                last = fire.due_ms;
            }
            // A node that looks often enough misses nothing, whatever the policy.
            if now - before < LATE_MS && matches!(schedule.missed, Missed::All { .. }) {
                let missed = due(&schedule, last, now);
                let come = missed.iter().filter_map(|due| upcoming(&schedule, due - 1));
                prop_assert_eq!(come.filter(|fire| fire.at_ms <= now).count(), 0);
            }
        }
    }

    #[test]
    fn policies_keep_the_right_number(schedule in any_schedule(), from in SPAN, hours in 1..72_i64) {
        let now = from + hours * 3_600_000 + 30_000;
        let all: Vec<Fire> = due(&schedule, from, now)
            .into_iter()
            .filter_map(|due| upcoming(&schedule, due - 1))
            .filter(|fire| fire.at_ms <= now)
            .collect();
        if all.len() >= MOST_DUE - 1 {
            return Ok(());
        }
        let late = all.iter().filter(|fire| now - fire.at_ms > LATE_MS).count();
        let on_time = all.len() - late;
        let wanted = match schedule.missed {
            Missed::Once if late > 0 => 1,
            Missed::Skip | Missed::Once => on_time,
            Missed::All { most } => on_time + late.min(usize::try_from(most).unwrap()),
        };
        let found = fires(&schedule, from, now);
        prop_assert_eq!(found.len(), wanted);
        let latest = &all[all.len() - wanted..];
        let plain = |fires: &[Fire]| fires.iter().map(|fire| fire.id).collect::<Vec<_>>();
        prop_assert_eq!(plain(&found), plain(latest));
    }
}
