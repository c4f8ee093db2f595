use proptest::prelude::*;

use super::*;

/// Nanoseconds of 2010-12-10T08:35:08Z.
const SOME_TIME: i128 = 1_291_970_108_000_000_000;
const SECOND: i128 = 1_000_000_000;
const HOUR: i128 = 3600 * SECOND;
const DAY: i128 = 24 * HOUR;

fn check(layout: &str, text: &str, expected: Result<i128, &str>) {
    let found = Layout::parse("change.format", layout).unwrap().nanoseconds(text);
    match (&found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{text:?} by {layout:?}"),
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{text:?} by {layout:?}: {found}"),
        _ => panic!("{text:?} by {layout:?}: {found:?}, expected {expected:?}"),
    }
}

#[test]
fn the_well_known_layouts_with_a_date_are_read() {
    check("01/02 03:04:05PM '06 -0700", "12/10 08:35:08AM '10 +0000", Ok(SOME_TIME));
    check("Mon Jan _2 15:04:05 2006", "Fri Dec 10 08:35:08 2010", Ok(SOME_TIME));
    check("Mon Jan _2 15:04:05 2006", "Thu Jan  1 00:00:00 1970", Ok(0));
    check("Mon Jan _2 15:04:05 MST 2006", "Fri Dec 10 08:35:08 UTC 2010", Ok(SOME_TIME));
    check("Mon Jan 02 15:04:05 -0700 2006", "Fri Dec 10 09:35:08 +0100 2010", Ok(SOME_TIME));
    check("02 Jan 06 15:04 MST", "10 Dec 10 08:35 GMT", Ok(SOME_TIME - 8 * SECOND));
    check("02 Jan 06 15:04 -0700", "10 Dec 10 03:05 -0530", Ok(SOME_TIME - 8 * SECOND));
    check("Monday, 02-Jan-06 15:04:05 MST", "Friday, 10-Dec-10 08:35:08 UTC", Ok(SOME_TIME));
    check("Mon, 02 Jan 2006 15:04:05 MST", "Fri, 10 Dec 2010 08:35:08 GMT", Ok(SOME_TIME));
    check("Mon, 02 Jan 2006 15:04:05 -0700", "Fri, 10 Dec 2010 08:35:08 +0000", Ok(SOME_TIME));
    check("2006-01-02T15:04:05Z07:00", "2010-12-10T08:35:08Z", Ok(SOME_TIME));
    check("2006-01-02T15:04:05Z07:00", "2010-12-10T08:35:08.008Z", Ok(1_291_970_108_008_000_000));
    check("2006-01-02T15:04:05.999999999Z07:00", "2010-12-10T08:35:08.008Z", Ok(SOME_TIME + 8_000_000));
    check("2006-01-02T15:04:05.999999999Z07:00", "2010-12-10T08:35:08Z", Ok(SOME_TIME));
    check("2006-01-02 15:04:05", "2010-12-10 08:35:08", Ok(SOME_TIME));
    check("2006-01-02", "2010-12-10", Ok(SOME_TIME / DAY * DAY));
}

#[test]
fn a_layout_that_cannot_order_times_is_refused() {
    for (layout, rule) in [
        ("3:04PM", "has no year"),
        ("Jan _2 15:04:05", "has no year"),
        ("Jan _2 15:04:05.000", "has no year"),
        ("Jan _2 15:04:05.000000000", "has no year"),
        ("15:04:05", "has no year"),
        ("yyyy-mm-dd", "has no year"),
        ("unixms", "has no year"),
        ("2006-01-02 03:04:05", "12-hour clock and no PM"),
        ("2006-01-02 3h", "12-hour clock and no PM"),
        (&"2006".repeat(33), "longer than 128 bytes"),
    ] {
        let error = Layout::parse("change.format", layout).unwrap_err().to_string();
        assert!(error.contains(rule), "{layout:?}: {error}");
        assert!(error.contains(&format!("field: change.format, value: {layout:?}")), "{layout:?}: {error}");
    }
}

