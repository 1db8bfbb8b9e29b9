//! RI: release files.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use proto::wire::{self, ErrorReason as Reason};
use tonic::Status;

use crate::conformance::{
    artifacts::{Served, Via},
    case::{Case, SMALL, refused},
    check::{Verdict, expect, failed, not_applicable},
    checks::validate_target::works,
    run::Where,
    sample::{About, Kind, NodeImages, Release},
    status::Failure,
};

async fn resolve(
    cx: &Case,
    release: &Release,
    content: Vec<u8>,
) -> Verdict<Result<wire::ResolveImagesResponse, Status>> {
    Ok(cx
        .line()
        .call(&wire::ResolveImagesRequest {
            caller: Some(cx.caller()),
            target: Some(cx.run.placeless(Where::Good)?),
            release: Some(wire::ReleaseIdentity {
                provider: release.provider.clone(),
                stack_name: release.stack_name.clone(),
                kubernetes_version: release.kubernetes_version.clone(),
                node_image_version: release.node_image_version.clone(),
            }),
            node_images: content,
        })
        .await)
}

fn any_release(cx: &Case) -> Release {
    cx.run.options.sample.node_images.first().map_or_else(
        || Release {
            provider: "conformance".into(),
            stack_name: "conformance".into(),
            kubernetes_version: "v1.33.4".into(),
            node_image_version: "v1".into(),
        },
        |sample| sample.release.clone(),
    )
}

async fn empty(cx: &Case) -> Verdict {
    let sent = "ResolveImages with empty node_images";
    let response = resolve(cx, &any_release(cx), Vec::new())
        .await?
        .map_err(|status| failed(sent, "OK and no image", Failure::from(&status)))?;
    expect(
        response.images.is_empty(),
        sent,
        "OK and no image",
        format!("{} images", response.images.len()),
    )
}

pub(crate) async fn ri_01(cx: &Case) -> Verdict {
    empty(cx).await
}

/// Artifacts to which the sample's placeholders lead.
struct Filler {
    run: String,
    file: Option<Arc<Served>>,
    image: Option<Arc<Served>>,
}

impl Filler {
    fn new(cx: &Case) -> Verdict<Self> {
        let make = |kind: Kind| {
            cx.run
                .formats()
                .iter()
                .find(|format| format.kind == kind)
                .map(|format| cx.artifact_in(*format, SMALL))
                .transpose()
        };
        Ok(Self {
            run: cx.run.id.clone(),
            file: make(Kind::Http)?,
            image: make(Kind::Oci)?,
        })
    }

    fn fill(&self, text: &str) -> String {
        let mut text = text.replace("${RUN}", &self.run);
        if let Some(file) = &self.file {
            text = text
                .replace("${URL}", &file.url(Via::Plain))
                .replace("${DIGEST}", &file.content.digest)
                .replace("${SIZE}", &file.size().to_string());
        }
        if let Some(image) = &self.image {
            text = text
                .replace("${REPOSITORY}", &image.repository())
                .replace("${MANIFEST}", &image.content.digest)
                .replace("${MISSING_TAG}", "missing")
                .replace("${TAG}", "latest");
        }
        text
    }

    fn sent(&self) -> u64 {
        [&self.file, &self.image]
            .into_iter()
            .flatten()
            .map(|served| served.sent())
            .sum()
    }
}

fn samples(cx: &Case, about: About) -> Verdict<Vec<&NodeImages>> {
    let samples: Vec<_> = cx
        .run
        .options
        .sample
        .node_images
        .iter()
        .filter(|sample| sample.about == about)
        .collect();
    if samples.is_empty() {
        return Err(not_applicable(format!(
            "the sample has no release file about {about:?}"
        )));
    }
    Ok(samples)
}

/// Resolves a sample file and compares the names.
async fn resolved(
    cx: &Case,
    sample: &NodeImages,
    filler: &Filler,
) -> Verdict<wire::ResolveImagesResponse> {
    let content = filler.fill(&sample.content);
    let sent = format!("ResolveImages with this file:\n{content}");
    let response = resolve(cx, &sample.release, content.clone().into_bytes())
        .await?
        .map_err(|status| failed(&sent, "OK", Failure::from(&status)))?;
    let wanted: BTreeSet<_> = sample.names.iter().map(|name| filler.fill(name)).collect();
    let came: BTreeSet<_> = response
        .images
        .iter()
        .map(|spec| spec.display_name.clone())
        .collect();
    expect(
        wanted == came && came.len() == response.images.len() && came.len() <= 64,
        sent,
        format!("images with these names, each once, at most 64: {wanted:?}"),
        format!("{came:?} in {} images", response.images.len()),
    )?;
    Ok(response)
}

