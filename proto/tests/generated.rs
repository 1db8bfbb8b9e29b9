//! What is committed in `src/gen` is what the proto files say.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;
use protox::prost_reflect::DescriptorPool;

/// Set to anything: what differs is written instead of reported.
const REGENERATE: &str = "PROTO_REGENERATE";

const PACKAGE: &str = "clusterstack.provider.v1alpha1";
/// Secrets are in them, and a derived `Debug` would print those.
const HAND_WRITTEN_DEBUG: [&str; 2] = ["Target", "Artifact"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generate(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let files = ["identity", "node_image", "errors"]
        .map(|name| format!("clusterstack/provider/v1alpha1/{name}.proto"));
    let mut compiler = protox::Compiler::new([root()])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(files)?;
    tonic_prost_build::configure()
        .out_dir(folder)
        // Equal messages have equal bytes, so that answers can be compared.
        .btree_map(".")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .skip_debug(HAND_WRITTEN_DEBUG.map(|message| format!(".{PACKAGE}.{message}")))
        .compile_fds(compiler.file_descriptor_set())?;
    // Without comments and places: what reflection serves and what a release is compared with.
    compiler.include_source_info(false);
    Ok(compiler.encode_file_descriptor_set())
}

#[test]
fn generated_files_are_those_of_the_proto_files() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let descriptors = generate(folder.path())?;
    let code = std::fs::read(folder.path().join(format!("{PACKAGE}.rs")))?;
    for (name, wanted) in [
        (format!("{PACKAGE}.rs"), code),
        (format!("{PACKAGE}.binpb"), descriptors),
    ] {
        let path = root().join("src/gen").join(&name);
        if std::env::var_os(REGENERATE).is_some() {
            std::fs::write(&path, &wanted)?;
        }
        let same = std::fs::read(&path).is_ok_and(|committed| committed == wanted);
        assert!(
            same,
            "\"src/gen/{name}\" is not what the proto files say; run: {REGENERATE}=1 cargo test -p proto --test generated"
        );
    }
    Ok(())
}

/// Words that a field with secrets would have in its name.
const SECRET_WORDS: [&str; 5] = ["secret", "password", "token", "credential", "private_key"];

/// Named like secrets, and none: a version, places in a list, names of keys.
const NO_SECRETS: [&str; 4] = [
    "secrets_version",
    "page_token",
    "next_page_token",
    "secret_keys",
];

#[test]
fn fields_with_secrets_are_marked() -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(root().join(format!("src/gen/{PACKAGE}.binpb")))?;
    let pool = DescriptorPool::decode(bytes.as_slice())?;
    let mut marked = 0;
    let messages = pool
        .all_messages()
        .filter(|message| message.package_name() == PACKAGE);
    for field in messages.flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let named = SECRET_WORDS.iter().any(|word| field.name().contains(word));
        if !named || NO_SECRETS.contains(&field.name()) {
            continue;
        }
        let mark = field
            .options()
            .get_field_by_name("debug_redact")
            .and_then(|mark| mark.as_bool());
        assert_eq!(
            mark,
            Some(true),
            "\"{}\" lacks debug_redact",
            field.full_name()
        );
        assert!(
            HAND_WRITTEN_DEBUG.contains(&field.parent_message().name()),
            "\"{}\" would be printed",
            field.full_name()
        );
        marked += 1;
    }
    assert_eq!(marked, 2, "fields with secrets");
    Ok(())
}

#[test]
fn committed_descriptors_can_be_read() -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(root().join(format!("src/gen/{PACKAGE}.binpb")))?;
    let set = prost_types::FileDescriptorSet::decode(bytes.as_slice())?;
    assert!(set.file.iter().any(|file| file.package() == PACKAGE));
    Ok(())
}
