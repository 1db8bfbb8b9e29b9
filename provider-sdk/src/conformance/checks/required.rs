//! VA-01: what is required is missing.

use proto::wire;

use super::validation::{Change, good, invalid};
use crate::conformance::{case::Case, check::Verdict, sample::Kind};

type Leave = fn(&mut wire::ResolveImagesRequest);

/// What is left out of an EnsureImage request, and the paths of which one must be named.
const ENSURE: &[(&str, &[&str], Change)] = &[
    ("no caller", &["caller"], |r| r.caller = None),
    (
        "no caller.installation_id",
        &["caller.installation_id"],
        |r| {
            if let Some(caller) = &mut r.caller {
                caller.installation_id.clear();
            }
        },
    ),
    ("no target", &["target"], |r| r.target = None),
    ("no target.target_id", &["target.target_id"], |r| {
        if let Some(target) = &mut r.target {
            target.target_id.clear();
        }
    }),
    ("no image_key", &["image_key"], |r| r.image_key = None),
    ("no image_key.key", &["image_key.key"], |r| {
        if let Some(key) = &mut r.image_key {
            key.key.clear();
        }
    }),
    (
        "no image_key.spec_digest",
        &["image_key.spec_digest"],
        |r| {
            if let Some(key) = &mut r.image_key {
                key.spec_digest.clear();
            }
        },
    ),
    ("no spec", &["spec"], |r| r.spec = None),
    ("no spec.display_name", &["spec.display_name"], |r| {
        if let Some(spec) = &mut r.spec {
            spec.display_name.clear();
        }
    }),
    ("no spec.artifact", &["spec.artifact"], |r| {
        if let Some(spec) = &mut r.spec {
            spec.artifact = None;
        }
    }),
    (
        "no source in spec.artifact",
        &[
            "spec.artifact.source",
            "spec.artifact",
            "spec.artifact.http",
            "spec.artifact.oci",
        ],
        |r| {
            if let Some(artifact) = r.spec.as_mut().and_then(|spec| spec.artifact.as_mut()) {
                artifact.source = None;
            }
        },
    ),
    ("no spec.disk_format", &["spec.disk_format"], |r| {
        if let Some(spec) = &mut r.spec {
            spec.disk_format = 0;
        }
    }),
];

pub(crate) async fn va_01(cx: &Case) -> Verdict {
    let (_artifact, wish) = good(cx)?;
    let ensure = cx.request(&wish);
    for (what, paths, change) in ENSURE {
        let mut request = ensure.clone();
        change(&mut request);
        invalid(cx, &request, what, paths).await?;
    }
    of_one_image(cx, &ensure).await?;
    of_lists(cx, &ensure).await?;
    of_targets(cx, &ensure).await?;
    of_releases(cx, &ensure).await?;
    if wish_kind(&ensure) == Some(Kind::Oci) || cx.run.formats().iter().any(|f| f.kind == Kind::Oci)
    {
        let mut request = ensure.clone();
        if let Some(artifact) = request
            .spec
            .as_mut()
            .and_then(|spec| spec.artifact.as_mut())
        {
            artifact.source = Some(wire::artifact::Source::Oci(wire::OciSource {
                repository: "registry.example/conformance".into(),
                ca_bundle_pem: Vec::new(),
            }));
            artifact.compression = 0;
            artifact.digest.clear();
        }
        invalid(
            cx,
            &request,
            "an OCI source without digest",
            &["spec.artifact.digest"],
        )
        .await?;
    }
    Ok(())
}

fn wish_kind(request: &wire::EnsureImageRequest) -> Option<Kind> {
    match request.spec.as_ref()?.artifact.as_ref()?.source.as_ref()? {
        wire::artifact::Source::Http(_) => Some(Kind::Http),
        wire::artifact::Source::Oci(_) => Some(Kind::Oci),
    }
}

fn placeless(ensure: &wire::EnsureImageRequest) -> Option<wire::Target> {
    ensure.target.clone().map(|target| wire::Target {
        target_id: String::new(),
        ..target
    })
}

