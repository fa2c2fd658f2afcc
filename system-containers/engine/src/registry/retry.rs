//! `Retry-After`: when a server wants to be asked again (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{DATE, RETRY_AFTER};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How long from now on it wants to be left alone: a date counts by its own clock, if it tells that, for this machine's may
/// be wrong. None if it says nothing that can be understood.
pub fn after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let here = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let now = headers.get(DATE).and_then(|date| self::seconds(date.to_str().ok()?.trim())).unwrap_or_else(here);
    Some(Duration::from_secs(seconds(text)?.saturating_sub(now)))
}

/// Seconds since 1970 of a date in the only form that is written today, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section
/// 5.6.7). None also for one before 1970.
fn seconds(date: &str) -> Option<u64> {
    let words: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let number = |text: &str, length: usize, most: u64| {
        let is_number = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number: &u64| is_number && *number <= most)
    };
    let (day, year) = (number(day, 2, 31)?, number(year, 4, 9999)?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    let mut parts = time.split(':');
    // A leap second is the 61st.
    let [hour, minute, second] = [23, 59, 60].map(|most| number(parts.next()?, 2, most));
    let second_of_day = hour? * 3600 + minute? * 60 + second?;
    // Of years that begin in March, so that a leap day is the last: 306 days before 1 January.
    let (year, month) = if month < 2 { (year.checked_sub(1)?, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day.checked_sub(1)?;
    // From 1 March of the year 0 to 1 January 1970.
    Some(days.checked_sub(719_468)? * 86_400 + second_of_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_what_date_1_says() {
        for (date, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ] {
            assert_eq!(seconds(date), Some(expected), "{date}");
        }
        for date in [
            "",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Jan 0000 08:49:37 GMT",
        ] {
            assert_eq!(seconds(date), None, "{date}");
        }
    }

    #[test]
    fn a_date_counts_by_the_clock_of_who_says_it() {
        let asked = |retry: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
            date.map(|date| headers.insert(DATE, date.parse().unwrap()));
            after(&headers)
        };
        let (before, later) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:39 GMT");
        assert_eq!(asked("120", None), Some(Duration::from_secs(120)));
        assert_eq!(asked(later, Some(before)), Some(Duration::from_secs(62)));
        assert_eq!(asked(before, Some(later)), Some(Duration::ZERO));
        assert_eq!(asked(later, None), Some(Duration::ZERO), "by this machine's clock");
        assert!(asked("Fri, 31 Dec 9999 23:59:59 GMT", Some("?")) > Some(Duration::from_secs(1 << 30)));
        assert_eq!(asked("soon", Some(before)), None);
        assert_eq!(after(&HeaderMap::new()), None);
    }
}
