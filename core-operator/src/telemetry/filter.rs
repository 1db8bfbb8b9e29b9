//! Which log lines are written, and which spans are exported.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// Libraries whose lines below info only drown ours; `--log-level` with directives shows them all the same.
const NOISY: &str =
    "h2=info,hyper=info,hyper_util=info,kube_client=info,reqwest=info,rustls=info,tower=info";

/// The exporter's own lines: an absent collector would write one every few seconds. Ours says it once.
const EXPORTER: &str = "opentelemetry=off";

/// Only spans of these are exported. A list of what is wanted, because each call of the exporter itself makes some
/// 150 spans in `h2`, `hyper`, `tonic` and `tower`, which would be exported in turn.
const TRACED: &str = "off,core_operator=debug,provider_sdk=debug";

/// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`) or directives such as `info,core_operator::store=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter for log lines.
    pub(super) fn logs(&self) -> EnvFilter {
        let Self(filter) = self;
        EnvFilter::new(match filter.as_str() {
            "off" | "error" | "warn" => format!("{filter},{EXPORTER}"),
            level if is_level(level) => format!("{level},{NOISY},{EXPORTER}"),
            directives => format!("{EXPORTER},{directives}"),
        })
    }

    /// The filter for exported spans, which does not depend on what is logged.
    pub(super) fn traces() -> EnvFilter {
        EnvFilter::new(TRACED)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_level(text: &str) -> bool {
    matches!(text, "off" | "error" | "warn" | "info" | "debug" | "trace")
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected off, error, warn, info, debug, trace or directives such as \"info,core_operator::store=debug\"";
        let filter = text.trim().to_ascii_lowercase();
        if is_level(&filter) {
            return Ok(Self(filter));
        }
        // A bare word would be taken for the name of a module, and everything of ours silently dropped.
        let directives: Vec<_> = text.split(',').map(str::trim).collect();
        if directives
            .iter()
            .any(|part| !part.contains('=') && !is_level(&part.to_ascii_lowercase()))
        {
            return Err(EXPECTED.to_owned());
        }
        let directives = directives.join(",");
        EnvFilter::try_new(&directives).map_err(|error| format!("{error}; {EXPECTED}"))?;
        Ok(Self(directives))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_accepted() {
        for text in [
            "info",
            "DEBUG",
            "error",
            "off",
            "info,core_operator::store=debug",
            "kube=trace",
            "warn, h2=off",
        ] {
            text.parse::<LogFilter>().unwrap();
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_module() {
        for text in ["verbose", "", "info,chatty", "core_operator=loud", "2"] {
            let error = text.parse::<LogFilter>().unwrap_err();
            assert!(error.contains("expected off, error"), "{text}: {error}");
        }
    }
}
