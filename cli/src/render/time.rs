//! Times and spans for people.

use std::time::Duration;

use fleetward_api::time::Time;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Knows what time it is, and where.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    zone: TimeZone,
}

/// The time zone that `TZ` names, else the machine's own; and the name if there is no such zone, which is UTC then.
///
/// The zones are those of the machine; where it has none, those that this program brings.
pub(crate) fn zone(named: Option<&str>) -> (TimeZone, Option<String>) {
    let Some(named) = named else {
        // A machine that does not say where it is keeps UTC.
        return (TimeZone::try_system().unwrap_or(TimeZone::UTC), None);
    };
    // POSIX, Base Definitions, 8.3: what begins with a colon is up to the system; everywhere it is a zone's name.
    let name = named.strip_prefix(':').unwrap_or(named);
    if name.is_empty() {
        return (TimeZone::UTC, None);
    }
    let file = || {
        let bytes = std::fs::read(name).ok().filter(|_| name.starts_with('/'))?;
        TimeZone::tzif(name, &bytes).ok()
    };
    let found = jiff::tz::db().get(name).ok().or_else(|| TimeZone::posix(name).ok()).or_else(file);
    match found {
        Some(zone) => (zone, None),
        None => (TimeZone::UTC, Some(named.to_owned())),
    }
}

impl Clock {
    /// UTC's.
    pub(crate) const fn utc() -> Self {
        Self { zone: TimeZone::UTC }
    }

    /// A time zone's.
    pub(crate) const fn of_zone(zone: TimeZone) -> Self {
        Self { zone }
    }

    /// How long ago `time` was, in the largest sensible unit.
    pub(crate) fn ago(&self, time: Time) -> String {
        relative(Timestamp::now().as_millisecond(), time.timestamp().as_millis())
    }

    /// Date, time and zone.
    pub(crate) fn at(&self, time: Time) -> String {
        absolute(time, self.zone())
    }

    /// Date, time and zone, and how long ago that was.
    pub(crate) fn at_and_ago(&self, time: Time) -> String {
        format!("{} ({})", self.at(time), self.ago(time))
    }

    /// The day and the time of day, as logs have them: without year and zone.
    pub(crate) fn day_and_time(&self, time: Time) -> String {
        let Ok(instant) = Timestamp::from_millisecond(time.timestamp().as_millis()) else {
            return time.to_string();
        };
        instant.to_zoned(self.zone()).strftime("%b %d %H:%M:%S").to_string()
    }

    /// The time of day, to the millisecond.
    pub(crate) fn of_day(&self, time: Time) -> String {
        let Ok(instant) = Timestamp::from_millisecond(time.timestamp().as_millis()) else {
            return time.to_string();
        };
        instant.to_zoned(self.zone()).strftime("%H:%M:%S.%3f").to_string()
    }

    /// Now, in the zone that times are shown in.
    pub(crate) fn now(&self) -> jiff::Zoned {
        Timestamp::now().to_zoned(self.zone())
    }

    fn zone(&self) -> TimeZone {
        self.zone.clone()
    }
}

fn absolute(time: Time, zone: TimeZone) -> String {
    match Timestamp::from_millisecond(time.timestamp().as_millis()) {
        Ok(instant) => instant.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        Err(_) => time.to_string(),
    }
}

fn relative(now: i64, then: i64) -> String {
    let seconds = now.saturating_sub(then) / 1000;
    if seconds < 0 {
        return match -seconds {
            0..=4 => "now".to_owned(),
            ahead => format!("in {}", coarse(ahead)),
        };
    }
    match seconds {
        0..=1 => "now".to_owned(),
        ago => format!("{} ago", coarse(ago)),
    }
}

fn coarse(seconds: i64) -> String {
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7200.. => format!("{} h", seconds / 3600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// A span, as exact as its size deserves.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds {
        3_600_000.. => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        60_000.. => format!("{} min {:02} s", seconds / 60, seconds % 60),
        1000.. if milliseconds.is_multiple_of(1000) => format!("{seconds} s"),
        1000.. => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        _ => format!("{milliseconds} ms"),
    }
}

