//! Label values: closed sets only, so that no object, tag or user can make a new time series.

use std::fmt;

use http::{Method, Request, header};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// An enum whose values print as the given words.
macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$value_doc])* $value,)*
        }

        impl $name {
            /// All values, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$value,)*];

            /// The word that stands in the metric.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                self.as_str().encode(encoder)
            }
        }
    };
}

closed_set! {
    /// A controller, named after the kind that it reconciles.
    Controller {
        /// `ClusterStack`
        ClusterStack = "clusterstack",
        /// `ClusterStackRelease`
        ClusterStackRelease = "clusterstackrelease",
        /// `ClusterAddon`
        ClusterAddon = "clusteraddon",
    }
}

closed_set! {
    /// How a reconcile ended.
    Reconciled {
        /// Nothing is left to do.
        Done = "done",
        /// Waits for something; no error.
        Pending = "pending",
        /// Something broke.
        Error = "error",
    }
}

closed_set! {
    /// How a piece of work ended that knows no middle.
    Outcome {
        /// It worked.
        Success = "success",
        /// It did not.
        Error = "error",
    }
}

closed_set! {
    /// Where releases come from.
    Source {
        /// A code host with the API of GitHub.
        Github = "github",
        /// A registry.
        Oci = "oci",
        /// A directory.
        Directory = "directory",
    }
}

closed_set! {
    /// Whether objects are ready.
    Ready {
        /// Condition `Ready` is True.
        Yes = "true",
        /// Condition `Ready` is False, Unknown or missing.
        No = "false",
    }
}

closed_set! {
    /// A class of failure: the words of [`proto::Recovery::as_str`].
    Class {
        /// The outcome is not known.
        Unknown = "unknown",
        /// Passes by itself.
        Fast = "fast",
        /// Somebody must act.
        Slow = "slow",
        /// The same input gives the same answer.
        Terminal = "terminal",
    }
}

impl From<&proto::Recovery> for Class {
    fn from(recovery: &proto::Recovery) -> Self {
        match recovery {
            proto::Recovery::Unknown => Self::Unknown,
            proto::Recovery::Fast { .. } => Self::Fast,
            proto::Recovery::Slow => Self::Slow,
            proto::Recovery::Terminal => Self::Terminal,
        }
    }
}

closed_set! {
    /// What a request asks of the API server, in the words of its own metrics and of RBAC.
    Verb {
        /// Reads one object, or something that is no object.
        Get = "get",
        /// Reads many.
        List = "list",
        /// Opens a stream of changes.
        Watch = "watch",
        /// Creates one object.
        Create = "create",
        /// Replaces one object.
        Update = "update",
        /// Changes one object, other than by apply.
        Patch = "patch",
        /// Server-side apply.
        Apply = "apply",
        /// Deletes one object.
        Delete = "delete",
        /// Deletes many.
        DeleteCollection = "deletecollection",
        /// Anything else.
        Other = "other",
    }
}

impl Verb {
    /// The verb of a request of kube's client, which leaves the name of the called function in the extensions.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let called = request
            .extensions()
            .get::<&'static str>()
            .copied()
            .unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        match *request.method() {
            Method::GET
                if query
                    .split('&')
                    .any(|part| part == "watch=true" || part == "watch=1") =>
            {
                Self::Watch
            }
            Method::GET if called.starts_with("list") => Self::List,
            Method::GET => Self::Get,
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => {
                let kind = request
                    .headers()
                    .get(header::CONTENT_TYPE)
                    .and_then(|kind| kind.to_str().ok());
                if kind.is_some_and(|kind| kind.starts_with("application/apply-patch")) {
                    Self::Apply
                } else {
                    Self::Patch
                }
            }
            Method::DELETE if called == "delete_collection" => Self::DeleteCollection,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// An HTTP code that is expected of an API server, else its class; `none` when there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(&'static str);

impl Code {
    /// No answer: connection refused, cut or timed out.
    pub(super) const NONE: Self = Self("none");

    pub(super) const fn of(status: u16) -> Self {
        Self(match status {
            101 => "101",
            200 => "200",
            201 => "201",
            202 => "202",
            400 => "400",
            401 => "401",
            403 => "403",
            404 => "404",
            405 => "405",
            409 => "409",
            410 => "410",
            415 => "415",
            422 => "422",
            429 => "429",
            500 => "500",
            502 => "502",
            503 => "503",
            504 => "504",
            0..=199 => "1xx",
            203..=299 => "2xx",
            300..=399 => "3xx",
            402..=499 => "4xx",
            _ => "5xx",
        })
    }
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}

/// Declares label sets; the names of the fields are the names of the labels.
macro_rules! label_sets {
    ($($name:ident { $($field:ident: $value:ty),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name {
            $(pub(super) $field: $value,)*
        }
    )*};
}

label_sets! {
    ReconcileLabels { controller: Controller, result: Reconciled }
    ControllerLabels { controller: Controller }
    ErrorLabels { controller: Controller, class: Class }
    OutcomeLabels { result: Outcome }
    SourceLabels { source: Source, result: Outcome }
    RequestLabels { verb: Verb, code: Code }
    ObjectLabels { kind: Controller, ready: Ready }
}
