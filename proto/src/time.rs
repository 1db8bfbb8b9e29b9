//! Instants and lengths of time in messages.

use std::time::Duration;

use jiff::Timestamp;

use crate::Invalid;

pub(crate) fn read_instant(
    message: Option<prost_types::Timestamp>,
    field: &str,
) -> Result<Option<Timestamp>, Invalid> {
    message
        .map(|instant| {
            // Another sign of the nanoseconds than that of the seconds is not what the type allows.
            (0..1_000_000_000)
                .contains(&instant.nanos)
                .then(|| Timestamp::new(instant.seconds, instant.nanos).ok())
                .flatten()
                .ok_or_else(|| Invalid::field(field, "is no instant of the years 0001 to 9999"))
        })
        .transpose()
}

pub(crate) fn write_instant(instant: Timestamp) -> prost_types::Timestamp {
    let nanos = instant.subsec_nanosecond();
    // Before 1970 both are negative here, while the message wants nanoseconds that count forward.
    let (seconds, nanos) = if nanos < 0 {
        (instant.as_second() - 1, nanos + 1_000_000_000)
    } else {
        (instant.as_second(), nanos)
    };
    prost_types::Timestamp { seconds, nanos }
}

pub(crate) fn read_length(
    message: Option<prost_types::Duration>,
    field: &str,
) -> Result<Option<Duration>, Invalid> {
    message
        .map(|length| {
            // By hand: the conversion of prost-types overflows at the smallest numbers.
            let seconds = u64::try_from(length.seconds);
            let nanos = u32::try_from(length.nanos)
                .ok()
                .filter(|n| *n < 1_000_000_000);
            match (seconds, nanos) {
                (Ok(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
                _ => Err(Invalid::field(
                    field,
                    "is no length of time, or a negative one",
                )),
            }
        })
        .transpose()
}

pub(crate) fn write_length(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_travel_both_ways() {
        for text in [
            "2026-11-25T12:00:00.5Z",
            "1969-12-31T23:59:59.25Z",
            "1969-12-31T23:59:59Z",
        ] {
            let instant: Timestamp = text.parse().expect("an instant");
            let message = write_instant(instant);
            assert!(message.nanos >= 0);
            assert_eq!(read_instant(Some(message), "deadline"), Ok(Some(instant)));
        }
    }

    #[test]
    fn impossible_times_are_refused() {
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, i32::MAX)] {
            let instant = prost_types::Timestamp { seconds, nanos };
            assert!(read_instant(Some(instant), "deadline").is_err());
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN), (i64::MAX, i32::MAX)] {
            let length = prost_types::Duration { seconds, nanos };
            assert!(read_length(Some(length), "stall_timeout").is_err());
        }
    }
}
