//! What is to be done about each object: a plain function of what is wanted, what is there and what we did last.

use jiff::Timestamp;

use super::live::LiveObject;
use crate::{
    api::{DriftPolicy, OWNED_LABEL, RELEASE_LABEL, Resource},
    apply::manifest::Manifest,
};

/// What the API server answered when we last applied an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// UID of the object.
    pub uid: String,
    /// Generation of the object, if its kind has some.
    pub generation: Option<i64>,
    /// Resource version of the object; not known after a restart.
    pub resource_version: Option<String>,
}

impl Applied {
    /// What the inventory remembers; nothing if the object was never applied.
    #[must_use]
    pub fn recorded(entry: &Resource) -> Option<Self> {
        (!entry.uid.is_empty()).then(|| Self {
            uid: entry.uid.clone(),
            generation: entry.generation,
            resource_version: None,
        })
    }
}

/// Another release whose mark an object carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rival {
    /// It is gone, or does not want the object any more, or must give way.
    Yields,
    /// It is a newer release of the same stack: the object is its, and as good as ours.
    Keeps,
    /// It belongs to an older stack.
    Prevails {
        /// `<namespace>/<name>` of the release.
        release: String,
    },
}

/// What is to be done about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is as it should be.
    Keep,
    /// It is to be applied.
    Apply {
        /// Whether it was changed by somebody else since.
        drifted: bool,
        /// Whether its fields are those of the Go operator, and move to us first.
        adopt: bool,
        /// Whether the object is ours already, so that fields which others took may be taken back.
        force: bool,
    },
    /// A newer release of the same stack keeps it.
    Leave,
    /// It is not as it should be, and is only reported.
    Report {
        /// What is wrong.
        what: String,
        /// Whether it is missing altogether.
        missing: bool,
    },
    /// It is somebody else's.
    Conflict {
        /// Whose.
        owner: String,
    },
    /// It may not change under its name.
    Immutable,
    /// Its predecessor is being deleted.
    Wait,
}

/// What is wanted of an object, beside its content.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The object as it is rendered.
    pub manifest: &'a Manifest,
    /// What it was rendered as; compared with the mark on the live object.
    pub content: &'a str,
    /// Whether each render gives another object: then a live one with the right mark stays as it is.
    pub volatile: bool,
    /// `<namespace>/<name>` of our release.
    pub release: &'a str,
    /// What happens when somebody else changed it.
    pub drift: DriftPolicy,
    /// The time.
    pub now: Timestamp,
}

/// Decides about one object. `rival` judges a release other than ours whose mark the object carries.
#[must_use]
pub fn decide(
    wish: &Wish<'_>,
    live: Option<&LiveObject>,
    last: Option<&Applied>,
    rival: impl FnOnce(&str) -> Rival,
) -> Decision {
    let drift = |what: &str, missing: bool| match wish.drift {
        DriftPolicy::Correct => Decision::Apply {
            drifted: true,
            adopt: false,
            force: !missing,
        },
        DriftPolicy::Report => Decision::Report {
            what: what.to_owned(),
            missing,
        },
    };
    let Some(live) = live else {
        return if last.is_some() {
            drift("was deleted", true)
        } else {
            apply(false)
        };
    };
    if live.deleting {
        return Decision::Wait;
    }
    match &live.release {
        None if live.owned => Decision::Apply {
            drifted: false,
            adopt: true,
            force: true,
        },
        None => Decision::Conflict {
            owner: format!("nobody's: it has no label {OWNED_LABEL}"),
        },
        Some(other) if other != wish.release => match rival(other) {
            Rival::Yields if is_template_of_other_content(wish, live) => Decision::Immutable,
            Rival::Yields => apply(true),
            Rival::Keeps => Decision::Leave,
            Rival::Prevails { release } => Decision::Conflict {
                owner: format!("of release \"{release}\", whose ClusterStack is older"),
            },
        },
        Some(_) if live.content.as_deref() != Some(wish.content) => {
            if is_template_of_other_content(wish, live) {
                Decision::Immutable
            } else {
                apply(true)
            }
        }
        Some(_) if wish.volatile => {
            if live.renew_after.is_some_and(|due| due <= wish.now) {
                apply(true)
            } else {
                Decision::Keep
            }
        }
        Some(_) => match last {
            // Not known, for lack of a record: applying tells, and changes nothing where nothing is wrong.
            None if wish.drift == DriftPolicy::Correct => apply(true),
            Some(last) if is_changed(live, last) || !has_labels(live, wish) => {
                drift("was changed", false)
            }
            None | Some(_) => Decision::Keep,
        },
    }
}

const fn apply(force: bool) -> Decision {
    Decision::Apply {
        drifted: false,
        adopt: false,
        force,
    }
}

/// Labels are no part of the generation.
fn has_labels(live: &LiveObject, wish: &Wish<'_>) -> bool {
    let release = &wish.manifest.value()["metadata"]["labels"][RELEASE_LABEL];
    live.owned && live.release_label.as_deref() == release.as_str()
}