/// Reads a span as people write it: `90` (seconds), `30s`, `5m`, `2h`, `1h30m`, `7d`, `1w`. Whole seconds, at least one.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{}` is not a span such as 30s, 5m, 1h30m, 7d or 1w", text.escape_debug());
    let mut total = 0u64;
    let mut digits = String::new();
    for character in text.trim().chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(invalid()),
        };
        let count: u64 = digits.parse().map_err(|_| invalid())?;
        digits.clear();
        total = count.checked_mul(unit).and_then(|span| total.checked_add(span)).ok_or_else(invalid)?;
    }
    if !digits.is_empty() {
        if total > 0 {
            return Err(invalid());
        }
        total = digits.parse().map_err(|_| invalid())?;
    }
    if total == 0 || u32::try_from(total).is_err() { Err(invalid()) } else { Ok(Duration::from_secs(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90", 90),
            ("30s", 30),
            ("5m", 300),
            ("2h", 7200),
            ("1h30m", 5400),
            ("7d", 604_800),
            ("1w", 604_800),
            (" 1m ", 60),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "0s", "m", "5x", "-5m", "5m3", "99999999999d", "1.5h", "5 m"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_written_as_exact_as_they_deserve() {
        for (milliseconds, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1240, "1.2 s"),
            (5000, "5 s"),
            (59_999, "59.9 s"),
            (242_000, "4 min 02 s"),
            (3_780_000, "1 h 03 min"),
        ] {
            assert_eq!(span(milliseconds), text);
        }
    }

    #[test]
    fn a_zone_is_found_by_its_name_its_rule_or_its_file() {
        let summer: Time = "2026-07-02T03:04:05Z".parse().unwrap();
        let winter: Time = "2026-01-02T03:04:05Z".parse().unwrap();
        for (named, in_summer, in_winter) in [
            ("Europe/Berlin", "05:04:05 CEST", "04:04:05 CET"),
            (":Europe/Berlin", "05:04:05 CEST", "04:04:05 CET"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "05:04:05 CEST", "04:04:05 CET"),
            ("America/New_York", "23:04:05 EDT", "22:04:05 EST"),
            ("UTC0", "03:04:05 UTC", "03:04:05 UTC"),
            ("UTC", "03:04:05 UTC", "03:04:05 UTC"),
            ("", "03:04:05 UTC", "03:04:05 UTC"),
        ] {
            let (zone, unknown) = zone(Some(named));
            assert_eq!(unknown, None, "{named}");
            assert!(
                absolute(summer, zone.clone()).ends_with(in_summer),
                "{named}: {}",
                absolute(summer, zone)
            );
            assert!(
                absolute(winter, zone.clone()).ends_with(in_winter),
                "{named}: {}",
                absolute(winter, zone)
            );
        }
        for named in ["Mars/Olympus", "Europe/Berlni", "/nonexistent", "/etc/passwd"] {
            let (zone, unknown) = zone(Some(named));
            assert_eq!((zone, unknown.as_deref()), (TimeZone::UTC, Some(named)));
        }
    }

    #[test]
    fn times_are_relative_to_now_and_shown_in_their_zone() {
        let now = 1_000_000_000;
        for (then, text) in [
            (now, "now"),
            (now - 12_000, "12 s ago"),
            (now - 180_000, "3 min ago"),
            (now - 7_200_000, "2 h ago"),
            (now - 5 * 86_400_000, "5 days ago"),
            (now + 3000, "now"),
            (now + 3_600_000, "in 60 min"),
        ] {
            assert_eq!(relative(now, then), text);
        }
        let time: Time = "2026-07-02T03:04:05Z".parse().unwrap();
        assert_eq!(absolute(time, TimeZone::UTC), "2026-07-02 03:04:05 UTC");
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(absolute(time, zone), "2026-07-02 05:04:05 CEST");
    }
}
