//! Requests and answers of the artifact server: who gets what, as files and as the reading half of a registry.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    digest,
    server::{Behaviour, Place, Served},
};

/// The head of a request.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Longest head of a request.
const LONGEST_HEAD: usize = 64 << 10;

/// The next request on a connection; what comes after its head stays in the buffer.
pub(super) async fn read_head<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut Vec<u8>,
) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if buffer.len() > LONGEST_HEAD || reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Request {
        method,
        path,
        headers,
    })
}

/// What an answer holds.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: AnswerBody,
}

/// Bytes of an answer.
pub(super) enum AnswerBody {
    Small(Bytes),
    /// The main bytes in this range.
    Main {
        from: u64,
        to: u64,
    },
}

impl Answer {
    pub(super) fn small(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: AnswerBody::Small(body.into()),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The answer to a request for an artifact, by the behaviour of the moment.
pub(super) fn answer(
    request: &Request,
    place: Place,
    served: &Served,
    behaviour: &Behaviour,
    way: &str,
    rest: &[&str],
) -> Answer {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Answer::small(405, "only reading");
    }
    if let Some(status) = way
        .strip_prefix("status-")
        .and_then(|status| status.parse().ok())
        .or(behaviour.status)
    {
        return Answer::small(status, "as asked for");
    }
    if let Some(auth) = &behaviour.auth
        && place != Place::Second
        && request.header("authorization") != Some(&auth.header())
    {
        return Answer::small(401, "credentials, please")
            .with("www-authenticate", "Basic realm=\"conformance\"");
    }
    if way == "redirect" && place != Place::Second {
        let second = served.second_host();
        return Answer::small(302, "there").with(
            "location",
            format!("http://{second}/plain/{}/image", served.id),
        );
    }
    match (&served.content.registry, rest) {
        (None, []) => main_bytes(request, served, "application/octet-stream"),
        (Some(registry), ["manifests", reference])
            if *reference == registry.manifest_digest || *reference == "latest" =>
        {
            Answer::small(200, registry.manifest.clone())
                .with("content-type", "application/vnd.oci.image.manifest.v1+json")
                .with("docker-content-digest", registry.manifest_digest.clone())
        }
        (Some(registry), ["blobs", wanted]) if *wanted == registry.config_digest => {
            Answer::small(200, registry.config.clone())
                .with("content-type", "application/octet-stream")
                .with("docker-content-digest", digest(&registry.config))
        }
        (Some(registry), ["blobs", wanted]) if *wanted == registry.layer_digest => {
            main_bytes(request, served, "application/octet-stream")
                .with("docker-content-digest", registry.layer_digest.clone())
        }
        (Some(_), ["manifests", _]) => Answer::small(
            404,
            "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}",
        )
        .with("content-type", "application/json"),
        (Some(_), ["blobs", _]) => Answer::small(
            404,
            "{\"errors\":[{\"code\":\"BLOB_UNKNOWN\",\"message\":\"blob unknown\"}]}",
        )
        .with("content-type", "application/json"),
        _ => Answer::small(404, "no such path"),
    }
}

fn main_bytes(request: &Request, served: &Served, content_type: &str) -> Answer {
    let size = served.size();
    let tag = format!("\"{}\"", &served.content.digest);
    let range = request
        .header("range")
        .filter(|_| request.header("if-range").is_none_or(|known| known == tag))
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
        .and_then(|(from, to)| {
            let to = match to {
                "" => size,
                to => to.parse::<u64>().ok()?.checked_add(1)?.min(size),
            };
            Some((from.parse::<u64>().ok()?, to))
        });
    let (status, from, to) = match range {
        None => (200, 0, size),
        Some((from, to)) if from < to => (206, from, to),
        Some(_) => {
            return Answer::small(416, "").with("content-range", format!("bytes */{size}"));
        }
    };
    let answer = Answer {
        status,
        headers: Vec::new(),
        body: AnswerBody::Main { from, to },
    }
    .with("content-type", content_type)
    .with("accept-ranges", "bytes")
    .with("etag", tag);
    if status == 206 {
        answer.with("content-range", format!("bytes {from}-{}/{size}", to - 1))
    } else {
        answer
    }
}

pub(super) const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        302 => "Found",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        503 => "Service Unavailable",
        _ => "As Asked",
    }
}
