//! YAML as Go reads it: one set of options for every file of the project.
//!
//! Release authors test with tools written in Go. The options here agree with those on every real manifest at hand;
//! what is left over is told in the tests. Errors name the file, the field and the place, and never quote the file:
//! what this reads may hold secrets.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Error, Options};

/// Longest text of others that is repeated in a message, in bytes.
const MAX_REPEATED: usize = 100;

/// Levels that are read wherever the caller is.
const INLINE_DEPTH: usize = 32;

/// Levels that are read at all: twice as many as in any manifest at hand.
const MAX_DEPTH: usize = 128;

/// Stack for [`MAX_DEPTH`] levels, four times what a debug build needs; only touched pages cost memory.
const DEEP_STACK: usize = 16 * 1024 * 1024;

/// Something that was read, and what its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// Sentences for people, each naming the file.
    pub warnings: Vec<String>,
}

/// Why a file cannot be read as YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// The file has no document.
    #[error("\"{file}\" is empty")]
    LackDocument {
        /// Name of the file.
        file: String,
    },
    /// No manifest is nested like this.
    #[error("\"{file}\" is nested more than {MAX_DEPTH} levels deep")]
    RejectDepth {
        /// Name of the file.
        file: String,
    },
    /// The text is not YAML.
    #[error("\"{file}\" is no valid YAML at {place}: {problem}")]
    RejectSyntax {
        /// Name of the file.
        file: String,
        /// Where.
        place: Place,
        /// What the parser says.
        problem: String,
    },
    /// A field is not there.
    #[error("\"{file}\" lacks the field \"{field}\" ({place})")]
    LackField {
        /// Name of the file.
        file: String,
        /// Path of the field.
        field: String,
        /// Where it should be.
        place: Place,
    },
    /// A field has the wrong type or value.
    #[error("\"{file}\" is wrong in {field} ({place}): expected {expected}, found {found}")]
    RejectField {
        /// Name of the file.
        file: String,
        /// Path of the field, quoted, or "the document".
        field: String,
        /// Where.
        place: Place,
        /// What should be there.
        expected: String,
        /// What is there: its kind, never its content.
        found: &'static str,
    },
}

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Reads a file with one document.
///
/// Of a key that stands twice in one map the last one counts, as in Go, but there is a warning: it is the only loss of
/// data that Go performs in silence. Fields that the type does not know are skipped.
///
/// # Errors
///
/// The text is no YAML, empty ([`YamlError::LackDocument`], for files that may be), has several documents, or does not fit the type.
pub fn parse<T: DeserializeOwned + Send>(file: &str, text: &str) -> Result<Parsed<T>, YamlError> {
    // To the parser that is a map without keys, and a type may need none; to its author it is a mistake.
    if is_empty(text) {
        return Err(YamlError::LackDocument {
            file: file.to_owned(),
        });
    }
    read(file, text, |options| {
        let mut path = None;
        let value =
            serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
                serde_path_to_error::deserialize(deserializer).map_err(|error| {
                    path = Some(error.path().clone());
                    error.into_inner()
                })
            });
        value.map_err(|error| Box::new((error, path)))
    })
}

/// Reads a file with any number of documents; empty ones are left out.
///
/// # Errors
///
/// The text is no YAML, or a document does not fit the type.
pub fn parse_documents<T: DeserializeOwned + Send>(
    file: &str,
    text: &str,
) -> Result<Parsed<Vec<T>>, YamlError> {
    read(file, text, |options| {
        serde_saphyr::from_multiple_with_options(text, options)
            .map_err(|error| Box::new((error, None)))
    })
}

/// Where and why reading stopped, and in which field.
type Stop = Box<(Error, Option<Path>)>;

fn options(max_depth: usize, duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        // `defaultMode: 0644` is 420; without this it would be read as the number 644
        legacy_octal_numbers: true,
        duplicate_keys: duplicate_keys,
        // Go takes `yes` and `on`, too
        strict_booleans: false,
        // snippets quote the file
        with_snippet: false,
        // The defaults refuse large manifests; these are sized by a test.
        budget: serde_saphyr::budget! {
            max_depth: max_depth,
            max_nodes: 1_000_000,
            max_events: 4_000_000,
            max_documents: 10_000,
        },
        // Manifests repeat a few labels; a bomb must end soon even in a debug build.
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
    }
}

/// Reads flat files where the caller is and deep ones on a stack that is large enough.
///
/// The parser needs up to 30 KiB of stack a level in a debug build, and a stack that overflows aborts the process: on
/// a worker's 2 MiB that happens at 70 levels.
fn read<T: Send>(
    file: &str,
    text: &str,
    parse: impl Fn(Options) -> Result<T, Stop> + Sync,
) -> Result<Parsed<T>, YamlError> {
    if let Some(result) = read_to_depth(INLINE_DEPTH, file, text, &parse) {
        return result;
    }
    let too_deep = || YamlError::RejectDepth {
        file: file.to_owned(),
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, || read_to_depth(MAX_DEPTH, file, text, &parse));
        // Without a thread there is no way to read the file; a parser that panics cannot read it either.
        thread
            .ok()
            .and_then(|thread| thread.join().ok())
            .flatten()
            .unwrap_or_else(|| Err(too_deep()))
    })
}

