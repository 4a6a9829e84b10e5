use super::*;

fn at(text: &str) -> UnixMillis {
    let moment: Timestamp = text.parse().unwrap();
    UnixMillis(u64::try_from(moment.as_millisecond()).unwrap())
}

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text).unwrap()
}

#[track_caller]
fn open(text: &str, now: &str, until: &str) {
    assert_eq!(schedule(text).open_until(at(now)), Some(at(until)));
}

#[track_caller]
fn shut(text: &str, now: &str, opens: &str) {
    let schedule = schedule(text);
    assert_eq!(schedule.open_until(at(now)), None);
    assert_eq!(schedule.next_change(at(now)), Some(at(opens)));
}

const OFFICE: &str = "Mon-Fri 08:00-19:00 Europe/Berlin";

#[test]
fn a_window_holds_from_its_first_moment_to_before_its_last() {
    // 2026-11-23 is a Monday; Berlin is one hour ahead of UTC.
    shut(OFFICE, "2026-11-23T06:59:59.999Z", "2026-11-23T07:00:00Z");
    open(OFFICE, "2026-11-23T07:00:00Z", "2026-11-23T18:00:00Z");
    open(OFFICE, "2026-11-23T17:59:59.999Z", "2026-11-23T18:00:00Z");
    shut(OFFICE, "2026-11-23T18:00:00Z", "2026-11-24T07:00:00Z");
    shut(OFFICE, "2026-11-27T18:00:00Z", "2026-11-30T07:00:00Z");
}

#[test]
fn summer_time_moves_the_window() {
    open(OFFICE, "2026-07-01T06:00:00Z", "2026-07-01T17:00:00Z");
    shut(OFFICE, "2026-07-01T05:59:59Z", "2026-07-01T06:00:00Z");
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_it_opens() {
    let night = "Fri 22:00-06:00 UTC";
    open(night, "2026-11-27T22:00:00Z", "2026-11-28T06:00:00Z");
    open(night, "2026-11-28T05:59:00Z", "2026-11-28T06:00:00Z");
    shut(night, "2026-11-27T05:00:00Z", "2026-11-27T22:00:00Z");
    shut(night, "2026-11-28T22:00:00Z", "2026-12-04T22:00:00Z");
}

#[test]
fn windows_that_touch_are_one() {
    open(
        "Mon-Fri 00:00-24:00 UTC",
        "2026-11-23T12:00:00Z",
        "2026-11-28T00:00:00Z",
    );
    open(
        "08:00-12:00, 12:00-13:00 UTC",
        "2026-11-23T09:00:00Z",
        "2026-11-23T13:00:00Z",
    );
}

#[test]
fn lists_of_days_and_of_windows() {
    let text = "Mon,Wed 08:00-10:00, Fri-Sun 12:00-13:00 UTC";
    open(text, "2026-11-23T08:30:00Z", "2026-11-23T10:00:00Z");
    shut(text, "2026-11-24T08:30:00Z", "2026-11-25T08:00:00Z");
    open(text, "2026-11-29T12:30:00Z", "2026-11-29T13:00:00Z");
    // A range over the end of the week.
    open(
        "Sat-Mon 12:00-13:00 UTC",
        "2026-11-23T12:30:00Z",
        "2026-11-23T13:00:00Z",
    );
}

#[test]
fn clocks_set_forward_shorten_the_window() {
    // Berlin, 2027-03-28: 02:00 becomes 03:00, at 01:00 UTC.
    let edge = "2027-03-28T01:00:00Z";
    open(
        "Sun 01:00-02:30 Europe/Berlin",
        "2027-03-28T00:30:00Z",
        edge,
    );
    open(
        "Sun 02:30-05:00 Europe/Berlin",
        edge,
        "2027-03-28T03:00:00Z",
    );
    // Nothing is left of a window inside the hour that is skipped.
    shut(
        "Sun 02:10-02:50 Europe/Berlin",
        "2027-03-28T00:30:00Z",
        "2027-04-04T00:10:00Z",
    );
}

#[test]
fn clocks_set_back_do_not_open_twice() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00, at 01:00 UTC.
    let window = "Sun 02:15-02:45 Europe/Berlin";
    open(window, "2026-10-25T00:20:00Z", "2026-10-25T00:45:00Z");
    shut(window, "2026-10-25T01:20:00Z", "2026-11-01T01:15:00Z");
}

#[test]
fn an_always_open_schedule_is_open() {
    let schedule = schedule("00:00-24:00 UTC");
    let now = at("2026-11-23T12:00:00Z");
    assert!(schedule.open_until(now).unwrap() > now);
}

#[test]
fn the_memo_changes_no_answer() {
    let warm = schedule(OFFICE);
    for hour in (0..400_u64).chain((0..400).rev()) {
        let now = UnixMillis(at("2026-10-20T00:00:00Z").0 + hour * 1_800_000);
        assert_eq!(warm.open_until(now), warm.clone().open_until(now));
    }
}

#[test]
fn beyond_the_calendar_nothing_is_open() {
    assert_eq!(schedule(OFFICE).open_until(UnixMillis::MAX), None);
}

#[test]
fn malformed_schedules_are_refused() {
    for text in [
        "",
        "Mon-Fri",
        "Mon-Fri 08:00-19:00",
        "Mon-Fri UTC",
        "Mon-Fri 8:00-19:00 UTC",
        "Mon-Fri 08:00-25:00 UTC",
        "Mon-Fri 08:00-08:00 UTC",
        "Mon-Fri 24:00-08:00 UTC",
        "Mon-Foo 08:00-09:00 UTC",
        "Mon 08:00-09:00 Tue UTC",
        "Mon 08:00-09:00, UTC",
        "08:00-09:00 Mars/Olympus",
        "08:61-09:00 UTC",
    ] {
        assert!(Schedule::parse(text).is_err(), "{text:?}");
    }
    let error = Schedule::parse("Mon 08:00-09:00 Europe/Berlim").unwrap_err();
    assert_eq!(error.help.unwrap(), "did you mean `Europe/Berlin`?");
}
