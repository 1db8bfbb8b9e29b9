//! The bytes behind one or more addresses, piece by piece, through cuts and from one place to the next.
//!
//! Places are asked in the order of preference. One that answers with anything but the content is out; one that is lost
//! half-way is asked again for the rest, unless there is another one that may have it. Bytes of different answers are put
//! together only where the server says that they are of one version (strong `ETag`), or where a known digest will judge them.

use bytes::{Buf, Bytes};
use proto::Reason;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap,
        HeaderName, HeaderValue, IF_RANGE, LOCATION, RANGE,
    },
};

use super::{
    Content, DownloadError, addresses::Addresses, client::REDIRECTS, content::unfit, retry_after,
    shown,
};

/// Attempts of one call for each place, all of which lost the connection; counted anew after each [`PROGRESS`].
const ATTEMPTS: usize = 3;

/// Bytes after which a server counts as one that gets on: a large image over a poor line must arrive in the end.
const PROGRESS: u64 = 1 << 20;

/// Bytes by which kinds of content are told.
const HEAD: usize = 16;

/// What is asked for.
#[derive(Clone)]
pub(super) struct Wanted {
    /// Places of the same bytes, in order of preference; at least one.
    pub(super) urls: Vec<Url>,
    /// Credentials for the origins of these places.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) accept: Option<HeaderValue>,
    pub(super) size: Option<u64>,
    pub(super) limit: u64,
    pub(super) content: Content,
    /// Whether a digest will judge the whole.
    pub(super) judged: bool,
    pub(super) addresses: Addresses,
}

/// What comes next.
pub(super) enum Piece {
    /// More bytes.
    Bytes(Bytes),
    /// All bytes so far count for nothing: the content has another version now.
    Restart,
}

/// Content on its way.
pub(super) struct Pull {
    client: Client,
    wanted: Wanted,
    /// Whether the receiver can forget what it has.
    restarts: bool,
    places: Vec<Place>,
    at: usize,
    answer: Option<Answer>,
    received: u64,
    total: Option<u64>,
    /// Where the first byte is from, and of which version.
    version: Option<(usize, HeaderValue)>,
    mixed: bool,
    attempts: usize,
    reached: u64,
    error: Option<DownloadError>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// Not asked any more.
    out: bool,
    /// Asked for the whole only.
    whole: bool,
}

struct Answer {
    response: Response,
    url: String,
    /// The beginning, if that has been looked at.
    head: Bytes,
    /// Bytes that have been received before.
    skip: u64,
    announced: Option<u64>,
}

impl Pull {
    pub(super) fn new(client: Client, wanted: Wanted, restarts: bool) -> Self {
        let places = vec![Place::default(); wanted.urls.len()];
        Self {
            client,
            wanted,
            restarts,
            places,
            at: 0,
            answer: None,
            received: 0,
            total: None,
            version: None,
            mixed: false,
            attempts: 0,
            reached: 0,
            error: None,
        }
    }

    /// Bytes received so far.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// The size of the whole, as far as it is known.
    #[cfg(feature = "image")]
    pub(super) fn total(&self) -> Option<u64> {
        self.total.or(self.wanted.size)
    }

    /// The place that was asked last, for messages.
    pub(super) fn place(&self) -> String {
        shown(&self.wanted.urls[self.at])
    }

    /// What a wrong digest means. What was put together from several answers is wrong because they do not belong together.
    pub(super) fn mismatch(&self, found: &str, expected: &str) -> DownloadError {
        let url = self.place();
        if self.mixed {
            return DownloadError::Change { url };
        }
        DownloadError::Reject {
            url,
            reason: Reason::DigestMismatch,
            message: format!("its digest is {found}, expected {expected}"),
        }
    }

    /// Waits until a place has answered with content.
    #[cfg(feature = "image")]
    pub(super) async fn open(&mut self) -> Result<(), DownloadError> {
        while self.answer.is_none() {
            if let Err(error) = self.ask().await {
                self.go_on_after(error)?;
            }
        }
        Ok(())
    }