/// GetImage and DeleteImage.
async fn of_one_image(cx: &Case, ensure: &wire::EnsureImageRequest) -> Verdict {
    let (caller, target, image_key) = (
        ensure.caller.clone(),
        ensure.target.clone(),
        ensure.image_key.clone(),
    );
    let no_place = placeless(ensure);
    let no_name = Some(wire::ImageKey::default());
    for (what, path, caller, target, image_key) in [
        (
            "no caller",
            "caller",
            None,
            target.clone(),
            image_key.clone(),
        ),
        (
            "no target",
            "target",
            caller.clone(),
            None,
            image_key.clone(),
        ),
        (
            "no target.target_id",
            "target.target_id",
            caller.clone(),
            no_place.clone(),
            image_key.clone(),
        ),
        (
            "no image_key",
            "image_key",
            caller.clone(),
            target.clone(),
            None,
        ),
        (
            "no image_key.key",
            "image_key.key",
            caller.clone(),
            target.clone(),
            no_name,
        ),
    ] {
        let get = wire::GetImageRequest {
            caller: caller.clone(),
            target: target.clone(),
            image_key: image_key.clone(),
        };
        invalid(cx, &get, what, &[path]).await?;
        let delete = wire::DeleteImageRequest {
            caller,
            target,
            image_key,
        };
        invalid(cx, &delete, what, &[path]).await?;
    }
    Ok(())
}

/// ListImages, where it is served.
async fn of_lists(cx: &Case, ensure: &wire::EnsureImageRequest) -> Verdict {
    let (caller, target) = (ensure.caller.clone(), ensure.target.clone());
    if cx.run.advertises(wire::Capability::List) {
        for (what, path, caller, target) in [
            ("no caller", "caller", None, target.clone()),
            ("no target", "target", caller.clone(), None),
            (
                "no target.target_id",
                "target.target_id",
                caller.clone(),
                placeless(ensure),
            ),
        ] {
            let list = wire::ListImagesRequest {
                caller,
                target,
                ..wire::ListImagesRequest::default()
            };
            invalid(cx, &list, what, &[path]).await?;
        }
    }
    Ok(())
}

/// GetProviderInfo and ValidateTarget.
async fn of_targets(cx: &Case, ensure: &wire::EnsureImageRequest) -> Verdict {
    let (caller, no_place) = (ensure.caller.clone(), placeless(ensure));
    let nobody = wire::GetProviderInfoRequest { caller: None };
    invalid(cx, &nobody, "no caller", &["caller"]).await?;
    for (what, path, caller, target) in [
        ("no caller", "caller", None, no_place.clone()),
        ("no target", "target", caller.clone(), None),
        (
            "target_id set",
            "target.target_id",
            caller.clone(),
            ensure.target.clone(),
        ),
    ] {
        let request = wire::ValidateTargetRequest {
            caller,
            target,
            spec: None,
        };
        invalid(cx, &request, what, &[path]).await?;
    }
    Ok(())
}

/// ResolveImages.
async fn of_releases(cx: &Case, ensure: &wire::EnsureImageRequest) -> Verdict {
    let release = wire::ReleaseIdentity {
        provider: "conformance".into(),
        stack_name: "conformance".into(),
        kubernetes_version: "v1.33.4".into(),
        node_image_version: String::new(),
    };
    let resolve = wire::ResolveImagesRequest {
        caller: ensure.caller.clone(),
        target: placeless(ensure),
        release: Some(release),
        node_images: Vec::new(),
    };
    let leave: [(&str, &str, Leave); 6] = [
        ("no caller", "caller", |r| r.caller = None),
        ("no target", "target", |r| r.target = None),
        ("no release", "release", |r| r.release = None),
        ("no release.provider", "release.provider", |r| {
            if let Some(release) = &mut r.release {
                release.provider.clear();
            }
        }),
        ("no release.stack_name", "release.stack_name", |r| {
            if let Some(release) = &mut r.release {
                release.stack_name.clear();
            }
        }),
        (
            "no release.kubernetes_version",
            "release.kubernetes_version",
            |r| {
                if let Some(release) = &mut r.release {
                    release.kubernetes_version.clear();
                }
            },
        ),
    ];
    for (what, path, leave) in leave {
        let mut request = resolve.clone();
        leave(&mut request);
        invalid(cx, &request, what, &[path]).await?;
    }
    Ok(())
}
