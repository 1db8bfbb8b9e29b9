//! Why a chart or a template could not be rendered.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use proto::Recovery;

/// Characters of a message of Helm that are kept: conditions have room for a screen, not for a stack of templates.
const MESSAGE_LENGTH: usize = 1000;

/// Why a chart or a template could not be rendered.
///
/// Every request that waits for one render gets the same error, hence `Clone`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The renderer's program cannot be started.
    #[error("failed to start the renderer \"{}\"", program.display())]
    StartRenderer {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The request cannot be sent: too large, or no valid JSON.
    #[error("failed to encode a {kind} request for the renderer: {message}")]
    EncodeRequest {
        /// The kind of request.
        kind: &'static str,
        /// The reason.
        message: String,
    },
    /// Helm refuses the chart, the values or the template.
    #[error("failed to render {what}: {message}")]
    Render {
        /// The chart or the template.
        what: String,
        /// Helm's own words, shortened.
        message: String,
    },
    /// The time limit passed; the renderer was killed.
    #[error("failed to render {what} within the limit of {} s", limit.as_secs_f64())]
    ExceedTime {
        /// The chart or the template.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The renderer grew beyond the memory limit and was killed.
    #[error("failed to render {what} with the memory limit of {} MiB ({} MiB in use)", limit_bytes >> 20, used_bytes >> 20)]
    ExceedMemory {
        /// The chart or the template.
        what: String,
        /// The limit.
        limit_bytes: u64,
        /// What was in use.
        used_bytes: u64,
    },
    /// The renderer ended or was killed in the middle of the request.
    #[error("lost the renderer while it rendered {what}: {message}")]
    LoseRenderer {
        /// The chart or the template.
        what: String,
        /// How it ended, and what it printed.
        message: String,
    },
    /// The renderer's answer makes no sense; it was killed.
    #[error("failed to read the renderer's answer for {what}: {message}")]
    ReadAnswer {
        /// The chart or the template.
        what: String,
        /// What is wrong with it.
        message: String,
    },
}

impl RenderError {
    /// What the failure tells about the next attempt.
    ///
    /// Helm's refusals are final for their input. A renderer that hangs, grows or dies says nothing about the input:
    /// the machine may just be busy.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Render { .. } | Self::EncodeRequest { .. } => Recovery::Terminal,
            Self::StartRenderer { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Recovery::Slow,
                _ => Recovery::Unknown,
            },
            Self::ExceedTime { .. }
            | Self::ExceedMemory { .. }
            | Self::LoseRenderer { .. }
            | Self::ReadAnswer { .. } => Recovery::Unknown,
        }
    }

    pub(super) fn refused(what: &str, message: &str) -> Self {
        Self::Render {
            what: what.to_owned(),
            message: shorten(message, MESSAGE_LENGTH),
        }
    }
}

/// One line of at most `length` characters: the beginning says where, the end says what, the middle goes.
pub(crate) fn shorten(message: &str, length: usize) -> String {
    let line: Vec<char> = message
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .collect();
    if line.len() <= length {
        return line.into_iter().collect();
    }
    let half = length.saturating_sub(3) / 2;
    line[..half]
        .iter()
        .chain(&[' ', '…', ' '])
        .chain(&line[line.len() - half..])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_keep_where_and_what() {
        let message = format!(
            "example/templates/a.yaml:3:5\n  {}\n    nil pointer",
            "x ".repeat(4000)
        );
        let short = shorten(&message, MESSAGE_LENGTH);
        assert!(short.chars().count() <= MESSAGE_LENGTH);
        assert!(
            short.starts_with("example/templates/a.yaml:3:5 x x") && short.ends_with("nil pointer")
        );
        assert_eq!(shorten("a\n  b", 10), "a b");
    }

    #[test]
    fn limits_are_named_and_do_not_condemn_the_chart() {
        let time = RenderError::ExceedTime {
            what: "chart \"a\"".into(),
            limit: Duration::from_secs(30),
        };
        assert_eq!(
            time.to_string(),
            "failed to render chart \"a\" within the limit of 30 s"
        );
        assert_eq!(time.recovery(), Recovery::Unknown);
        let memory = RenderError::ExceedMemory {
            what: "chart \"a\"".into(),
            limit_bytes: 256 << 20,
            used_bytes: 300 << 20,
        };
        assert!(
            memory
                .to_string()
                .contains("limit of 256 MiB (300 MiB in use)")
        );
        assert_eq!(memory.recovery(), Recovery::Unknown);
        assert_eq!(
            RenderError::refused("a", "b").recovery(),
            Recovery::Terminal
        );
    }
}
