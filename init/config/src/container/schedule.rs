//! When a container runs by the calendar: the five fields of a crontab, in UTC.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// Text that is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// Not five.
    #[error("it has {count} fields, not five")]
    Fields {
        /// How many.
        count: usize,
    },
    /// One of the five.
    #[error("{text:?} is no {field}")]
    Field {
        /// As written.
        text: String,
        /// What it should be.
        field: &'static str,
    },
    /// The 30th of February.
    #[error("there is no such day")]
    Never,
}

/// Minutes of the calendar, as crontab(5) has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    text: String,
    /// A bit for each value that each field allows.
    fields: [u64; 5],
    /// Both days are given: one of them is enough.
    either_day: bool,
}

text_value!(
    Schedule,
    "\"hourly\", \"daily\", \"weekly\", \"monthly\", or a crontab's minute, hour, day, month and weekday such as \"0 3 * * *\""
);

/// Words for five fields, with or without crontab's `@`.
const WORDS: [(&str, &str); 7] = [
    ("hourly", "0 * * * *"),
    ("daily", "0 0 * * *"),
    ("midnight", "0 0 * * *"),
    ("weekly", "0 0 * * 0"),
    ("monthly", "0 0 1 * *"),
    ("yearly", "0 0 1 1 *"),
    ("annually", "0 0 1 1 *"),
];

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field is called, its values, and names for them from the first one on.
type Field = (&'static str, RangeInclusive<u32>, &'static [&'static str]);

const FIELDS: [Field; 5] = [
    ("minute (0-59)", 0..=59, &[]),
    ("hour (0-23)", 0..=23, &[]),
    ("day of the month (1-31)", 1..=31, &[]),
    ("month (1-12 or jan-dec)", 1..=12, &MONTHS),
    // Both 0 and 7 are Sunday.
    ("day of the week (0-7 or sun-sat)", 0..=7, &WEEKDAYS),
];

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// The 29th of February comes at least every eight years.
const FARTHEST: i64 = 8 * 366 + 1;

impl Schedule {
    /// The first of its times after this one; both in seconds since 1970, UTC.
    pub fn next(&self, after: i64) -> Option<i64> {
        let first_day = after.div_euclid(DAY);
        let first_minute = after.rem_euclid(DAY) / MINUTE + 1;
        (0..FARTHEST).find_map(|ahead| {
            let day = first_day.checked_add(ahead).filter(|day| self.has_day(*day))?;
            let minute = self.minute_from(if ahead == 0 { first_minute } else { 0 })?;
            day.checked_mul(DAY)?.checked_add(minute * MINUTE)
        })
    }

    /// Whether it has this day, counted from 1970.
    fn has_day(&self, days: i64) -> bool {
        let [_, _, of_month, months, of_week] = self.fields;
        let date = Date::of(days);
        let has = |set: u64, value: i64| set >> value.clamp(0, 63) & 1 == 1;
        let (month_day, week_day) = (has(of_month, date.day), has(of_week, (days + 4).rem_euclid(7)));
        has(months, date.month) && if self.either_day { month_day || week_day } else { month_day && week_day }
    }

    /// The first minute of a day from this one on.
    fn minute_from(&self, first: i64) -> Option<i64> {
        let [minutes, hours, ..] = self.fields;
        (first..DAY / MINUTE).find(|minute| hours >> (minute / 60) & 1 == 1 && minutes >> (minute % 60) & 1 == 1)
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let bare = text.strip_prefix('@').unwrap_or(text);
        let expanded = WORDS.iter().find(|(word, _)| *word == bare).map_or(text, |(_, fields)| *fields);
        let words: Vec<&str> = expanded.split_whitespace().collect();
        let count = words.len();
        let words: [&str; 5] = words.try_into().map_err(|_| ScheduleError::Fields { count })?;
        let mut fields = [0; 5];
        for ((word, field), set) in words.iter().zip(&FIELDS).zip(&mut fields) {
            *set =
                values(word, field).ok_or_else(|| ScheduleError::Field { text: (*word).to_owned(), field: field.0 })?;
        }
        let [.., of_week] = &mut fields;
        *of_week |= *of_week >> 7 & 1;
        // crontab(5): a field that begins with a star does not count as given.
        let either_day = [words.get(2), words.get(4)].into_iter().flatten().all(|word| !word.starts_with('*'));
        let schedule = Self { text: text.to_owned(), fields, either_day };
        if schedule.next(0).is_none() { Err(ScheduleError::Never) } else { Ok(schedule) }
    }
}

/// The values of a field: `*`, `a`, `a-b`, each with `/step`, parted by commas.
fn values(text: &str, (_, all, names): &Field) -> Option<u64> {
    let value = |text: &str| {
        let named =
            names.iter().position(|name| text.eq_ignore_ascii_case(name)).map(|place| place as u32 + all.start());
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        named.or_else(|| text.parse().ok().filter(|_| digits)).filter(|value| all.contains(value))
    };
    let mut set = 0;
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(value_of_step(step)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (*all.start(), *all.end()),
            Some((first, last)) => (value(first)?, value(last)?),
            // A first value with a step goes on to the end.
            None => (value(range)?, if step.is_some() { *all.end() } else { value(range)? }),
        };
        if first > last {
            return None;
        }
        set |= (first..=last).step_by(step.unwrap_or(1)).fold(0, |set, value| set | 1_u64 << value);
    }
    Some(set)
}

fn value_of_step(text: &str) -> Option<usize> {
    text.parse().ok().filter(|step| *step > 0)
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Of our era.
    pub year: i64,
    /// From 1.
    pub month: i64,
    /// From 1.
    pub day: i64,
}

impl Date {
    /// Of a day counted from 1970, by Howard Hinnant's `civil_from_days`: years that begin in March end with their leap
    /// day.
    pub fn of(days: i64) -> Self {
        let shifted = days.saturating_add(719_468);
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
        }
    }
}

