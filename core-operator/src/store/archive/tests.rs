use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use proto::Recovery;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;

const NAME: &str = "a-cluster-class-v1.tgz";

/// A tar in the making, with whatever one likes in it.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn chart() -> Self {
        Self::default()
            .file("a/Chart.yaml", "name: a\nversion: 1\n")
            .file("a/templates/x.yaml", "x")
    }

    fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    fn entry(self, kind: EntryType, path: &str, link: &str, content: impl AsRef<[u8]>) -> Self {
        let size = content.as_ref().len() as u64;
        self.header(kind, path.as_bytes(), link, size)
            .bytes(content)
    }

    /// Written as it is: the crate refuses names that lead out of the archive.
    fn header(mut self, kind: EntryType, path: &[u8], link: &str, size: u64) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self
    }

    /// What the header of the next entry has no room for, as POSIX has it.
    fn extended(mut self, records: &str) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_path("extended").unwrap();
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.bytes(records)
    }

    /// Filled up to a whole number of blocks.
    fn bytes(mut self, content: impl AsRef<[u8]>) -> Self {
        self.0.extend(content.as_ref());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A name that has no room in a header.
    fn long(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::GNULongName, "././@LongLink", "", path)
            .file("short", content)
    }

    fn end(self) -> Vec<u8> {
        self.bytes([0; 1024]).0
    }

    fn packed(self) -> Vec<u8> {
        gzip(&self.end())
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut content).unwrap();
    content
}

fn limits() -> ArchiveLimits {
    ArchiveLimits {
        entries: 20,
        unpacked_bytes: 1 << 20,
        name_bytes: 300,
        depth: 4,
    }
}

