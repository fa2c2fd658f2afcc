//! Times and states in the words that people read.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use berth_config::{Date, Protocol};
use berth_control::message::{Container, ContainerState, Health, MachineState, Port};

/// A span of time in seconds, with its two largest units: `3d 4h`, `5m 10s`, `12s`.
pub struct Span(pub u64);

impl Display for Span {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
        let first = UNITS.iter().position(|(_, length)| self.0 >= *length).unwrap_or(UNITS.len() - 1);
        let (mut rest, mut gap) = (self.0, "");
        for (name, length) in UNITS.iter().skip(first).take(2) {
            let count = rest / length;
            rest %= length;
            if count > 0 || gap.is_empty() {
                write!(formatter, "{gap}{count}{name}")?;
                gap = " ";
            }
        }
        Ok(())
    }
}

/// The same as a text.
pub fn span(seconds: u64) -> String {
    Span(seconds).to_string()
}

/// Microseconds in milliseconds with three digits that count: `0.42 ms`, `17.3 ms`, `1204 ms`.
pub fn milliseconds(us: u64) -> String {
    let hundredths = us / 10;
    match us {
        0..10_000 => format!("{}.{:02} ms", hundredths / 100, hundredths % 100),
        10_000..100_000 => format!("{}.{} ms", us / 1_000, us / 100 % 10),
        _ => format!("{} ms", us / 1_000),
    }
}

/// As the API has it.
pub fn machine_state(state: MachineState) -> &'static str {
    match state {
        MachineState::Booting => "booting",
        MachineState::Ready => "ready",
        MachineState::Degraded => "degraded",
        MachineState::ShuttingDown => "shutting down",
    }
}

/// As the API has it.
pub fn container_state(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Declared => "declared",
        ContainerState::Waiting => "waiting",
        ContainerState::Preparing => "preparing",
        ContainerState::Starting => "starting",
        ContainerState::Running => "running",
        ContainerState::Unhealthy => "unhealthy",
        ContainerState::Paused => "paused",
        ContainerState::Stopping => "stopping",
        ContainerState::Backoff => "backoff",
        ContainerState::Stopped => "stopped",
        ContainerState::Failed => "failed",
    }
}

/// A container's state with what there is to say about it: since when, why, how it ended.
pub struct Condition<'a> {
    /// Whose.
    pub container: &'a Container,
    /// Of the machine, in milliseconds.
    pub uptime_ms: u64,
}

impl Display for Condition<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { container, uptime_ms } = self;
        formatter.write_str(container_state(container.state))?;
        match container.state {
            ContainerState::Running => {
                let since = Span((uptime_ms / 1_000).saturating_sub(container.started_us / 1_000_000));
                match container.health {
                    Health::Starting => write!(formatter, " {since}, starting"),
                    Health::Healthy => write!(formatter, " {since}, healthy"),
                    Health::None | Health::Unhealthy => write!(formatter, " {since}"),
                }
            }
            _ if !container.reason.is_empty() => write!(formatter, ": {}", container.reason),
            ContainerState::Stopped if container.exit_code >= 0 => {
                write!(formatter, ", exit code {}", container.exit_code)
            }
            _ => Ok(()),
        }
    }
}

/// As docker writes it: `0.0.0.0:8080->80/tcp`, without the address where it is every one; `80/tcp` if it is not published;
/// `8000-8005->8000-8005/tcp` for a range.
pub fn port(port: &Port) -> String {
    let Port { host_address, further_ports, protocol, .. } = port;
    let range = |first: u16| match further_ports {
        0 => first.to_string(),
        further => format!("{first}-{}", first.saturating_add(*further)),
    };
    let (host_port, container_port) = (range(port.host_port), range(port.container_port));
    match host_address.as_str() {
        _ if port.host_port == 0 => format!("{container_port}/{protocol}"),
        "" => format!("{host_port}->{container_port}/{protocol}"),
        address if address.contains(':') => format!("[{address}]:{host_port}->{container_port}/{protocol}"),
        address => format!("{address}:{host_port}->{container_port}/{protocol}"),
    }
}

/// A port or a range of them, with its protocol: `80`, `53/udp`, `8000-8010/tcp`.
pub fn parse_ports(text: &str) -> Result<(RangeInclusive<u16>, Protocol), String> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, Protocol::Tcp.name()));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse(), last.parse(), protocol.parse()) {
        (Ok(first), Ok(last), Ok(protocol)) if 0 < first && first <= last => Ok((first..=last, protocol)),
        _ => Err(format!("{text:?} is no port: write it like 8080, 53/udp or 8000-8010/tcp")),
    }
}

/// An amount of bytes in the largest unit of 1,024s that leaves a whole number: `512 B`, `2.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut tenths = u128::from(count) * 10;
    let mut unit = "B";
    for larger in UNITS {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1_024;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// The same in five characters at most, where there is no room: `3`, `1.5K`, `1023M`.
pub fn short_bytes(count: u64) -> String {
    let long = bytes(count);
    let Some((number, unit)) = long.split_once(' ') else { return long };
    let number = if number.len() > 3 { number.split('.').next().unwrap_or(number) } else { number };
    format!("{number}{}", unit.get(..1).filter(|unit| *unit != "B").unwrap_or_default())
}

/// Now, in microseconds since 1970; 0 on a machine whose clock is before that.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// A moment as RFC 3339 with microseconds, UTC.
pub fn moment(us: u64) -> String {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let Date { year, month, day } = Date::of(i64::try_from(days).unwrap_or(i64::MAX));
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// The opposite, as far as people type it: RFC 3339, whose time, seconds, fraction and zone may be left out; UTC without
/// a zone.
pub fn parse_moment(text: &str) -> Option<u64> {
    const DATE: usize = "2026-11-22".len();
    let (text, ahead) = match text.rfind(['+', '-']).filter(|at| *at > DATE) {
        Some(at) => (text.get(..at)?, zone(text.get(at..)?)?),
        None => (text.strip_suffix(['Z', 'z']).unwrap_or(text), 0),
    };
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "0"));
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, us) = time.split_once('.').map_or(Some((time, 0)), |(time, digits)| Some((time, fraction(digits)?)))?;
    let mut time = time.splitn(3, ':').map(number);
    let (hour, minute) = (time.next()??, time.next().unwrap_or(Some(0))?);
    let second = time.next().unwrap_or(Some(0))?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    let days = era * 146_097 + of_era - 719_468;
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(local.checked_add_signed(-ahead)? * 1_000_000 + us)
}