    /// The next piece; nothing once all is there.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, DownloadError> {
        loop {
            let Some(answer) = &mut self.answer else {
                match self.ask().await {
                    Ok(true) => return Ok(Some(Piece::Restart)),
                    Ok(false) => {}
                    Err(error) => self.go_on_after(error)?,
                }
                continue;
            };
            match read(answer, &self.wanted, self.received).await {
                Ok(Some(bytes)) => {
                    self.received += bytes.len() as u64;
                    if !bytes.is_empty() {
                        return Ok(Some(Piece::Bytes(bytes)));
                    }
                }
                Ok(None) => return Ok(None),
                Err(error) if is_lost(&error) => {
                    self.answer = None;
                    self.go_on_after(error)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Chooses where to ask next, or gives up.
    fn go_on_after(&mut self, error: DownloadError) -> Result<(), DownloadError> {
        if self.received >= self.reached + PROGRESS {
            (self.attempts, self.reached) = (0, self.received);
        }
        self.attempts += 1;
        if !is_lost(&error) || self.received == 0 {
            self.places[self.at].out = true;
        }
        let (url, attempts) = (self.place(), self.attempts);
        tracing::debug!(url, attempts, %error, "download is interrupted");
        // The most hopeful one tells whether and when to try again.
        match &self.error {
            Some(before) if hopeless(before) < hopeless(&error) => {}
            _ => self.error = Some(error),
        }
        let next = if self.attempts < ATTEMPTS * self.places.len() {
            self.choose()
        } else {
            None
        };
        match (next, self.error.take()) {
            (None, Some(error)) => Err(error),
            (next, error) => {
                self.at = next.unwrap_or(self.at);
                self.error = error;
                Ok(())
            }
        }
    }

    fn choose(&self) -> Option<usize> {
        let begun = self.received > 0 && !self.wanted.judged;
        if begun
            && let Some((first, _)) = self.version
            && !self.places[first].out
        {
            return Some(first);
        }
        if begun && !self.restarts {
            return None;
        }
        let places = self.places.len();
        (1..=places)
            .map(|step| (self.at + step) % places)
            .find(|place| !self.places[*place].out)
    }

    /// One request, and whether its answer begins anew.
    async fn ask(&mut self) -> Result<bool, DownloadError> {
        let validator = self
            .version
            .as_ref()
            .filter(|(place, _)| *place == self.at)
            .map(|(_, etag)| etag.clone());
        let resume = self.received > 0
            && !self.places[self.at].whole
            && (validator.is_some() || self.wanted.judged);
        let rest = resume.then_some((self.received, validator.as_ref()));
        let response = request(&self.client, &self.wanted, self.at, rest).await?;
        let url = shown(response.url());
        match response.status() {
            StatusCode::OK => self.begin(response, url).await,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if resume => {
                let Some(total) = continues(response.headers(), self.received) else {
                    self.places[self.at].whole = true;
                    return Err(DownloadError::Lose {
                        url,
                        received: self.received,
                        source: None,
                    });
                };
                if self.total.is_some_and(|before| before != total) {
                    return Err(DownloadError::Change { url });
                }
                check_size(&self.wanted, total, true, &url)?;
                self.mixed |= validator.is_none();
                self.answer = Some(Answer {
                    response,
                    url,
                    head: Bytes::new(),
                    skip: 0,
                    announced: Some(total),
                });
                Ok(false)
            }
            status => Err(DownloadError::Refused {
                url,
                status: status.as_u16(),
                retry_after: retry_after(response.headers()),
            }),
        }
    }

    /// Starts with the content of an answer. The beginning is looked at before anything is believed: a web page of some
    /// proxy has the wrong size as well.
    async fn begin(&mut self, mut response: Response, url: String) -> Result<bool, DownloadError> {
        let mut head = Bytes::new();
        while head.len() < HEAD
            && let Some(chunk) = chunk(&mut response, self.received, &url).await?
        {
            head = if head.is_empty() {
                chunk
            } else {
                [head, chunk].concat().into()
            };
        }
        if let Some(message) = unfit(response.headers(), &head, self.wanted.content) {
            return Err(DownloadError::Reject {
                url,
                reason: Reason::ContentRejected,
                message: message.to_owned(),
            });
        }
        let announced = text(response.headers(), CONTENT_LENGTH).and_then(|text| text.parse().ok());
        if let Some(size) = announced {
            check_size(&self.wanted, size, true, &url)?;
        }
        let etag = strong_etag(response.headers()).map(|etag| (self.at, etag));
        let again = self.received > 0;
        let mut skip = 0;
        if again && !self.restarts {
            let same = etag.is_some() && etag == self.version;
            let sizes = self.total.zip(announced);
            if !same && !self.wanted.judged || sizes.is_some_and(|(before, now)| before != now) {
                return Err(DownloadError::Change { url });
            }
            self.mixed |= !same;
            skip = self.received;
        } else {
            self.received = 0;
            self.reached = 0;
            self.version = etag;
            self.total = announced;
            self.mixed = false;
        }
        self.answer = Some(Answer {
            response,
            url,
            head,
            skip,
            announced,
        });
        Ok(again && self.restarts)
    }
}

const fn is_lost(error: &DownloadError) -> bool {
    matches!(
        error,
        DownloadError::Request { .. } | DownloadError::Lose { .. }
    )
}

fn hopeless(error: &DownloadError) -> u8 {
    use proto::Recovery;
    match error.recovery() {
        Recovery::Unknown | Recovery::Fast { .. } => 0,
        Recovery::Slow => 1,
        Recovery::Terminal => 2,
    }
}

/// The next bytes of an answer that are new.
async fn read(
    answer: &mut Answer,
    wanted: &Wanted,
    received: u64,
) -> Result<Option<Bytes>, DownloadError> {
    let mut bytes = std::mem::take(&mut answer.head);
    if bytes.is_empty() {
        let Some(chunk) = chunk(&mut answer.response, received, &answer.url).await? else {
            // A server that announces nothing ends by closing the connection, which may be a cut as well.
            return match answer.announced.or(wanted.size) {
                _ if answer.skip > 0 => Err(lose(&answer.url, received, None)),
                Some(size) if received < size => Err(lose(&answer.url, received, None)),
                _ => Ok(None),
            };
        };
        bytes = chunk;
    }
    let known = usize::try_from(answer.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
    bytes.advance(known);
    answer.skip -= known as u64;
    check_size(wanted, received + bytes.len() as u64, false, &answer.url)?;
    Ok(Some(bytes))
}

async fn chunk(
    response: &mut Response,
    received: u64,
    url: &str,
) -> Result<Option<Bytes>, DownloadError> {
    let chunk = response.chunk().await;
    chunk.map_err(|source| lose(url, received, Some(source.without_url())))
}

fn lose(url: &str, received: u64, source: Option<reqwest::Error>) -> DownloadError {
    DownloadError::Lose {
        url: url.to_owned(),
        received,
        source,
    }
}

/// Asks a place for the content, or for its rest, and follows redirects.
async fn request(
    client: &Client,
    wanted: &Wanted,
    place: usize,
    rest: Option<(u64, Option<&HeaderValue>)>,
) -> Result<Response, DownloadError> {
    let first = &wanted.urls[place];
    let mut url = first.clone();
    let mut authorization = wanted.authorization.clone();
    for _ in 0..=REDIRECTS {
        wanted
            .addresses
            .check_url(&url)
            .map_err(|forbidden| DownloadError::forbid(&url, forbidden))?;
        // What is compressed on the way has another size, and cannot be resumed.
        let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(mut value) = authorization.clone() {
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(value) = &wanted.accept {
            request = request.header(ACCEPT, value);
        }
        if let Some((from, validator)) = rest {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(etag) = validator {
                request = request.header(IF_RANGE, etag);
            }
        }
        let response = request
            .send()
            .await
            .map_err(|source| DownloadError::request(&url, source))?;
        if !response.status().is_redirection() {
            return Ok(response);
        }
        url = next_url(&response)?;
        // For good, also when the way leads back: a foreign server must not choose what we ask with credentials.
        if url.origin() != first.origin() {
            authorization = None;
        }
    }
    Err(DownloadError::Redirect {
        url: shown(first),
        reason: "there are too many of them",
    })
}

/// Compares a size with what is announced and allowed; unless it is the `whole`, it may be smaller.
fn check_size(wanted: &Wanted, found: u64, whole: bool, url: &str) -> Result<(), DownloadError> {
    let (reason, message) = match wanted.size {
        Some(size) if whole && found != size => {
            let message = format!("it has {found} bytes in place of {size}");
            (Reason::SizeMismatch, message)
        }
        // How many more depends on how they arrive, and the same problem has the same words.
        Some(size) if found > size => {
            let message = format!("it has more than the announced {size} bytes");
            (Reason::SizeMismatch, message)
        }
        _ if found > wanted.limit => {
            let message = format!("it has more than the allowed {} bytes", wanted.limit);
            (Reason::SizeLimitExceeded, message)
        }
        _ => return Ok(()),
    };
    Err(DownloadError::Reject {
        url: url.to_owned(),
        reason,
        message,
    })
}

pub(super) fn next_url(response: &Response) -> Result<Url, DownloadError> {
    let here = response.url();
    let refuse = |reason| DownloadError::Redirect {
        url: shown(here),
        reason,
    };
    let next = text(response.headers(), LOCATION)
        .and_then(|location| here.join(location).ok())
        .filter(|next| matches!(next.scheme(), "http" | "https"))
        .ok_or_else(|| refuse("it leads to no web address"))?;
    if here.scheme() == "https" && next.scheme() == "http" {
        return Err(refuse("it leads from https to http"));
    }
    Ok(next)
}

/// The size of the whole, if the answer goes on at `from`.
fn continues(headers: &HeaderMap, from: u64) -> Option<u64> {
    let (range, total) = text(headers, CONTENT_RANGE)?
        .strip_prefix("bytes ")?
        .split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end, total): (u64, u64, u64) =
        (start.parse().ok()?, end.parse().ok()?, total.parse().ok()?);
    (start == from && start <= end && end < total).then_some(total)
}

/// A weak one says that the content means the same, not that the bytes are the same.
fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers
        .get(ETAG)
        .filter(|etag| etag.as_bytes().starts_with(b"\""))
        .cloned()
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