fn stored(content: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(NAME);
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn chart(content: &[u8]) -> Result<Found, ArchiveInvalid> {
    let (_folder, path) = stored(content);
    check_chart(&path, &limits())
}

/// Walks as charts of the stages `cni` and `csi`, and says which files were written.
fn stages(content: &[u8]) -> (Result<FoundStages, ArchiveInvalid>, Vec<String>) {
    let (folder, path) = stored(content);
    let into = folder.path().join("addons");
    let result = check_stages(
        &path,
        &BTreeSet::from(["cni", "csi"]),
        Some(&into),
        &limits(),
    );
    let written = FileList::read_tree(folder.path()).unwrap().paths();
    // nothing but the archive beside it
    let (inside, outside): (Vec<_>, Vec<_>) = written
        .into_iter()
        .filter(|path| path != NAME)
        .partition(|path| path.starts_with("addons/"));
    assert_eq!(outside, Vec::<String>::new());
    (result, inside)
}

fn staged() -> Tar {
    Tar::default()
        .file("cni/Chart.yaml", "name: cni\nversion: 1\n")
        .file(
            "csi/Chart.yaml",
            "name: csi\nversion: 1\ndependencies: [{name: b, version: 1}]\n",
        )
}

#[test]
fn a_chart_is_one_folder_of_any_name() {
    let plain = Tar::chart().header(EntryType::Directory, b"a/empty/", "", 0);
    assert_eq!(
        chart(&plain.packed()).unwrap(),
        Found {
            declares_dependencies: false
        }
    );
    for (file, text) in [
        ("Chart.yaml", "name: a\ndependencies: [{name: b}]"),
        ("Chart.yaml", "name: a\ndependencies:\n- name: b\n"),
        ("Chart.yaml", "\tnothing that we can read"),
        ("requirements.yaml", "dependencies: []"),
    ] {
        let tar = Tar::default()
            .file("b/Chart.yaml", "name: a\ndependencies: []")
            .file("b/charts/c/requirements.yaml", "");
        let tar = match file {
            "Chart.yaml" => Tar::default().file("b/Chart.yaml", text),
            _ => tar.file(&format!("b/{file}"), text),
        };
        assert!(
            chart(&tar.packed()).unwrap().declares_dependencies,
            "{text}"
        );
    }
    let carried = Tar::default()
        .file("b/Chart.yaml", "name: a\ndependencies: ")
        .file("b/charts/c/requirements.yaml", "")
        .file("b/charts/c/Chart.yaml", "dependencies: [{name: x}]");
    assert!(!chart(&carried.packed()).unwrap().declares_dependencies);
}

#[test]
fn archives_as_other_tools_write_them_are_read() {
    let long = format!("a/{}/{}", "d".repeat(120), "f".repeat(120));
    let commit = Tar::default().entry(
        EntryType::XGlobalHeader,
        "pax_global_header",
        "",
        "19 comment=abcdefg\n",
    );
    let tar = Tar(commit.0)
        .file("a/Chart.yaml", "name: a")
        .long(&long, "x")
        // as before POSIX, a folder is known by the end of its name
        .header(EntryType::Regular, b"a/old/", "", 0)
        .entry(EntryType::Continuous, "a/b", "", "x")
        .entry(EntryType::Symlink, "a/c", "templates/../b", "")
        .entry(EntryType::Link, "a/d", "a/b", "");
    chart(&tar.clone().packed()).unwrap();
    // in two streams, as Go reads it, and without the zeros at its end
    let (first, second) = tar.0.split_at(700);
    chart(&[gzip(first), gzip(second)].concat()).unwrap();
}

#[test]
fn charts_of_stages_are_written_as_they_are() {
    let binary = (0..200_000_u32)
        .map(|number| (number % 251) as u8)
        .collect::<Vec<_>>();
    let tar = Tar::default()
        .file(".helmignore", "x")
        .header(EntryType::Directory, b"./", "", 0)
        .header(EntryType::Directory, b"./cni", "", 0)
        .file("./cni/Chart.yaml", "name: cni")
        .file("cni/charts/b.tgz", &binary)
        .file("other/Chart.yaml", "name: other")
        .file("csi/Chart.yaml", "name: csi\ndependencies: [{name: b}]");
    let (folder, path) = stored(&tar.packed());
    let into = folder.path().join("addons");
    let names = BTreeSet::from(["cni", "csi"]);
    let found = check_stages(&path, &names, Some(&into), &limits()).unwrap();
    assert_eq!(fs::read(into.join("cni/charts/b.tgz")).unwrap(), binary);
    assert_eq!(FileList::read_tree(&into).unwrap(), found.files);
    assert_eq!(
        found.files.paths(),
        ["cni/Chart.yaml", "cni/charts/b.tgz", "csi/Chart.yaml"]
    );
    let declares: Vec<_> = found
        .charts
        .iter()
        .map(|(stage, chart)| (stage.as_str(), chart.declares_dependencies))
        .collect();
    assert_eq!(declares, [("cni", false), ("csi", true)]);
    // without a folder to write to, the list is the same
    let list = check_stages(&path, &names, None, &limits()).unwrap().files;
    assert_eq!(list, found.files);
}

#[test]
fn what_must_be_inside_is_named() {
    for (tar, message) in [
        (
            Tar::default(),
            "lacks \"Chart.yaml\", there is no file at all",
        ),
        (
            Tar::default()
                .file("a/chart.yaml", "")
                .file("a/b/Chart.yaml", ""),
            "lacks \"a/Chart.yaml\", there is a folder without it",
        ),
    ] {
        let error = chart(&tar.packed()).unwrap_err();
        assert!(error.to_string().ends_with(message), "{error}");
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
    for (tar, message) in [
        (
            Tar::default(),
            "lacks \"cni/Chart.yaml\", there is no folder",
        ),
        (
            Tar::default()
                .file("cni/Chart.yaml", "name: cni")
                .file("metrics-server/Chart.yaml", "name: m"),
            "lacks \"csi/Chart.yaml\", there is only \"cni\", \"metrics-server\"",
        ),
        (
            Tar::default()
                .file("cni/Chart.yaml", "name: cni")
                .file("csi/values.yaml", ""),
            "lacks \"csi/Chart.yaml\", there is only \"cni\", \"csi\"",
        ),
    ] {
        let error = stages(&tar.packed()).0.unwrap_err();
        assert_eq!(error.to_string(), format!("\"{NAME}\" {message}"));
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
}

/// Takes everything.
struct Nothing;

impl Visit for Nothing {
    fn takes_dots(&self) -> bool {
        true
    }

    fn begin(&mut self, _path: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn part(&mut self, _part: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn link(&mut self, _path: &str) -> Result<(), Refusal> {
        Ok(())
    }
}

/// In every archive, whatever is done with the files.
fn assert_refused(archives: Vec<(Tar, &'static str)>) {
    for (tar, message) in archives {
        let packed = tar.packed();
        let (_folder, path) = stored(&packed);
        let error = walk(&path, &limits(), &mut Nothing).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.to_string().len() < 500, "{error}");
        assert_eq!(error.recovery(), Recovery::Terminal, "{error}");
        // writes nothing but what it has passed, where it belongs
        let (result, written) = stages(&packed);
        assert_eq!(result.expect_err(message).to_string(), error.to_string());
        assert!(written.len() <= 20, "{written:?}");
    }
}

// pitfall 38
#[test]
fn paths_that_lead_elsewhere_or_twice_to_one_place_are_refused() {
    let tar = staged;
    assert_refused(vec![
        (
            tar().file("../evil", "x"),
            "\"../evil\": expected a path inside of the archive, found \"..\", which may lead out of it",
        ),
        (tar().file("cni/../../evil", "x"), "may lead out of it"),
        (tar().file("cni/..", "x"), "may lead out of it"),
        (
            tar().file("/etc/evil", "x"),
            "\"/etc/evil\": expected a path inside of the archive, found an absolute path",
        ),
        (tar().file("cni\\..\\evil", "x"), "found a backslash"),
        (
            tar().header(EntryType::Regular, b"cni/\xff", "", 0),
            "expected a path in UTF-8",
        ),
        (tar().file("cni/a\nb", "x"), "control character"),
        (
            tar().file("cni/x", "1").file("cni/x", "2"),
            "\"cni/x\": expected each name once, found it a second time",
        ),
        (
            tar().file("cni/x", "1").file("cni/x/y", "2"),
            "expected each name once",
        ),
        (
            tar().file("cni/x/y", "1").file("cni/x", "2"),
            "expected a file, found the name of a folder",
        ),
        (
            tar().file("cni/1/2/3/4/5", "x"),
            "\"cni/1/2/3/4/5\": expected at most 4 folders above it, found 5",
        ),
        (
            tar().long(&format!("cni/{}", "n".repeat(297)), "x"),
            "expected a path of at most 300 bytes, found 301 bytes",
        ),
        (
            tar().long(&format!("cni/{}", "n".repeat(256)), "x"),
            "expected names of at most 255 bytes, found 256 bytes",
        ),
    ]);
}

// pitfall 38
#[test]
fn links_out_of_the_archive_and_things_that_are_no_files_are_refused() {
    let tar = staged;
    let of = |kind| tar().entry(kind, "cni/x", "", "");
    assert_refused(vec![
        (
            tar().entry(EntryType::Symlink, "cni/x", "/etc/passwd", ""),
            "\"cni/x\": expected no link out of the archive, found a link to \"/etc/passwd\"",
        ),
        (
            tar().entry(EntryType::Symlink, "cni/x", "../../evil", ""),
            "expected no link out of the archive",
        ),
        (
            tar().entry(EntryType::Symlink, "cni/x", "../a/../../b", ""),
            "expected no link out of the archive",
        ),
        (
            tar().entry(EntryType::Link, "cni/x", "../evil", ""),
            "expected no link out of the archive",
        ),
        (
            tar().entry(EntryType::Symlink, "cni/x", "", ""),
            "expected no link out of the archive",
        ),
        (
            tar().entry(EntryType::Symlink, "cni/x", "y", "content"),
            "expected a link without content, found 7 bytes",
        ),
        (
            tar().entry(EntryType::Directory, "cni/x", "", "content"),
            "expected a folder without content",
        ),
        (
            of(EntryType::Fifo),
            "\"cni/x\": expected a file or a folder, found a named pipe",
        ),
        (of(EntryType::Char), "found a device"),
        (of(EntryType::Block), "found a device"),
        (of(EntryType::new(b'M')), "the unknown type M"),
        (
            tar()
                .extended("25 GNU.sparse.realsize=9\n")
                .file("cni/x", "x"),
            "found orphaned GNU sparse pax metadata",
        ),
        (
            tar()
                .extended("22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
                .file("cni/x", "x"),
            "\"cni/x\": expected a file or a folder, found a sparse file",
        ),
    ]);
}

// pitfall 38
#[test]
fn archives_that_would_fill_disk_or_memory_are_refused() {
    let tar = staged;
    assert_refused(vec![
        (
            (0..20).fold(tar(), |tar, number| tar.file(&format!("cni/{number}"), "")),
            "is too large: expected at most 20 entries, found more in \"cni/18\"",
        ),
        (
            tar()
                .file("cni/Chart.yaml.d", "")
                .file("cni/large", vec![0; 2 << 20]),
            "is too large: expected at most 1048576 bytes unpacked, found more in \"cni/large\"",
        ),
        (
            tar().header(EntryType::Regular, b"cni/large", "", 1 << 40),
            "bytes unpacked, found more in \"cni/large\"",
        ),
        (
            tar().header(EntryType::Regular, b"cni/cut", "", 5000),
            "is damaged in \"cni/cut\": expected a whole archive, found unexpected EOF",
        ),
        (
            Tar([tar().0, vec![b'1'; 512]].concat()),
            "is damaged after \"csi/Chart.yaml\": expected a whole archive, found archive header checksum mismatch",
        ),
        (
            tar().bytes([0; 1024]).bytes(vec![0; 2 << 20]),
            "bytes unpacked, found more after \"csi/Chart.yaml\"",
        ),
        (
            tar().long(&"x/".repeat(200_000), ""),
            "at most 262144 bytes of headers between two entries, found more after \"csi/Chart.yaml\"",
        ),
    ]);
}

#[test]
fn a_single_chart_has_everything_in_one_folder() {
    for (tar, message) in [
        (
            Tar::chart().file("README.md", ""),
            "\"README.md\": expected everything in the chart's folder, found a file beside it",
        ),
        (
            Tar::chart().file("b/values.yaml", ""),
            "\"b/values.yaml\": expected one folder, \"a\", found another one",
        ),
        (
            Tar::default().file("./a/Chart.yaml", ""),
            "expected \"<chart>/<file>\", found \"./\" before it",
        ),
    ] {
        let error = chart(&tar.packed()).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
}

#[test]
fn a_chart_file_is_kept_only_up_to_its_limit() {
    let large = Tar::default().file("cni/Chart.yaml", vec![b'#'; CHART_FILE_BYTES + 1]);
    let (_folder, path) = stored(&large.packed());
    let (limits, stages) = (ArchiveLimits::default(), BTreeSet::from(["cni"]));
    for error in [
        check_chart(&path, &limits).unwrap_err(),
        check_stages(&path, &stages, None, &limits).unwrap_err(),
    ] {
        assert!(
            error.to_string().ends_with(
                "wrong in \"cni/Chart.yaml\": expected at most 1048576 bytes, found more"
            ),
            "{error}"
        );
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
}

#[test]
fn links_are_refused_in_charts_that_become_folders() {
    for kind in [EntryType::Symlink, EntryType::Link] {
        let (result, _) = stages(&staged().entry(kind, "cni/x", "Chart.yaml", "").packed());
        let error = result.unwrap_err().to_string();
        assert!(
            error.ends_with("wrong in \"cni/x\": expected files and folders, found a link"),
            "{error}"
        );
        let beside = staged().entry(kind, "other/x", "Chart.yaml", "");
        stages(&beside.packed()).0.unwrap();
    }
}

#[test]
fn other_files_are_called_what_they_are() {
    for (content, found) in [
        (&b""[..], "an empty file"),
        (b"\n <!DOCTYPE html><title>Sign in", "a page in HTML"),
        ("\u{feff}<HTML>".as_bytes(), "a page in HTML"),
        (b"Not Found\n", "a text"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (&Tar::chart().end(), "a tar without compression"),
        (b"\x28\xb5\x2f\xfd\0", "other bytes"),
    ] {
        let error = chart(content).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("\"{NAME}\" is no archive: expected a tar compressed with gzip, found {found}")
        );
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
}

#[test]
fn a_cut_archive_is_never_taken_for_a_whole_one() {
    let packed = Tar::chart().packed();
    for length in 0..packed.len() {
        let error = chart(&packed[..length]).expect_err("it is cut");
        assert_eq!(error.recovery(), Recovery::Terminal, "{length}: {error}");
    }
    let error = chart(&packed[..packed.len() - 4]).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "\"{NAME}\" is damaged after \"a/templates/x.yaml\": expected a whole archive, found its end"
        )
    );
    for garbage in [&b"garbage"[..], b"\x1f\x8b\x08"] {
        let error = chart(&[&packed, garbage].concat()).unwrap_err();
        assert_eq!(error.recovery(), Recovery::Terminal, "{error}");
    }
}

#[test]
fn changed_bytes_are_found_by_the_checksum() {
    let content = Tar::chart().end();
    let packed = gzip(&content);
    // behind the header of gzip, of which nobody needs the time and the name of the system
    for byte in 10..packed.len() {
        for bit in 0..8 {
            let mut changed = packed.clone();
            changed[byte] ^= 1 << bit;
            match chart(&changed) {
                Err(error) => assert_eq!(error.recovery(), Recovery::Terminal, "{byte}: {error}"),
                // bits that fill up a byte
                Ok(_) => assert_eq!(gunzip(&changed), content, "{byte}"),
            }
        }
    }
}

#[test]
fn the_disk_is_not_the_archive() {
    let folder = TempDir::new().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("nothing")] {
        let error = check_chart(&path, &limits()).unwrap_err();
        assert!(matches!(error, ArchiveInvalid::Read { .. }), "{error}");
        assert_eq!(error.recovery(), Recovery::Unknown);
    }
    let (folder, path) = stored(&staged().packed());
    let blocked = folder.path().join(NAME).join("addons");
    let names = BTreeSet::from(["cni", "csi"]);
    let error = check_stages(&path, &names, Some(&blocked), &limits()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to unpack \"cni/Chart.yaml\" of \"{NAME}\"")
    );
    assert_eq!(error.recovery(), Recovery::Unknown);
}