pub(crate) async fn ri_02(cx: &Case) -> Verdict {
    let filler = Filler::new(cx)?;
    for sample in samples(cx, About::Images)? {
        let first = resolved(cx, sample, &filler).await?;
        let second = resolved(cx, sample, &filler).await?;
        expect(
            first == second,
            "ResolveImages twice with the same file",
            format!("equal answers: {first:?}"),
            format!("{second:?}"),
        )?;
        for spec in first.images {
            works(cx, Where::Good, Some(spec)).await?;
        }
    }
    Ok(())
}

/// Files that cannot be understood.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (name, inner) in ('b'..='i').zip('a'..='h') {
        let inner = format!("*{inner},").repeat(9);
        let _ = writeln!(bomb, "{name}: &{name} [{}]", inner.trim_end_matches(','));
    }
    vec![
        (
            "random bytes",
            (0_u32..4096)
                .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        ),
        ("a cut file", b"images:\n- name: \"cut".to_vec()),
        ("no UTF-8", b"images:\n- name: \"\xff\xfe\"\n".to_vec()),
        (
            "deep nesting",
            [vec![b'['; 10_000], vec![b']'; 10_000]].concat(),
        ),
        ("an alias bomb", bomb.into_bytes()),
    ]
}

pub(crate) async fn ri_03(cx: &Case) -> Verdict {
    let has_format = !cx.run.options.sample.node_images.is_empty();
    let release = any_release(cx);
    for (what, content) in garbage() {
        let sent = format!("ResolveImages with {what}");
        match resolve(cx, &release, content).await? {
            Ok(response) if !has_format && response.images.is_empty() => {}
            answer => {
                refused(answer, Reason::NodeImagesInvalid, sent)?;
            }
        }
    }
    let large = [b"# ".to_vec(), vec![b'x'; (513 << 10) - 2]].concat();
    refused(
        resolve(cx, &release, large).await?,
        Reason::SizeLimitExceeded,
        "ResolveImages with 513 KiB",
    )?;
    empty(cx).await
}

pub(crate) async fn ri_04(cx: &Case) -> Verdict {
    let filler = Filler::new(cx)?;
    empty(cx).await?;
    if let Ok(samples) = samples(cx, About::Images) {
        for sample in samples {
            // Names are the business of RI-02.
            let content = filler.fill(&sample.content).into_bytes();
            let _ = resolve(cx, &sample.release, content).await?;
        }
    }
    expect(
        filler.sent() == 0,
        "ResolveImages",
        "no image bytes fetched",
        format!("{} bytes", filler.sent()),
    )?;
    let listed = cx
        .listed(&cx.installation(), &cx.run.target(Where::Good)?)
        .await?;
    expect(
        listed.as_ref().is_none_or(Vec::is_empty),
        "ResolveImages, then ListImages",
        "nothing created",
        format!("{} images", listed.map_or(0, |list| list.len())),
    )
}

pub(crate) async fn ri_05(cx: &Case) -> Verdict {
    let (tags, lacking) = (samples(cx, About::OciTag)?, samples(cx, About::MissingTag)?);
    let filler = Filler::new(cx)?;
    for sample in tags {
        let response = resolved(cx, sample, &filler).await?;
        for spec in response.images {
            let artifact = spec.artifact.unwrap_or_default();
            expect(
                artifact.digest.starts_with("sha256:") || artifact.digest.starts_with("sha512:"),
                "ResolveImages with an image given by a tag",
                "a spec with the digest of the manifest",
                format!("digest \"{}\"", artifact.digest),
            )?;
        }
    }
    for sample in lacking {
        let content = filler.fill(&sample.content).into_bytes();
        refused(
            resolve(cx, &sample.release, content).await?,
            Reason::SourceNotFound,
            "ResolveImages with a tag that the registry does not have",
        )?;
    }
    Ok(())
}