/// A time in seconds since 1970 for a sentence: `2026-11-22 03:00:00 UTC`.
pub fn utc(seconds: i64) -> String {
    let Date { year, month, day } = Date::of(seconds.div_euclid(DAY));
    let of_day = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sunday, 2026-11-22 12:34:56.
    const NOW: i64 = 1_795_350_896;

    fn next(text: &str) -> String {
        let schedule: Schedule = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(schedule.to_string().parse(), Ok(schedule.clone()));
        utc(schedule.next(NOW).expect("there is one")).trim_end_matches(":00 UTC").to_owned()
    }

    #[test]
    fn the_next_time_is_the_calendars() {
        assert_eq!(utc(NOW), "2026-11-22 12:34:56 UTC");
        for (text, wanted) in [
            ("* * * * *", "2026-11-22 12:35"),
            ("34 12 * * *", "2026-11-23 12:34"),
            ("@hourly", "2026-11-22 13:00"),
            ("daily", "2026-11-23 00:00"),
            ("weekly", "2026-11-29 00:00"),
            ("monthly", "2026-12-01 00:00"),
            ("yearly", "2027-01-01 00:00"),
            ("0 3 * * *", "2026-11-23 03:00"),
            ("*/15 * * * *", "2026-11-22 12:45"),
            ("5/20 9-17/4 * * *", "2026-11-22 13:05"),
            ("0 4 * * mon-fri", "2026-11-23 04:00"),
            ("0 4 * * 7", "2026-11-29 04:00"),
            ("0 0 31 * *", "2026-12-31 00:00"),
            ("0 0 29 2 *", "2028-02-29 00:00"),
            ("30 6 1,15 * wed", "2026-11-25 06:30"),
            ("30 6 */2 * wed", "2026-11-25 06:30"),
            ("0 0 1 JAN,feb *", "2027-01-01 00:00"),
        ] {
            assert_eq!(next(text), wanted, "{text}");
        }
        // 2100 has no leap day.
        let leap: Schedule = "0 0 29 2 *".parse().expect("a day");
        assert_eq!(utc(leap.next(3_985_000_000).expect("there is one")), "2104-02-29 00:00:00 UTC");
    }

    proptest::proptest! {
        #[test]
        fn no_time_in_between_is_left_out(start in -4_000_000_000_i64..8_000_000_000, minute in 0..60_i64, hour in 0..24_i64) {
            let schedule: Schedule = format!("{minute} {hour} * * *").parse().expect("a time of each day");
            let next = schedule.next(start).expect("there is one");
            assert!(next > start && next - start <= DAY && next.rem_euclid(DAY) == hour * 3600 + minute * 60);
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        use ScheduleError::{Field, Fields, Never};
        let read = |text: &str| text.parse::<Schedule>().map(drop);
        assert_eq!(read("0 3 * *"), Err(Fields { count: 4 }));
        assert_eq!(read("dayly"), Err(Fields { count: 1 }));
        assert_eq!(read("0 0 30 2 *"), Err(Never));
        for text in [
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "+1 * * * *",
        ] {
            assert!(matches!(read(text), Err(Field { .. })), "{text}");
        }
        assert!(matches!(read("* * * * mon-"), Err(Field { .. })));
    }
}