/// Nothing if the text is nested more deeply than `max_depth`.
fn read_to_depth<T>(
    max_depth: usize,
    file: &str,
    text: &str,
    parse: impl Fn(Options) -> Result<T, Stop>,
) -> Option<Result<Parsed<T>, YamlError>> {
    let mut warnings = Vec::new();
    // `LastWins` alone would not tell, so the first attempt refuses.
    let mut result = parse(options(max_depth, DuplicateKeyPolicy::Error));
    if let Err(stop) = &result
        && let Error::DuplicateMappingKey { key, .. } = innermost(&stop.0)
    {
        let key = key
            .as_deref()
            .map_or_else(String::new, |key| format!(" \"{}\"", shorten(key)));
        let place = Place::of(&stop.0);
        warnings.push(format!(
            "\"{file}\" has the key{key} twice in one map ({place}): the last one counts"
        ));
        result = parse(options(max_depth, DuplicateKeyPolicy::LastWins));
    }
    match result.map_err(|stop| *stop) {
        Ok(value) => Some(Ok(Parsed { value, warnings })),
        Err((error, path)) => match innermost(&error) {
            Error::Budget {
                breach: BudgetBreach::Depth { .. },
                ..
            } => None,
            _ => Some(Err(explain(max_depth, file, text, &error, path.as_ref()))),
        },
    }
}

fn explain(
    max_depth: usize,
    file: &str,
    text: &str,
    error: &Error,
    path: Option<&Path>,
) -> YamlError {
    let file = file.to_owned();
    let place = Place::of(error);
    let inner = innermost(error);
    if is_limit(inner) {
        return YamlError::RejectSyntax {
            file,
            place,
            problem: problem(inner),
        };
    }
    // Read once more, as it is, to tell what stands where something else was expected.
    let document = serde_saphyr::from_str_with_options::<Value>(
        text,
        options(max_depth, DuplicateKeyPolicy::LastWins),
    );
    if matches!(inner, Error::Eof { .. }) || matches!(document, Ok(Value::Null)) {
        return YamlError::LackDocument { file };
    }
    let path_text = path
        .map(Path::to_string)
        .filter(|path| path != ".")
        .unwrap_or_default();
    if let Error::SerdeMissingField { field, .. } = inner {
        let field = if path_text.is_empty() {
            (*field).to_owned()
        } else {
            format!("{path_text}.{field}")
        };
        return YamlError::LackField {
            file,
            field: shorten(&field),
            place,
        };
    }
    let document = match document {
        Ok(document) => document,
        // The type met the mistake before the parser did; the parser tells it better.
        Err(error) => {
            return YamlError::RejectSyntax {
                file,
                place: Place::of(&error),
                problem: problem(&error),
            };
        }
    };
    let Some(expected) = expected(inner) else {
        return YamlError::RejectSyntax {
            file,
            place,
            problem: problem(inner),
        };
    };
    let found = path
        .and_then(|path| lookup(&document, path))
        .map_or("something else", kind);
    let field = match path_text.as_str() {
        "" => "the document".to_owned(),
        path => format!("\"{}\"", shorten(path)),
    };
    YamlError::RejectField {
        file,
        field,
        place,
        expected,
        found,
    }
}

/// What a type wanted, in plain words; nothing if the text itself is the problem.
fn expected(error: &Error) -> Option<String> {
    Some(match error {
        Error::Unexpected {
            expected: "mapping start",
            ..
        } => "a map".to_owned(),
        Error::Unexpected {
            expected: "sequence start",
            ..
        } => "a list".to_owned(),
        Error::Unexpected {
            expected: "string scalar",
            ..
        }
        | Error::NullIntoString { .. } => "text".to_owned(),
        Error::InvalidScalar { ty, .. } => format!("a value of type {ty}"),
        Error::SerdeUnknownVariant { expected, .. } => format!("one of {}", expected.join(", ")),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            shorten(expected)
        }
        _ => return None,
    })
}

fn is_empty(text: &str) -> bool {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// Reading such a text once more would only take as long again.
const fn is_limit(error: &Error) -> bool {
    matches!(
        error,
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
    )
}

/// What the parser says, without its place.
fn problem(error: &Error) -> String {
    match innermost(error) {
        // The parser's own text names functions of the parser.
        Error::MultipleDocuments { .. } => "several documents where one is expected".to_owned(),
        // Texts of these repeat values of the file.
        Error::QuotingRequired { .. } | Error::NonFiniteFloat { .. } => {
            "a number that is none, it needs quotes to be text".to_owned()
        }
        Error::SerdeInvalidType { .. } | Error::SerdeInvalidValue { .. } => {
            "a value of the wrong type".to_owned()
        }
        other => {
            let text = other.to_string();
            shorten(text.split(" at line ").next().unwrap_or_default())
        }
    }
}

/// The error without the wrapping for aliases and snippets.
fn innermost(error: &Error) -> &Error {
    match error.without_snippet() {
        Error::AliasError { error, .. } => innermost(error),
        other => other,
    }
}

impl Place {
    fn of(error: &Error) -> Self {
        // An error without a place concerns the document as a whole.
        let (line, column) = error
            .location()
            .map_or((1, 1), |location| (location.line(), location.column()));
        Self { line, column }
    }
}

fn lookup<'a>(document: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter()
        .try_fold(document, |value, segment| match segment {
            Segment::Seq { index } => value.get(index),
            Segment::Map { key } => value.get(key),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// Cuts a text of others to a length that fits into a message.
pub(super) fn shorten(text: &str) -> String {
    if text.len() <= MAX_REPEATED {
        return text.to_owned();
    }
    let (start, _) = text.split_at(text.floor_char_boundary(MAX_REPEATED));
    format!("{start}…")
}

#[cfg(test)]
mod tests;
