//! The file format of the reference provider.
//!
//! ```yaml
//! images:
//! - {name: ubuntu-2404-kube-v1.33, url: "https://…", digest: "sha256:…", size: 1024, format: QCOW2}
//! ```

use proto::request::ResolvedImages;
use proto::{Artifact, Compression, DiskFormat, HttpSource, ImageSpec, ProviderError, Source};
use serde::Deserialize;

use crate::provider::Result;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    name: String,
    url: url::Url,
    digest: Option<String>,
    size: Option<u64>,
    format: Option<String>,
}

/// What a file says.
pub(super) fn read(bytes: &[u8]) -> Result<ResolvedImages> {
    let invalid = |why: String| ProviderError::node_images_invalid(why);
    let text =
        std::str::from_utf8(bytes).map_err(|_error| invalid("the file is not UTF-8".to_owned()))?;
    // The parser has limits of its own against files that blow up.
    let file: File = serde_saphyr::from_str(text)
        .map_err(|_error| invalid("the file is not a list of images in YAML".to_owned()))?;
    let images = file.images.into_iter().map(spec).collect::<Result<_>>()?;
    Ok(ResolvedImages {
        images,
        warnings: Vec::new(),
    })
}

fn spec(image: Image) -> Result<ImageSpec> {
    let refuse = |what: &str| {
        ProviderError::node_images_invalid(format!("the image \"{}\" has {what}", image.name))
    };
    let format = match &image.format {
        None => DiskFormat::Raw,
        Some(name) => DiskFormat::from_name(&format!("DISK_FORMAT_{}", name.to_uppercase()))
            .ok_or_else(|| refuse("a format that is not known"))?,
    };
    let source = Source::Http(HttpSource {
        urls: vec![image.url.clone()],
        ca_bundle_pem: Vec::new(),
    });
    let mut artifact = Artifact::new(source, Compression::None);
    if let Some(digest) = &image.digest {
        let digest = digest
            .parse()
            .map_err(|_error| refuse("a digest that is none"))?;
        artifact = artifact.with_digest(digest);
    }
    if let Some(size) = image.size {
        artifact = artifact.with_size(size);
    }
    Ok(ImageSpec::new(image.name, artifact, format))
}
