//! The four classes of failure: the class alone decides when something is tried again.
//!
//! | class | we know | next attempt |
//! |---|---|---|
//! | [`Recovery::Unknown`] | nothing: no answer, cut, killed | 1 s doubling to 60 s, ± 20 % |
//! | [`Recovery::Fast`] | it passes by itself | the same, not before the time the peer named |
//! | [`Recovery::Slow`] | somebody must act | 1 min doubling to 15 min |
//! | [`Recovery::Terminal`] | same input, same answer | 12 h |
//!
//! *Unknown* keeps the last verdict: unreachable is not broken.

use std::time::Duration;

/// Longest time that is waited for a peer which names a time itself ("Retry-After", rate limits).
pub const LONGEST_NOT_BEFORE: Duration = Duration::from_hours(1);

/// Wait before an input is looked at again that can only give the same answer.
pub const TERMINAL_DELAY: Duration = Duration::from_hours(12);

/// What a failure tells about the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// The outcome is not known.
    Unknown,
    /// Will probably pass by itself, but not before the given time from now is over.
    Fast {
        /// Lower bound that the peer named, if it named one.
        not_before: Option<Duration>,
    },
    /// A person or the environment must act first.
    Slow,
    /// The same input can only fail again.
    Terminal,
}

impl Recovery {
    /// Passes by itself; the peer named no time.
    pub const FAST: Self = Self::Fast { not_before: None };

    /// The class of an answer over HTTP, from an API server, a code host or a registry.
    ///
    /// `retry_after` is the time that the peer named in the answer.
    #[must_use]
    pub fn of_http_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            409 | 425 | 429 => Self::Fast {
                not_before: retry_after,
            },
            408 | 500..=599 if retry_after.is_some() => Self::Fast {
                not_before: retry_after,
            },
            400 | 405..=407 | 410..=424 | 426..=428 | 431..=450 => Self::Terminal,
            401..=404 | 451 => Self::Slow,
            _ => Self::Unknown,
        }
    }

    /// The name of the class as it stands in metrics and logs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Fast { .. } => "fast",
            Self::Slow => "slow",
            Self::Terminal => "terminal",
        }
    }

    /// How long to wait after `failures` failures in a row (the first failure is 1), before jitter.
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        let (first, longest) = match self {
            Self::Unknown | Self::Fast { .. } => (Duration::from_secs(1), Duration::from_mins(1)),
            Self::Slow => (Duration::from_mins(1), Duration::from_mins(15)),
            Self::Terminal => return TERMINAL_DELAY,
        };
        // 2^16 times the first delay is far beyond the longest: no need to count further.
        let curve = first
            .saturating_mul(1 << failures.saturating_sub(1).min(16))
            .min(longest);
        match self {
            Self::Fast {
                not_before: Some(time),
            } => curve.max((*time).min(LONGEST_NOT_BEFORE)),
            _ => curve,
        }
    }

    /// The delay with ± 20 % of jitter; `random` is uniform in 0..1.
    ///
    /// A time that the peer named is a lower bound and is only lengthened.
    #[must_use]
    pub fn delay_with_jitter(&self, failures: u32, random: f64) -> Duration {
        let random = random.clamp(0.0, 1.0);
        let delay = self.delay(failures);
        match self {
            Self::Fast {
                not_before: Some(_),
            } => delay.mul_f64(1.0 + 0.2 * random),
            _ => delay.mul_f64(0.8 + 0.4 * random),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_http_status_has_its_class() {
        let named = Some(Duration::from_secs(7));
        for (status, retry_after, class) in [
            (400, None, "terminal"),
            (401, None, "slow"),
            (403, None, "slow"),
            (404, None, "slow"),
            (409, None, "fast"),
            (422, None, "terminal"),
            (429, named, "fast"),
            (500, None, "unknown"),
            (503, None, "unknown"),
            (503, named, "fast"),
            (302, None, "unknown"),
        ] {
            assert_eq!(
                Recovery::of_http_status(status, retry_after).as_str(),
                class,
                "{status}"
            );
        }
    }

    #[test]
    fn unknown_doubles_from_one_second_to_one_minute() {
        let seconds: Vec<_> = (1..=8)
            .map(|n| Recovery::Unknown.delay(n).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(Recovery::Unknown.delay(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn slow_doubles_from_one_to_fifteen_minutes() {
        let minutes: Vec<_> = (1..=6)
            .map(|n| Recovery::Slow.delay(n).as_secs() / 60)
            .collect();
        assert_eq!(minutes, [1, 2, 4, 8, 15, 15]);
    }

    #[test]
    fn a_named_time_is_a_lower_bound_even_with_jitter() {
        let fast = Recovery::Fast {
            not_before: Some(Duration::from_secs(90)),
        };
        assert!(fast.delay_with_jitter(1, 0.0) >= Duration::from_secs(90));
        let absurd = Recovery::Fast {
            not_before: Some(Duration::from_secs(1 << 40)),
        };
        assert_eq!(absurd.delay(1), LONGEST_NOT_BEFORE);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        assert_eq!(
            Recovery::Unknown.delay_with_jitter(1, 0.0),
            Duration::from_millis(800)
        );
        assert_eq!(
            Recovery::Unknown.delay_with_jitter(1, 1.0),
            Duration::from_millis(1200)
        );
    }
}
