//! Which source it is: `spec.source` and its Secrets, or the process default.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::ByteString;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::SourceError;
use crate::{api, args::DefaultSource};

/// The content of a Secret.
pub type SecretData = BTreeMap<String, ByteString>;

/// The API of github.com.
const GITHUB_API: &str = "https://api.github.com";

/// One source. Two are equal if they name the same place and the same credentials, so that stacks with equal ones can
/// share what was found there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SourceSpec {
    /// Releases of a repository.
    GitHub(Repository),
    /// Folders of a directory.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Below which it must lie, links followed; absent if it is the operator's own choice.
        root: Option<PathBuf>,
    },
}

/// A repository of a code host, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    /// The host's API.
    pub api: Url,
    /// Owner of the repository.
    pub owner: String,
    /// Name of the repository.
    pub name: String,
    /// Token, if there is one.
    pub token: Option<Token>,
    /// Certificates (PEM) to trust beside the system's.
    pub ca: Option<String>,
}

/// A token, which no text and no hash shows.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

impl SourceSpec {
    /// The source of a stack that says `source`, else the process default. `secret` and `ca` hold the content of the
    /// Secrets that `source` refers to, if they are there.
    ///
    /// A stack's own source never gets the process's token: its address may be anybody's.
    ///
    /// # Errors
    ///
    /// If no source is named, the named one is refused, or a Secret is missing or holds something else.
    pub fn resolve(
        source: Option<&api::Source>,
        default: &DefaultSource,
        source_root: Option<&Path>,
        secret: Option<&SecretData>,
        ca: Option<&SecretData>,
    ) -> Result<Self, SourceError> {
        let Some(source) = source else {
            return match default {
                DefaultSource::None => Err(SourceError::NeedSource),
                DefaultSource::Directory { path } => Ok(Self::Directory {
                    path: path.clone(),
                    root: None,
                }),
                DefaultSource::Github {
                    url,
                    owner,
                    repository,
                    token,
                } => github(url.clone(), owner, repository, token.clone(), None),
            };
        };
        match (&source.github, &source.directory) {
            (Some(wanted), None) => {
                let url = api_url(wanted.url.as_deref())?;
                let token = source.secret_ref.as_ref().map(|reference| {
                    key(
                        &reference.name,
                        secret,
                        "token",
                        "an access token",
                        is_token,
                    )
                });
                let ca = source.ca_secret_ref.as_ref().map(|reference| {
                    key(
                        &reference.name,
                        ca,
                        "ca.crt",
                        "certificates (PEM)",
                        |text| text.contains("-----BEGIN CERTIFICATE-----"),
                    )
                });
                let token = token.transpose()?.map(Into::into);
                github(
                    url,
                    &wanted.owner,
                    &wanted.repository,
                    token,
                    ca.transpose()?,
                )
            }
            (None, Some(wanted)) => {
                let path = Path::new(&wanted.path);
                let below = |part| matches!(part, Component::Normal(_) | Component::CurDir);
                if !path.components().all(below) {
                    return Err(refuse(format!(
                        "spec.source.directory.path is \"{}\", expected a path without \"..\" and \"/\" at its start",
                        wanted.path
                    )));
                }
                let root = source_root.ok_or_else(|| {
                    refuse("directories need an operator with --source-root".to_owned())
                })?;
                Ok(Self::Directory {
                    path: root.join(path),
                    root: Some(root.to_owned()),
                })
            }
            _ => Err(refuse(
                "spec.source needs exactly one of github and directory".to_owned(),
            )),
        }
    }
}

fn github(
    api: Url,
    owner: &str,
    repository: &str,
    token: Option<SecretString>,
    ca: Option<String>,
) -> Result<SourceSpec, SourceError> {
    for name in [owner, repository] {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(fits) || matches!(name, "." | "..") {
            return Err(refuse(format!(
                "\"{owner}/{repository}\" is no repository, expected \"<owner>/<name>\" of letters, digits, '-', '_' and '.'"
            )));
        }
    }
    Ok(SourceSpec::GitHub(Repository {
        api,
        owner: owner.to_owned(),
        name: repository.to_owned(),
        token: token.map(Token::new).transpose()?,
        ca,
    }))
}

/// The API of the host that a user names by the address of its pages.
fn api_url(text: Option<&str>) -> Result<Url, SourceError> {
    let refused = || {
        refuse(
            "spec.source.github.url is no address such as \"https://github.example.com\"; credentials belong in a Secret"
                .to_owned(),
        )
    };
    let text = text.unwrap_or(GITHUB_API);
    let mut url = Url::parse(text).map_err(|_the_url_may_hold_secrets| refused())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let host = url.host_str().unwrap_or_default().to_owned();
    if !plain || host.is_empty() || !matches!(url.scheme(), "http" | "https") {
        return Err(refused());
    }
    if host == "github.com" || host == "www.github.com" {
        url.set_host(Some("api.github.com"))
            .map_err(|_no_host| refused())?;
    } else if host.ends_with(".ghe.com") && !host.starts_with("api.") {
        // GitHub's own Enterprise hosts
        url.set_host(Some(&format!("api.{host}")))
            .map_err(|_no_host| refused())?;
    } else if host != "api.github.com" && !host.ends_with(".ghe.com") {
        let path = url.path().trim_end_matches('/');
        if !path.ends_with("/api/v3") {
            url.set_path(&format!("{path}/api/v3"));
        }
    }
    Ok(url)
}

/// The text under a key of a Secret, without blanks around it.
fn key(
    name: &str,
    data: Option<&SecretData>,
    key: &'static str,
    expected: &'static str,
    fits: impl Fn(&str) -> bool,
) -> Result<String, SourceError> {
    let name = name.to_owned();
    let Some(data) = data else {
        return Err(SourceError::FindSecret { name });
    };
    data.get(key)
        .and_then(|value| std::str::from_utf8(&value.0).ok())
        .map(str::trim)
        .filter(|text| fits(text))
        .map(str::to_owned)
        .ok_or(SourceError::ReadSecret {
            name,
            key,
            expected,
        })
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn refuse(message: String) -> SourceError {
    SourceError::RefuseSource { message }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GitHub(repository) => repository.fmt(f),
            Self::Directory { path, .. } => write!(f, "\"{}\"", path.display()),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}/{}\" at \"{}\"", self.owner, self.name, self.api)
    }
}

impl Token {
    /// # Errors
    ///
    /// If the text cannot be sent in a header.
    fn new(text: SecretString) -> Result<Self, SourceError> {
        if is_token(text.expose_secret()) {
            return Ok(Self(text));
        }
        Err(refuse(
            "the token has blanks or special characters".to_owned(),
        ))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.expose_secret() == other.expose_secret()
    }
}

impl Eq for Token {}

impl Hash for Token {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

#[cfg(test)]
mod tests;
