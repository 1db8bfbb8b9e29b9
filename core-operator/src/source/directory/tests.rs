use std::os::unix::fs::symlink;

use proto::Recovery;
use tempfile::TempDir;

use super::{
    super::{RELEASE_BYTES, RELEASE_FILES},
    *,
};

/// A directory with the given files; folders come by themselves.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn directory(folder: &TempDir) -> Directory {
    Directory::new(folder.path().to_owned(), None)
}

fn name(tag: &str) -> ReleaseName {
    tag.parse().unwrap()
}

async fn tags(directory: &Directory) -> Vec<String> {
    let listing = directory.list().await.unwrap();
    let mut tags: Vec<_> = listing.releases.iter().map(ReleaseName::tag).collect();
    tags.sort();
    tags
}

/// What is fetched, by file name.
async fn fetched(directory: &Directory, tag: &str) -> Result<Vec<(String, String)>, SourceError> {
    let into = TempDir::new().unwrap();
    let fetched = directory.fetch(&name(tag), into.path()).await?;
    let mut files: Vec<_> = fs::read_dir(&into)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    let bytes = files.iter().map(|(_, content)| content.len() as u64).sum();
    let counted = Fetched {
        files: files.len(),
        bytes,
    };
    assert_eq!(fetched, counted);
    Ok(files)
}

// pitfalls 8, 61
#[tokio::test]
async fn folders_named_like_releases_are_listed_and_the_rest_is_counted() {
    let folder = folder(&[
        ("a-b-1-30-v1/metadata.yaml", ""),
        ("cluster-stacks/a-b-1-30-v2/metadata.yaml", ""),
        ("cluster-stacks/a-b-1-30-v1/metadata.yaml", ""),
        ("cluster-stacks/README.md", ""),
        ("a-b-1-30-v0-sha.abc/metadata.yaml", ""),
        ("a-b-1-30-v4", "no folder"),
        (".git/config", ""),
    ]);
    let directory = directory(&folder);
    assert_eq!(tags(&directory).await, ["a-b-1-30-v1", "a-b-1-30-v2"]);
    assert_eq!(directory.list().await.unwrap().foreign, 4);
}

#[tokio::test]
async fn missing_directory_is_no_empty_one() {
    let folder = folder(&[]);
    let missing = Directory::new(folder.path().join("missing"), None);
    let release = name("a-b-1-30-v1");
    for error in [
        missing.list().await.unwrap_err(),
        missing.revision(&release).await.unwrap_err(),
        missing.fetch(&release, folder.path()).await.unwrap_err(),
    ] {
        assert!(
            matches!(error, SourceError::ReadDirectory { .. }),
            "{error}"
        );
        assert_eq!(error.recovery(), Recovery::Slow);
    }
    let here = directory(&folder);
    assert_eq!(here.list().await.unwrap(), Listing::default());
    for error in [
        here.revision(&release).await.unwrap_err(),
        here.fetch(&release, folder.path()).await.unwrap_err(),
    ] {
        assert!(matches!(error, SourceError::FindRelease { .. }), "{error}");
    }
}

#[tokio::test]
async fn regular_files_are_fetched_without_folders_and_hidden_ones() {
    let folder = folder(&[
        ("a-b-1-30-v1/metadata.yaml", "content"),
        ("a-b-1-30-v1/empty", ""),
        ("a-b-1-30-v1/.hidden", "x"),
        ("a-b-1-30-v1/..data/linked.yaml", "linked"),
        ("cluster-stacks/a-b-1-30-v2/metadata.yaml", "inner"),
    ]);
    // as volumes of ConfigMaps look
    symlink(
        "..data/linked.yaml",
        folder.path().join("a-b-1-30-v1/linked.yaml"),
    )
    .unwrap();
    let directory = directory(&folder);
    let files = fetched(&directory, "a-b-1-30-v1").await.unwrap();
    let text = |name: &str, content: &str| (name.to_owned(), content.to_owned());
    let expected = [
        text("empty", ""),
        text("linked.yaml", "linked"),
        text("metadata.yaml", "content"),
    ];
    assert_eq!(files, expected);
    let inner = fetched(&directory, "a-b-1-30-v2").await.unwrap();
    assert_eq!(inner, [text("metadata.yaml", "inner")]);
}