/// `+02:00` in seconds.
fn zone(text: &str) -> Option<i64> {
    let (sign, text) = text.split_at_checked(1)?;
    let (hours, minutes) = text.split_once(':')?;
    let seconds = i64::try_from(number(hours)? * 3_600 + number(minutes)? * 60).ok()?;
    (seconds < 86_400).then_some(if sign == "-" { -seconds } else { seconds })
}

/// Nothing but digits, unlike the standard library, which takes a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What stands behind the point of a number of seconds, in microseconds; more digits than that are cut off.
fn fraction(digits: &str) -> Option<u64> {
    number(digits)?;
    digits
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(6)
        .try_fold(0, |sum: u64, digit| Some(sum * 10 + u64::from(digit - b'0')))
}

/// Seconds since 1970, `1795343400` or `1795343400.25`, in microseconds.
pub fn parse_seconds(text: &str) -> Option<u64> {
    let (seconds, digits) = text.split_once('.').unwrap_or((text, "0"));
    number(seconds)?.checked_mul(1_000_000)?.checked_add(fraction(digits)?)
}

/// A length of time, `90s` or `1h30m`, in microseconds.
pub fn parse_span(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 6] =
        [("d", 86_400e6), ("h", 3_600e6), ("m", 60e6), ("s", 1e6), ("ms", 1e3), ("us", 1.0)];
    // What a floating point number holds exactly: 285 years.
    const LONGEST: f64 = 9e15;
    let (mut total, mut rest) = (0.0, text);
    loop {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (count, behind) = rest.split_at_checked(end)?;
        let end = behind.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, next) = behind.split_at_checked(end)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total += count.parse::<f64>().ok()? * factor;
        if next.is_empty() {
            break;
        }
        rest = next;
    }
    (total < LONGEST).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_digit_behind_the_point() {
        let expected = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_600, "1.5 KiB"), (2 << 20, "2.0 MiB")];
        for (count, text) in expected {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn a_port_that_is_not_published_has_no_arrow() {
        let shown = |address: &str, host_port, further_ports| {
            let (host_address, protocol) = (address.into(), "tcp".into());
            port(&Port { host_address, host_port, container_port: 80, further_ports, protocol })
        };
        assert_eq!(shown("", 0, 0), "80/tcp");
        assert_eq!(shown("", 8080, 0), "8080->80/tcp");
        assert_eq!(shown("::1", 8080, 0), "[::1]:8080->80/tcp");
        assert_eq!(shown("::1", 8080, 5), "[::1]:8080-8085->80-85/tcp");
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3_660, "1h 1m"), (90_061, "1d 1h")]
        {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn milliseconds_keep_the_digits_that_count() {
        for (us, text) in [(0, "0.00 ms"), (425, "0.42 ms"), (17_345, "17.3 ms"), (1_204_567, "1204 ms")] {
            assert_eq!(milliseconds(us), text);
        }
    }

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        // date -u -d 2024-02-29T12:34:56 +%s
        let us = 1_709_210_096_000_000;
        assert_eq!(moment(us), "2024-02-29T12:34:56.000000Z");
        assert_eq!(parse_moment("2024-02-29T12:34:56Z"), Some(us));
        assert_eq!(moment(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(parse_moment("1970-01-01"), Some(0));
        assert_eq!(parse_moment("2100-03-01 00:00"), Some(4_107_542_400_000_000));
        assert_eq!(parse_moment(&moment(us + 7)), Some(us + 7));
        for same in ["2024-02-29T12:34:56", "2024-02-29t14:34:56.000+02:00", "2024-02-29 05:04:56.0000009-07:30"] {
            assert_eq!(parse_moment(same), Some(us), "{same}");
        }
        assert_eq!(parse_moment("2024-02-29T12"), parse_moment("2024-02-29T13:00+01:00"));
        for wrong in [
            "",
            "yesterday",
            "2024-13-01",
            "2024-02-01T25:00",
            "1969-12-31",
            "2024",
            "2024-02-01T",
            "2024-02-01T10:+5",
            "2024-02-01T10:00:00.",
            "2024-02-01T10:00:00.x",
            "2024-02-01T10:00+2",
            "1970-01-01T00:00+01:00",
        ] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_length_of_time_and_a_number_of_seconds_are_read() {
        for (text, us) in
            [("90s", 90_000_000), ("1h30m", 5_400_000_000), ("1.5s", 1_500_000), ("2d1ms", 172_800_001_000)]
        {
            assert_eq!(parse_span(text), Some(us), "{text}");
        }
        for (text, us) in [("7", 7_000_000), ("7.25", 7_250_000), ("7.123456789", 7_123_456)] {
            assert_eq!(parse_seconds(text), Some(us), "{text}");
        }
        for wrong in ["", "s", "5", "5x", "1h30", "-5s", "1..5s", "9999999999d"] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
        for wrong in ["", ".5", "7.", "-7", "7.x", "99999999999999999999"] {
            assert_eq!(parse_seconds(wrong), None, "{wrong}");
        }
    }
}