#[test]
fn years_months_and_days() {
    check("2006", "1970", Ok(0));
    check("2006", "197", Err("a year of four digits"));
    check("2006", "-197", Err("a year of four digits"));
    check("06", "70", Ok(0));
    check("06", "69", Ok(-365 * DAY));
    check("06", "00", Ok(10957 * DAY));
    check("06", "68", Ok(35794 * DAY));
    check("2006 January", "1970 February", Ok(31 * DAY));
    check("2006 January", "1970 fEBRUARY", Ok(31 * DAY));
    check("2006 January", "1970 Feb", Err("a month's name"));
    check("2006 Jan", "1970 feb", Ok(31 * DAY));
    check("2006 Jan", "1970 Fe", Err("a month's short name"));
    check("2006 Jan", "1970 February", Err("goes on with \"ruary\""));
    check("2006 Jan", "1970 FéB", Err("a month's short name"));
    check("2006-1", "1970-2", Ok(31 * DAY));
    check("2006-1", "1970-12", Ok(334 * DAY));
    check("2006-1", "1970-123", Err("goes on with \"3\""));
    check("2006-01", "1970-2", Err("a month of two digits"));
    check("2006-01", "1970-00", Err("there is no 1970-00-01"));
    check("2006-01", "1970-13", Err("there is no 1970-13-01"));
    check("2006-01-2", "1970-01-9", Ok(8 * DAY));
    check("2006-01-02", "1970-01-9", Err("a day of two digits"));
    check("2006-01-_2", "1970-01- 9", Ok(8 * DAY));
    check("2006-01-_2", "1970-01-9", Ok(8 * DAY));
    check("2006-01-_2", "1970-01-  9", Err("a day"));
    check("2006-01-02", "1970-01-32", Err("there is no 1970-01-32"));
    check("2006-01-02", "1971-02-29", Err("there is no 1971-02-29"));
    check("2006-01-02", "1972-02-29", Ok(789 * DAY));
    check("_2006", "_1970", Ok(0));
    check("Mon 2006", "Sun 1970", Ok(0));
    check("Mon 2006", "Sunday 1970", Err("a space"));
    check("Mon 2006", "Xyz 1970", Err("a short weekday"));
    check("Monday 2006", "SUNDAY 1970", Ok(0));
    check("Monday 2006", "Sun 1970", Err("a weekday"));
    check("Monitor Janitor 2006", "Monitor Janitor 1970", Ok(0));
}

#[test]
fn days_of_the_year() {
    check("2006-002", "1970-001", Ok(0));
    check("2006-002", "1970-365", Ok(364 * DAY));
    check("2006-002", "1972-366", Ok(1095 * DAY));
    check("2006-002", "1970-366", Err("there is no day 366 of 1970"));
    check("2006-002", "1970-000", Err("there is no day 0 of 1970"));
    check("2006-002", "1970-12", Err("three digits"));
    check("2006-__2", "1970-  9", Ok(8 * DAY));
    check("2006-__2", "1970- 10", Ok(9 * DAY));
    check("2006-__2", "1970-100", Ok(99 * DAY));
    check("2006-01-02 002", "1970-02-01 032", Ok(31 * DAY));
    check("2006-01-02 002", "1970-02-01 033", Err("is another date"));
    check("2006-01 002", "1970-03 033", Err("is another date"));
}

#[test]
fn times_of_day() {
    check("2006 15:04:05", "1970 23:59:59", Ok(DAY - SECOND));
    check("2006 15:4:5", "1970 1:2:3", Ok(HOUR + 123 * SECOND));
    check("2006 15:04", "1970 1:2", Err("a minute of two digits"));
    check("2006 15:04:05", "1970 01:02:3", Err("a second of two digits"));
    check("2006 15", "1970 24", Err("no such time of day"));
    check("2006 15:04", "1970 00:60", Err("no such time of day"));
    check("2006 15:04:05", "1970 00:00:60", Err("no such time of day"));
    check("2006 15:04", "1970 00:99", Err("no such time of day"));
    check("2006 3PM", "1970 12AM", Ok(0));
    check("2006 3PM", "1970 1AM", Ok(HOUR));
    check("2006 3PM", "1970 12PM", Ok(12 * HOUR));
    check("2006 3PM", "1970 11PM", Ok(23 * HOUR));
    check("2006 3PM", "1970 13PM", Err("no hour 13"));
    check("2006 3PM", "1970 1pm", Err("AM or PM"));
    check("2006 03pm", "1970 01pm", Ok(13 * HOUR));
    check("2006 03pm", "1970 1pm", Err("an hour"));
    check("2006 03pm", "1970 01xm", Err("am or pm"));
    check("PM 2006 15", "PM 1970 01", Ok(13 * HOUR));
}

