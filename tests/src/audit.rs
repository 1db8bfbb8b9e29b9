//! What was asked of an API server, from its audit log.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;

use crate::control_plane::User;
use crate::wait::eventually;

/// Everything but what the control plane asks of itself, and readiness probes.
pub(crate) const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver", "system:kube-controller-manager"]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
- level: None
  nonResourceURLs: ["/readyz*", "/healthz*"]
- level: Metadata
"#;

/// A request that the API server has answered (for a watch: begun to answer).
#[derive(Clone, Debug)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// Group of the resource; empty for the core group.
    pub group: String,
    /// Plural name of the resource, or the path for other requests.
    pub resource: String,
    /// Subresource, if any.
    pub subresource: String,
    /// Namespace, if any.
    pub namespace: String,
    /// Name of the object, if any.
    pub name: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// Whether the server was asked only to try.
    pub dry_run: bool,
    /// When it arrived.
    pub received: Timestamp,
    /// When it was answered (for a watch: begun to be).
    pub answered: Timestamp,
}

impl Request {
    /// Whether it may have changed an object: no reading, no trial, no question for rights.
    #[must_use]
    pub fn is_write(&self) -> bool {
        let changes = ["create", "update", "patch", "delete", "deletecollection"]
            .contains(&self.verb.as_str());
        let asks = ["authorization.k8s.io", "authentication.k8s.io"].contains(&self.group.as_str());
        changes && !asks && !self.dry_run
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(formatter, "/{}", self.subresource)?;
        }
        write!(
            formatter,
            " {}/{} -> {}",
            self.namespace, self.name, self.code
        )
    }
}

/// The requests of one user since a moment; see [`ApiServer::requests`](crate::ApiServer::requests).
#[derive(Debug)]
pub struct Requests {
    log: PathBuf,
    user: String,
    since: u64,
    admin: User,
}

/// How often what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(String, String, String), usize>);

impl Requests {
    pub(crate) async fn new(log: PathBuf, user: &str, admin: User) -> Result<Self> {
        let mut requests = Self {
            log,
            user: user.to_owned(),
            since: 0,
            admin,
        };
        requests.mark().await?;
        Ok(requests)
    }

    /// Forgets what was asked so far.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    pub async fn mark(&mut self) -> Result<()> {
        self.settle().await?;
        let metadata = std::fs::metadata(&self.log).context("failed to look at the audit log")?;
        self.since = metadata.len();
        Ok(())
    }

    /// The requests since the mark, in the order of their answers.
    ///
    /// # Errors
    ///
    /// When the API server does not answer or wrote something unexpected.
    pub async fn list(&self) -> Result<Vec<Request>> {
        self.settle().await?;
        let mut requests = Vec::new();
        self.read(|entry| {
            // A watch is one request: it counts when it begins, other requests when they are done.
            let stage = if entry.verb == "watch" {
                "ResponseStarted"
            } else {
                "ResponseComplete"
            };
            if entry.user.username == self.user && entry.stage == stage {
                requests.push(entry.into());
            }
        })?;
        Ok(requests)
    }

    /// The number of requests since the mark by verb, resource and subresource.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn counts(&self) -> Result<Counts> {
        Ok(Counts::of(self.list().await?.iter()))
    }

    /// The writes since the mark.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub async fn writes(&self) -> Result<Vec<Request>> {
        let mut requests = self.list().await?;
        requests.retain(Request::is_write);
        Ok(requests)
    }

    /// Waits until the log holds what was answered before this call: an answer may reach its client before the log.
    async fn settle(&self) -> Result<()> {
        let mark = format!("/livez?mark={}", crate::random_word());
        let client = self.admin.client().await?;
        let request = http::Request::get(&mark).body(Vec::new())?;
        client
            .request_text(request)
            .await
            .context("failed to mark the audit log")?;
        eventually(
            "the audit log holds the mark",
            Duration::from_secs(5),
            async || {
                let mut found = false;
                self.read(|entry| found |= entry.request_uri == mark)?;
                ensure!(found, "no request for {mark}");
                Ok(())
            },
        )
        .await
    }

    fn read(&self, mut each: impl FnMut(Entry)) -> Result<()> {
        let mut file = File::open(&self.log).context("failed to open the audit log")?;
        file.seek(SeekFrom::Start(self.since))
            .context("failed to read the audit log")?;
        for line in BufReader::new(file).lines() {
            let line = line.context("failed to read the audit log")?;
            // The last line may be half written.
            if line.ends_with('}')
                && let Ok(entry) = serde_json::from_str(&line)
            {
                each(entry);
            }
        }
        Ok(())
    }
}

impl Counts {
    /// Counts requests.
    pub fn of<'a>(requests: impl Iterator<Item = &'a Request>) -> Self {
        let mut counts = BTreeMap::new();
        for request in requests {
            let key = (
                request.verb.clone(),
                request.resource.clone(),
                request.subresource.clone(),
            );
            *counts.entry(key).or_insert(0) += 1;
        }
        Self(counts)
    }

    /// All requests.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Requests with this verb for this resource and subresource (`""` for none).
    #[must_use]
    pub fn get(&self, verb: &str, resource: &str, subresource: &str) -> usize {
        let key = (verb.to_owned(), resource.to_owned(), subresource.to_owned());
        self.0.get(&key).copied().unwrap_or(0)
    }

    /// Requests by verb.
    #[must_use]
    pub fn by_verb(&self) -> BTreeMap<&str, usize> {
        let mut verbs = BTreeMap::new();
        for ((verb, _, _), count) in &self.0 {
            *verbs.entry(verb.as_str()).or_insert(0) += count;
        }
        verbs
    }

    /// Each verb, resource and subresource with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &str, usize)> {
        self.0.iter().map(|((verb, resource, subresource), count)| {
            (
                verb.as_str(),
                resource.as_str(),
                subresource.as_str(),
                *count,
            )
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verb, resource, subresource, count) in self.iter() {
            let slash = if subresource.is_empty() { "" } else { "/" };
            writeln!(formatter, "{count:6} {verb} {resource}{slash}{subresource}")?;
        }
        Ok(())
    }
}

/// The part of an audit event that is of interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: EntryUser,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct EntryUser {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

impl From<Entry> for Request {
    fn from(entry: Entry) -> Self {
        let (path, query) = entry
            .request_uri
            .split_once('?')
            .unwrap_or((&entry.request_uri, ""));
        let object = entry.object_ref.unwrap_or_default();
        Self {
            verb: entry.verb,
            group: object.api_group,
            resource: if object.resource.is_empty() {
                path.to_owned()
            } else {
                object.resource
            },
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            user_agent: entry.user_agent,
            code: entry.response_status.map_or(0, |status| status.code),
            dry_run: query.contains("dryRun=All"),
            received: entry.request_received_timestamp,
            answered: entry.stage_timestamp,
        }
    }
}