/// An older state than the one that we made is no change: the watch is only behind.
fn is_changed(live: &LiveObject, last: &Applied) -> bool {
    if live.uid != last.uid {
        return true;
    }
    if let (Some(live), Some(last)) = (live.generation, last.generation) {
        return live > last;
    }
    // Kinds without generations: every write changes the version, also one to the metadata. Versions of an API server
    // are numbers, and where they are not, applying once more does no harm.
    let number = |version: &str| version.parse::<u128>().ok();
    let Some(version) = &last.resource_version else {
        return true;
    };
    match (number(&live.resource_version), number(version)) {
        (Some(live), Some(last)) => live > last,
        _ => live.resource_version != *version,
    }
}

/// Whether the object is a template of Cluster API, and was rendered as something else when it was applied. It must not
/// change under its name: Machines made from it would not be replaced. Where the mark was removed by hand, the object has
/// no other content.
fn is_template_of_other_content(wish: &Wish<'_>, live: &LiveObject) -> bool {
    let identity = wish.manifest.identity();
    identity.group.ends_with(".cluster.x-k8s.io")
        && identity.kind.ends_with("Template")
        && live
            .content
            .as_deref()
            .is_some_and(|content| content != wish.content)
}

/// Whether an object of the inventory that is not wanted any more may be deleted: it still carries our mark, or is the Go
/// operator's.
#[must_use]
pub fn is_ours(live: &LiveObject, release: &str) -> bool {
    match &live.release {
        Some(owner) => owner == release,
        None => live.owned,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::helm::RenderedObject;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const OURS: &str = "fleet/docker-scs-1-30-v2";

    fn manifest(kind: &str) -> Manifest {
        Manifest::check(&RenderedObject {
            source: "a.yaml".to_owned(),
            object: json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": kind, "metadata": {"name": "a"}}),
        })
        .unwrap()
    }

    fn live() -> LiveObject {
        LiveObject {
            uid: "u".to_owned(),
            generation: Some(3),
            resource_version: "70".to_owned(),
            owned: true,
            release: Some(OURS.to_owned()),
            release_label: None,
            content: Some("c".to_owned()),
            renew_after: None,
            deleting: false,
        }
    }

    fn last() -> Applied {
        Applied {
            uid: "u".to_owned(),
            generation: Some(3),
            resource_version: None,
        }
    }

    struct Case {
        live: Option<LiveObject>,
        last: Option<Applied>,
        drift: DriftPolicy,
        volatile: bool,
        kind: &'static str,
        rival: Rival,
    }

    fn case() -> Case {
        Case {
            live: Some(live()),
            last: Some(last()),
            drift: DriftPolicy::Correct,
            volatile: false,
            kind: "DockerCluster",
            rival: Rival::Yields,
        }
    }

    fn decided(case: Case) -> Decision {
        let manifest = manifest(case.kind);
        let wish = Wish {
            manifest: &manifest,
            content: "c",
            volatile: case.volatile,
            release: OURS,
            drift: case.drift,
            now: NOW,
        };
        decide(&wish, case.live.as_ref(), case.last.as_ref(), |_| {
            case.rival
        })
    }

    fn altered(change: impl FnOnce(&mut LiveObject)) -> LiveObject {
        let mut live = live();
        change(&mut live);
        live
    }

    const DRIFTED: Decision = Decision::Apply {
        drifted: true,
        adopt: false,
        force: true,
    };

    #[test]
    fn object_as_it_should_be_is_kept() {
        assert_eq!(decided(case()), Decision::Keep);
    }

    #[test]
    fn absent_object_is_applied_without_force() {
        let decision = decided(Case {
            live: None,
            last: None,
            ..case()
        });
        assert_eq!(decision, apply(false));
    }

    #[test]
    fn deleted_object_comes_back() {
        // pitfall 11
        let decision = decided(Case {
            live: None,
            ..case()
        });
        assert!(matches!(
            decision,
            Decision::Apply {
                drifted: true,
                force: false,
                ..
            }
        ));
    }

    #[test]
    fn changed_object_is_put_right() {
        for live in [
            Some(altered(|live| live.generation = Some(4))),
            Some(altered(|live| live.uid = "other".to_owned())),
            Some(altered(|live| live.owned = false)),
            Some(altered(|live| {
                live.release_label = Some("other".to_owned());
            })),
        ] {
            assert_eq!(decided(Case { live, ..case() }), DRIFTED);
        }
    }

    #[test]
    fn object_of_a_kind_without_generations_is_compared_by_version() {
        let last = |version: Option<&str>| {
            Some(Applied {
                generation: None,
                resource_version: version.map(ToOwned::to_owned),
                ..last()
            })
        };
        let live = || Some(altered(|live| live.generation = None));
        assert_eq!(
            decided(Case {
                live: live(),
                last: last(Some("70")),
                ..case()
            }),
            Decision::Keep
        );
        assert_eq!(
            decided(Case {
                live: live(),
                last: last(Some("69")),
                ..case()
            }),
            DRIFTED
        );
        assert_eq!(
            decided(Case {
                live: live(),
                last: last(None),
                ..case()
            }),
            DRIFTED
        );
    }

    #[test]
    fn drift_is_only_reported_where_the_policy_says_so() {
        let report = |live| {
            decided(Case {
                live,
                drift: DriftPolicy::Report,
                ..case()
            })
        };
        assert!(matches!(
            report(None),
            Decision::Report { missing: true, .. }
        ));
        let changed = report(Some(altered(|live| live.generation = Some(4))));
        assert!(matches!(changed, Decision::Report { missing: false, .. }));
        assert_eq!(report(Some(live())), Decision::Keep);
    }

    #[test]
    fn object_of_somebody_else_is_a_conflict() {
        // pitfall 43
        let live = Some(altered(|live| {
            live.owned = false;
            live.release = None;
        }));
        assert!(matches!(
            decided(Case { live, ..case() }),
            Decision::Conflict { .. }
        ));
    }

    #[test]
    fn object_of_the_go_operator_is_adopted() {
        let live = Some(altered(|live| {
            live.release = None;
            live.content = None;
        }));
        assert!(matches!(
            decided(Case { live, ..case() }),
            Decision::Apply { adopt: true, .. }
        ));
    }

    #[test]
    fn object_of_another_release_follows_the_rival() {
        // pitfall 6
        let live = || {
            Some(altered(|live| {
                live.release = Some("fleet/docker-scs-1-30-v1".to_owned());
            }))
        };
        let with = |rival| {
            decided(Case {
                live: live(),
                rival,
                ..case()
            })
        };
        assert_eq!(with(Rival::Yields), apply(true));
        assert_eq!(with(Rival::Keeps), Decision::Leave);
        let prevails = Rival::Prevails {
            release: "other/r".to_owned(),
        };
        assert!(matches!(with(prevails), Decision::Conflict { .. }));
    }

    #[test]
    fn template_of_another_release_is_taken_over_only_as_it_is() {
        let of_other = |content: &str| {
            Some(altered(|live| {
                live.release = Some("fleet/docker-scs-1-30-v1".to_owned());
                live.content = Some(content.to_owned());
            }))
        };
        for (kind, content, decision) in [
            ("DockerMachineTemplate", "c", apply(true)),
            ("DockerMachineTemplate", "old", Decision::Immutable),
            ("DockerCluster", "old", apply(true)),
        ] {
            let case = Case {
                live: of_other(content),
                kind,
                ..case()
            };
            assert_eq!(decided(case), decision, "{kind} {content}");
        }
    }

    #[test]
    fn changed_template_is_refused_and_other_changes_are_applied() {
        let live = || Some(altered(|live| live.content = Some("old".to_owned())));
        let template = Case {
            live: live(),
            kind: "DockerMachineTemplate",
            ..case()
        };
        assert_eq!(decided(template), Decision::Immutable);
        assert_eq!(
            decided(Case {
                live: live(),
                ..case()
            }),
            apply(true)
        );
        let unmarked = Some(altered(|live| live.content = None));
        let template = Case {
            live: unmarked,
            kind: "DockerMachineTemplate",
            ..case()
        };
        assert_eq!(decided(template), apply(true));
    }

    #[test]
    fn volatile_object_stays_until_its_mark_changes() {
        let live = Some(altered(|live| live.generation = Some(9)));
        let case = Case {
            live,
            volatile: true,
            ..case()
        };
        assert_eq!(decided(case), Decision::Keep);
    }

    #[test]
    fn volatile_object_is_made_anew_when_its_certificates_are_due() {
        let due_at = |due: Timestamp| {
            decided(Case {
                live: Some(altered(|live| live.renew_after = Some(due))),
                volatile: true,
                ..case()
            })
        };
        assert_eq!(due_at(NOW), apply(true));
        assert_eq!(due_at(Timestamp::MAX), Decision::Keep);
    }

    #[test]
    fn nothing_is_written_over_an_object_that_is_being_deleted() {
        let live = Some(altered(|live| live.deleting = true));
        assert_eq!(decided(Case { live, ..case() }), Decision::Wait);
    }

    #[test]
    fn without_a_record_applying_tells() {
        assert_eq!(
            decided(Case {
                last: None,
                ..case()
            }),
            apply(true)
        );
        let report = Case {
            last: None,
            drift: DriftPolicy::Report,
            ..case()
        };
        assert_eq!(decided(report), Decision::Keep);
    }

    #[test]
    fn only_what_carries_our_mark_is_pruned() {
        // pitfall 32
        assert!(is_ours(&live(), OURS));
        assert!(is_ours(&altered(|live| live.release = None), OURS));
        let foreign = altered(|live| live.release = Some("fleet/other".to_owned()));
        assert!(!is_ours(&foreign, OURS));
        let unmarked = altered(|live| {
            live.release = None;
            live.owned = false;
        });
        assert!(!is_ours(&unmarked, OURS));
    }
}