#[test]
fn fractions_of_seconds() {
    check("2006 05.000", "1970 00.123", Ok(123_000_000));
    check("2006 05.000", "1970 00,123", Ok(123_000_000));
    check("2006 05,000", "1970 00.123", Ok(123_000_000));
    check("2006 05.000", "1970 00.12", Err("a fraction of 3 digits"));
    check("2006 05.000", "1970 00", Err("a fraction of 3 digits"));
    check("2006 05.000", "1970 00.1234", Err("goes on with \"4\""));
    check("2006 05.0000000000", "1970 00.1234567899", Ok(123_456_789));
    check("2006 05.999", "1970 00.5", Ok(500_000_000));
    check("2006 05,999", "1970 00,123456", Ok(123_456_000));
    check("2006 05.999", "1970 00", Ok(0));
    check("2006 05.999", "1970 00.", Err("goes on with \".\""));
    check("2006 05", "1970 00.123456789", Ok(123_456_789));
    check("2006 05", "1970 00,1", Ok(100_000_000));
    check("2006 05", "1970 00.1234567899999", Ok(123_456_789));
    check("2006 05", "1970 00.", Err("goes on with \".\""));
    check("2006 5 Z07", "1970 1.25 Z", Ok(1_250_000_000));
    check("05.000 2006", "01.250 1970", Ok(1_250_000_000));
    check("2006 04", "1970 00.5", Err("goes on with \".5\""));
    // A run that another digit follows is no fraction, but a dot and what the digits are.
    check("2006.01.02", "1970.01.02", Ok(DAY));
}

#[test]
fn offsets_and_zones() {
    check("2006Z07:00", "1970Z", Ok(0));
    check("2006Z07:00", "1970+01:30", Ok(-HOUR - HOUR / 2));
    check("2006Z07:00", "1970-01:30", Ok(HOUR + HOUR / 2));
    check("2006Z07:00", "1970+0130", Err("':'"));
    check("2006Z07:00", "1970z", Err("an offset from UTC"));
    check("2006Z07:00", "1970", Err("an offset from UTC"));
    check("2006Z0700", "1970Z", Ok(0));
    check("2006Z0700", "1970+0130", Ok(-HOUR - HOUR / 2));
    check("2006Z0700", "1970+01:30", Err("two digits of an offset"));
    check("2006Z07", "1970-02", Ok(2 * HOUR));
    check("2006Z07", "1970Z", Ok(0));
    check("2006Z07:00:00", "1970+00:00:01", Ok(-SECOND));
    check("2006Z070000", "1970+000001", Ok(-SECOND));
    check("2006-0700", "1970+0130", Ok(-HOUR - HOUR / 2));
    check("2006-0700", "1970Z", Err("an offset from UTC"));
    check("2006-07:00", "1970-01:30", Ok(HOUR + HOUR / 2));
    check("2006-07", "1970+02", Ok(-2 * HOUR));
    check("2006-07:00:00", "1970-00:00:01", Ok(SECOND));
    check("2006-070000", "1970-000001", Ok(SECOND));
    check("2006-07:00", "1970+24:60", Ok(-25 * HOUR));
    check("2006-07:00", "1970+25:00", Err("no offset with 25"));
    check("2006-07:00", "1970+01:61", Err("no offset with 61"));
    check("2006-07:00", "1970+1:00", Err("two digits of an offset"));
    check("2006 MST", "1970 UTC", Ok(0));
    check("2006 MST", "1970 GMT", Ok(0));
    check("2006 MST", "1970 GMT+3", Err("UTC or GMT"));
    check("2006 MST", "1970 UTCX", Err("UTC or GMT"));
    check("2006 MST", "1970 MST", Err("UTC or GMT"));
    check("2006 MST", "1970 CEST", Err("UTC or GMT"));
}

#[test]
fn literals_stand_as_they_are_and_spaces_stretch() {
    check("year 2006 é", "year 1970 é", Ok(0));
    check("year 2006", "Year 1970", Err("expected 'y'"));
    check("2006 15h", "1970    1h", Ok(HOUR));
    check("2006   15h", "1970 1h", Ok(HOUR));
    check("2006 15h", "19701h", Err("a space"));
    check("2006 ", "1970", Ok(0));
    check("2006", "1970 ", Err("goes on with \" \""));
    check("2006", "", Err("a year of four digits"));
    check("2006", "１９７０", Err("a year of four digits"));
    check("2006-01-02", "1970-01", Err("expected '-' at \"\""));
}

proptest! {
    #[test]
    fn every_rfc3339_time_is_read_exactly(nanosecond in i64::MIN..i64::MAX) {
        let time = jiff::Timestamp::from_nanosecond(nanosecond.into()).unwrap();
        prop_assert_eq!(Layout::rfc3339().nanoseconds(&time.to_string()), Ok(nanosecond.into()));
    }

    #[test]
    fn no_layout_and_no_text_panics(
        layout in "([-_. ,:é]|20?0?6?|01?|Jan|Mon|__2|1?5|3|4|PM|Z07|-07:00|MST|\\.000|,99){0,8}",
        text in "([-+. ,:éZ]|[0-9]{1,4}|jan|sun|PM|UTC){0,8}",
    ) {
        if let Ok(layout) = Layout::parse("layout", &format!("2006{layout}PM")) {
            let _ = layout.nanoseconds(&text);
            let _ = layout.nanoseconds(&format!("1970{text}PM"));
        }
    }
}
