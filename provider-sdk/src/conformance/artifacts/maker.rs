//! Makes bytes that look like images: random content behind the header of a disk format, or a small container image.

use proto::wire::DiskFormat;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{digest, hex_digest};
use crate::conformance::sample::Kind;

/// A container image, or a disk packed like one.
#[derive(Clone, Debug)]
pub struct Image {
    /// Media type of the manifest's configuration.
    pub config_type: String,
    /// The configuration.
    pub config: Vec<u8>,
    /// Media type of the layer.
    pub layer_type: String,
    /// The one layer, which holds nearly all bytes.
    pub layer: Vec<u8>,
}

/// What a maker makes.
#[derive(Clone, Debug)]
pub enum Made {
    /// A file for HTTP.
    File(Vec<u8>),
    /// An image for a registry.
    Image(Image),
}

/// Makes artifacts. Equal arguments make equal bytes, other seeds make other bytes.
pub trait ArtifactMaker: Send + Sync {
    /// Makes an artifact of about `size` bytes, most of which compress badly.
    ///
    /// # Errors
    ///
    /// Says why there is none in this form.
    fn make(&self, kind: Kind, format: DiskFormat, size: usize, seed: u64) -> Result<Made, String>;
}

/// Headers of all disk formats, and images for `CONTAINER`: an archive for `docker load`, or a manifest with one layer.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn;

impl ArtifactMaker for BuiltIn {
    fn make(&self, kind: Kind, format: DiskFormat, size: usize, seed: u64) -> Result<Made, String> {
        match (kind, format) {
            (_, DiskFormat::Unspecified) => Err("no disk format".into()),
            (Kind::Oci, DiskFormat::Container) => container(size, seed).map(Made::Image),
            (Kind::Http, DiskFormat::Container) => archive(&container(size, seed)?).map(Made::File),
            (Kind::Http, _) => Ok(Made::File(disk(format, size, seed))),
            (Kind::Oci, _) => Ok(Made::Image(Image {
                config_type: "application/vnd.oci.empty.v1+json".into(),
                config: b"{}".to_vec(),
                layer_type: "application/octet-stream".into(),
                layer: disk(format, size, seed),
            })),
        }
    }
}

fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Noise with the marks by which the format is known; QCOW2 is valid, since some backends look inside.
fn disk(format: DiskFormat, size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = noise(size.max(64 << 10), seed);
    let mut mark = |offset: usize, text: &[u8]| {
        if let Some(place) = bytes.get_mut(offset..offset + text.len()) {
            place.copy_from_slice(text);
        }
    };
    match format {
        DiskFormat::Qcow2 => return qcow2(&bytes),
        DiskFormat::Vmdk => mark(0, b"KDMV\x01\0\0\0"),
        DiskFormat::Vhd => mark(0, b"conectix"),
        DiskFormat::Vhdx => mark(0, b"vhdxfile"),
        DiskFormat::Vdi => mark(0x40, &[0x7f, 0x10, 0xda, 0xbe]),
        DiskFormat::Iso => mark(0x8001, b"CD001"),
        DiskFormat::Ploop => mark(0, b"WithoutFreSpacExt"),
        // No magic numbers, but nothing that looks like another format either.
        _ => mark(0, &[0; 512]),
    }
    bytes
}

/// Version 2, clusters of 64 KiB: header, refcount table, refcount block, first-level table, then data that nothing refers to.
fn qcow2(noise: &[u8]) -> Vec<u8> {
    const CLUSTER: u64 = 1 << 16;
    let data = (noise.len() as u64).div_ceil(CLUSTER);
    let clusters = 4 + data;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"QFI\xfb");
    bytes.extend_from_slice(&2_u32.to_be_bytes());
    bytes.extend_from_slice(&[0; 12]); // no backing file
    bytes.extend_from_slice(&16_u32.to_be_bytes());
    bytes.extend_from_slice(&(1_u64 << 20).to_be_bytes()); // a disk of 1 MiB
    bytes.extend_from_slice(&0_u32.to_be_bytes()); // not encrypted
    bytes.extend_from_slice(&1_u32.to_be_bytes());
    bytes.extend_from_slice(&(3 * CLUSTER).to_be_bytes());
    bytes.extend_from_slice(&CLUSTER.to_be_bytes());
    bytes.extend_from_slice(&1_u32.to_be_bytes());
    let mut image = bytes;
    image.resize(1 << 16, 0);
    image.extend_from_slice(&(2 * CLUSTER).to_be_bytes());
    image.resize(2 << 16, 0);
    for _ in 0..clusters {
        image.extend_from_slice(&1_u16.to_be_bytes());
    }
    image.resize(4 << 16, 0);
    image.extend_from_slice(noise);
    image
}

/// One layer with one file of noise. The command lets a container be created, never started.
fn container(size: usize, seed: u64) -> Result<Image, String> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "noise", &noise(size, seed))?;
    let layer = layer.into_inner().map_err(|error| error.to_string())?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {"Cmd": ["/noise"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "conformance suite"}],
    });
    Ok(Image {
        config_type: "application/vnd.oci.image.config.v1+json".into(),
        config: config.to_string().into_bytes(),
        layer_type: "application/vnd.oci.image.layer.v1.tar".into(),
        layer,
    })
}

/// What `docker save` writes and `docker load` reads.
fn archive(image: &Image) -> Result<Vec<u8>, String> {
    let config = format!("{}.json", hex_digest(&image.config));
    let layer = format!("{}/layer.tar", hex_digest(&image.layer));
    let manifest = json!([{"Config": config, "RepoTags": null, "Layers": [layer]}]);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, &config, &image.config)?;
    append(&mut archive, &layer, &image.layer)?;
    append(
        &mut archive,
        "manifest.json",
        manifest.to_string().as_bytes(),
    )?;
    archive.into_inner().map_err(|error| error.to_string())
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> Result<(), String> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive
        .append_data(&mut header, name, bytes)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(format: DiskFormat, seed: u64) -> Vec<u8> {
        match BuiltIn.make(Kind::Http, format, 100_000, seed).unwrap() {
            Made::File(bytes) => bytes,
            Made::Image(_) => panic!("an image for HTTP"),
        }
    }

    #[test]
    fn equal_seeds_make_equal_bytes_and_others_do_not() {
        for format in [DiskFormat::Raw, DiskFormat::Qcow2, DiskFormat::Container] {
            assert_eq!(file(format, 1), file(format, 1));
            assert_ne!(file(format, 1), file(format, 2));
            assert!(file(format, 1).len() >= 100_000);
        }
    }

    #[test]
    fn archive_holds_what_its_manifest_names() {
        let bytes = file(DiskFormat::Container, 1);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[2], "manifest.json");
    }

    #[test]
    fn qcow2_tables_lie_inside_of_the_file() {
        let bytes = file(DiskFormat::Qcow2, 1);
        let offset = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(&bytes[..4], b"QFI\xfb");
        assert_eq!(bytes[20..24], 16_u32.to_be_bytes());
        assert_eq!(offset(24), 1 << 20);
        assert_eq!(offset(40), 3 << 16, "first-level table");
        assert_eq!(offset(48), 1 << 16, "refcount table");
        assert_eq!(offset(1 << 16), 2 << 16, "refcount block");
        assert!(bytes.len() > 4 << 16);
    }
}
