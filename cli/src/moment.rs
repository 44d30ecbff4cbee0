//! Points in time, as people name them on a command line.

use std::str::FromStr;

use fleetward_api::time::Time;
use fleetward_protocol::time::Timestamp;
use jiff::civil::DateTime;
use jiff::{Span, Zoned};

use crate::render::time::parse_span;

/// What help texts say of it.
pub(crate) const FORMS: &str = "\
Times are written as 2026-01-02T03:04:05Z, as a date (2026-01-02, from its midnight on) or date and time \
('2026-01-02 03:04') in your time zone, as today or yesterday (from midnight on), or as how long ago: 90s, 2h, 1w, \
'3 days'.";

/// A point in time that is known once "now" is.
#[derive(Debug, Clone)]
pub(crate) enum Moment {
    /// A point on everybody's clock.
    At(Time),
    /// A point on the user's own clock.
    Local(DateTime),
    /// The midnight that a day began with, so many days ago.
    Midnight(i64),
    /// So long ago.
    Ago(Span),
}

/// Text that names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidMoment {
    /// It cannot be read.
    #[error(
        "`{}` is no time; write 2026-01-02T03:04:05Z, a date such as 2026-01-02, today, yesterday, or how long ago, \
         such as 2h, 7d or 1w",
        .0.escape_debug()
    )]
    Malformed(String),
    /// It lies before or after all that a clock can show.
    #[error("`{}` is further away than any clock can show", .0.escape_debug())]
    OutOfRange(String),
}

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        let malformed = || InvalidMoment::Malformed(text.chars().take(64).collect());
        let trimmed = text.trim();
        match trimmed {
            "now" => return Ok(Self::Ago(Span::new())),
            "today" => return Ok(Self::Midnight(0)),
            "yesterday" => return Ok(Self::Midnight(1)),
            _ => {}
        }
        if let Ok(time) = trimmed.parse::<Time>() {
            return Ok(Self::At(time));
        }
        // An exact time with an offset, or with a zone in brackets: its own, not the user's.
        let exact = trimmed
            .parse::<jiff::Timestamp>()
            .or_else(|_| trimmed.parse::<Zoned>().map(|zoned| zoned.timestamp()));
        if let Ok(instant) = exact {
            return Ok(Self::At(time(instant)));
        }
        if trimmed.contains('[') {
            return Err(malformed());
        }
        if let Ok(civil) = trimmed.parse::<DateTime>() {
            return Ok(Self::Local(civil));
        }
        let span = match parse_span(trimmed) {
            Ok(span) => {
                i64::try_from(span.as_secs()).ok().and_then(|seconds| Span::new().try_seconds(seconds).ok())
            }
            // A sign would leave open which way it points; "ago" says what is meant anyway.
            Err(_) if trimmed.starts_with(['-', '+']) => None,
            Err(_) => trimmed.parse::<Span>().ok().map(Span::abs),
        };
        span.map(Self::Ago).ok_or_else(malformed)
    }
}

impl Moment {
    /// The point in time, for somebody whose clock and zone are `now`.
    ///
    /// # Errors
    /// [`InvalidMoment::OutOfRange`] if it is further away than the clock can show.
    pub(crate) fn resolve(&self, now: &Zoned) -> Result<Time, InvalidMoment> {
        let zoned = match self {
            Self::At(time) => return Ok(*time),
            Self::Local(civil) => civil.to_zoned(now.time_zone().clone()),
            Self::Midnight(days) => Span::new()
                .try_days(*days)
                .and_then(|days| now.checked_sub(days))
                .and_then(|zoned| zoned.start_of_day()),
            Self::Ago(span) => now.checked_sub(*span),
        };
        zoned.map(|zoned| time(zoned.timestamp())).map_err(|_| InvalidMoment::OutOfRange(self.words()))
    }

    fn words(&self) -> String {
        match self {
            Self::At(time) => time.to_string(),
            Self::Local(civil) => civil.to_string(),
            Self::Midnight(days) => format!("{days} days ago"),
            Self::Ago(span) => format!("{span:#}"),
        }
    }
}

fn time(instant: jiff::Timestamp) -> Time {
    Timestamp::from_millis(instant.as_millisecond()).into()
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    /// Ten in the morning of a summer's Friday, in a zone two hours ahead of UTC.
    fn now() -> Zoned {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        "2026-07-03T08:00:00Z".parse::<jiff::Timestamp>().unwrap().to_zoned(zone)
    }

    #[test]
    fn moments_are_read_as_people_name_them() {
        for (text, instant) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05+05:00", "2026-01-01T22:04:05Z"),
            ("2026-07-02", "2026-07-01T22:00:00Z"),
            ("2026-01-02", "2026-01-01T23:00:00Z"),
            ("2026-07-02 03:04", "2026-07-02T01:04:00Z"),
            ("2026-07-02T03:04:05", "2026-07-02T01:04:05Z"),
            ("today", "2026-07-02T22:00:00Z"),
            (" yesterday ", "2026-07-01T22:00:00Z"),
            ("now", "2026-07-03T08:00:00Z"),
            ("90", "2026-07-03T07:58:30Z"),
            ("2h", "2026-07-03T06:00:00Z"),
            ("1h30m", "2026-07-03T06:30:00Z"),
            ("7d", "2026-06-26T08:00:00Z"),
            ("1w", "2026-06-26T08:00:00Z"),
            ("3 days", "2026-06-30T08:00:00Z"),
            ("2 hours ago", "2026-07-03T06:00:00Z"),
            ("1 month", "2026-06-03T08:00:00Z"),
        ] {
            let moment: Moment = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let expected: Time = instant.parse().unwrap();
            assert_eq!(moment.resolve(&now()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_names_no_moment_is_refused_with_examples() {
        for text in [
            "",
            "soon",
            "-2h",
            "+2h",
            "2026-13-01",
            "2026-02-30",
            "2h-",
            "12:",
            "2026-01-02T03:04[Nowhere/City]",
        ] {
            let error = text.parse::<Moment>().map(|moment| format!("{moment:?}")).expect_err(text);
            assert!(error.to_string().contains("2026-01-02, today, yesterday"), "{error}");
        }
        let ages: Moment = "19000 years".parse().unwrap();
        assert!(ages.resolve(&now()).unwrap_err().to_string().contains("further away"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            if let Ok(moment) = text.parse::<Moment>() {
                let _: Result<Time, InvalidMoment> = moment.resolve(&now());
            }
        }
    }
}