#[tokio::test]
async fn links_out_of_a_release_are_refused() {
    let folder = folder(&[("secret", "x"), ("a-b-1-30-v1/metadata.yaml", "")]);
    let link = folder.path().join("a-b-1-30-v1/link");
    let directory = directory(&folder);
    for target in ["../secret", "/etc/passwd", "nothing"] {
        symlink(target, &link).unwrap();
        let error = fetched(&directory, "a-b-1-30-v1").await.unwrap_err();
        assert!(
            matches!(&error, SourceError::RefuseFile { file, .. } if file == "link"),
            "{target}: {error}"
        );
        fs::remove_file(&link).unwrap();
    }
}

#[tokio::test]
async fn links_out_of_the_source_root_are_refused() {
    let outside = folder(&[("a-b-1-30-v1/metadata.yaml", "")]);
    let root = folder(&[("team/a-b-1-30-v2/metadata.yaml", "")]);
    let path = |path: &str| root.path().join(path);
    symlink(outside.path(), path("leads-out")).unwrap();
    symlink(outside.path().join("a-b-1-30-v1"), path("team/a-b-1-30-v1")).unwrap();
    symlink("a-b-1-30-v2", path("team/a-b-1-30-v3")).unwrap();

    let below = |path: PathBuf| Directory::new(path, Some(root.path().to_owned()));
    let team = below(path("team"));
    assert_eq!(tags(&team).await, ["a-b-1-30-v2", "a-b-1-30-v3"]);
    fetched(&team, "a-b-1-30-v3").await.unwrap();
    for error in [
        fetched(&team, "a-b-1-30-v1").await.unwrap_err(),
        below(path("leads-out")).list().await.unwrap_err(),
    ] {
        assert!(
            matches!(error, SourceError::ReadDirectory { .. }),
            "{error}"
        );
    }
    // the operator's own directory may be put together from links
    let own = Directory::new(path("team"), None);
    fetched(&own, "a-b-1-30-v1").await.unwrap();
}

// pitfall 57
#[tokio::test]
async fn revision_changes_with_the_content() {
    let folder = folder(&[("a-b-1-30-v1/one", "1"), ("a-b-1-30-v1/two", "2")]);
    let path = |name: &str| folder.path().join("a-b-1-30-v1").join(name);
    let directory = directory(&folder);
    let release = name("a-b-1-30-v1");
    let revision = async || directory.revision(&release).await.unwrap().unwrap();
    let mut seen = vec![revision().await];
    assert_eq!(revision().await, seen[0]);

    fs::write(path("one"), "11").unwrap();
    seen.push(revision().await);
    fs::remove_file(path("two")).unwrap();
    seen.push(revision().await);
    fs::write(path("three"), "3").unwrap();
    seen.push(revision().await);
    // same size, same times
    let times = fs::metadata(path("three")).unwrap().modified().unwrap();
    fs::write(path("four"), "4").unwrap();
    File::open(path("four"))
        .unwrap()
        .set_modified(times)
        .unwrap();
    fs::rename(path("four"), path("three")).unwrap();
    seen.push(revision().await);
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len());
}

#[tokio::test]
async fn too_many_files_are_refused() {
    let folder = folder(&[]);
    let release = folder.path().join("a-b-1-30-v1");
    fs::create_dir(&release).unwrap();
    for n in 0..=RELEASE_FILES {
        fs::write(release.join(n.to_string()), "").unwrap();
    }
    let directory = directory(&folder);
    let error = fetched(&directory, "a-b-1-30-v1").await.unwrap_err();
    assert!(matches!(error, SourceError::ExceedLimit { .. }), "{error}");
}

#[tokio::test]
async fn too_many_bytes_are_refused() {
    let folder = folder(&[("a-b-1-30-v1/one", "1")]);
    // with holes, so that it takes no room
    let large = File::create(folder.path().join("a-b-1-30-v1/large")).unwrap();
    large.set_len(RELEASE_BYTES).unwrap();
    let directory = directory(&folder);
    let error = fetched(&directory, "a-b-1-30-v1").await.unwrap_err();
    assert!(matches!(error, SourceError::ExceedLimit { .. }), "{error}");
}
