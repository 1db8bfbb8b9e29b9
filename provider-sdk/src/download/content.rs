//! What content must look like.

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::pull::text;

/// What content must look like. A web page in place of it is refused always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Anything else.
    Any,
    /// A gzip stream.
    Gzip,
}

/// What is wrong with the kind of an answer.
pub(super) fn unfit(headers: &HeaderMap, head: &[u8], content: Content) -> Option<&'static str> {
    let is = |text: &str, start: &str| text.trim_start().to_ascii_lowercase().starts_with(start);
    let media_type = text(headers, CONTENT_TYPE).unwrap_or_default();
    let begin = String::from_utf8_lossy(head);
    if is(media_type, "text/html")
        || is(media_type, "application/xhtml")
        || is(&begin, "<!doctype html")
        || is(&begin, "<html")
    {
        Some("it is a web page")
    } else if text(headers, CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        Some("it was compressed on the way")
    } else if content == Content::Gzip && !head.starts_with(&[0x1f, 0x8b]) {
        Some("it is no gzip archive")
    } else {
        None
    }
}
