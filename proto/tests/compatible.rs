//! Within one version of the contract there are only additions: nothing of what was released goes or changes.
//!
//! `released/*.binpb` holds the descriptors of each release (see `released/README.md`).

use std::error::Error;
use std::path::Path;

use prost::Message;
use prost_types::FileDescriptorSet;
use protox::prost_reflect::{DescriptorPool, FieldDescriptor, MethodDescriptor};

const PACKAGE: &str = "clusterstack.provider.v1alpha1";

/// What a peer that was built against `old` would stumble over.
fn breaks(old: &DescriptorPool, new: &DescriptorPool) -> Vec<String> {
    let mut found = Vec::new();
    for message in old.all_messages().filter(|m| m.package_name() == PACKAGE) {
        let name = message.full_name();
        let Some(now) = new.get_message_by_name(name) else {
            found.push(format!("message \"{name}\" is gone"));
            continue;
        };
        for field in message.fields() {
            match now.get_field(field.number()) {
                None => found.push(format!("field \"{}\" is gone", field.full_name())),
                Some(now) if shape(&now) != shape(&field) => {
                    found.push(format!("field \"{}\" has changed", field.full_name()));
                }
                Some(_) => {}
            }
        }
    }
    for list in old.all_enums().filter(|e| e.package_name() == PACKAGE) {
        let now = new.get_enum_by_name(list.full_name());
        for value in list.values() {
            let same = now
                .as_ref()
                .and_then(|now| now.get_value(value.number()))
                .is_some_and(|now| now.name() == value.name());
            if !same {
                found.push(format!("value \"{}\" is gone", value.name()));
            }
        }
    }
    for service in old.services().filter(|s| s.package_name() == PACKAGE) {
        let now = new.get_service_by_name(service.full_name());
        for call in service.methods() {
            let same = now
                .as_ref()
                .and_then(|now| now.methods().find(|now| now.name() == call.name()))
                .is_some_and(|now| signature(&now) == signature(&call));
            if !same {
                found.push(format!("call \"{}\" is gone or has changed", call.name()));
            }
        }
    }
    found
}

/// All that a peer or its author relies on; secrets that are no longer marked are printed by others.
fn shape(field: &FieldDescriptor) -> String {
    let options = field.options();
    let redacted = options.get_field_by_name("debug_redact");
    let group = field
        .containing_oneof()
        .map(|group| group.name().to_owned());
    format!(
        "{} {:?} {:?} {group:?} {redacted:?}",
        field.name(),
        field.kind(),
        field.cardinality()
    )
}

fn signature(call: &MethodDescriptor) -> String {
    let options = call.options();
    let level = options.get_field_by_name("idempotency_level");
    let streams = (call.is_client_streaming(), call.is_server_streaming());
    format!(
        "{} {} {streams:?} {level:?}",
        call.input().full_name(),
        call.output().full_name()
    )
}

fn current() -> Result<DescriptorPool, Box<dyn Error>> {
    Ok(DescriptorPool::decode(proto::wire::FILE_DESCRIPTOR_SET)?)
}

#[test]
fn nothing_that_was_released_is_gone_or_changed() -> Result<(), Box<dyn Error>> {
    let new = current()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("released");
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "binpb")
        {
            let old = DescriptorPool::decode(std::fs::read(&path)?.as_slice())?;
            assert_eq!(breaks(&old, &new), [""; 0], "since \"{}\"", path.display());
        }
    }
    assert_eq!(breaks(&new, &new), [""; 0]);
    Ok(())
}

#[test]
fn changes_that_break_peers_are_found() -> Result<(), Box<dyn Error>> {
    type Edit = fn(&mut FileDescriptorSet);
    let edits: [(&str, Edit); 7] = [
        (
            "message \"clusterstack.provider.v1alpha1.Progress\" is gone",
            |set| {
                let file = at(set, "node_image");
                let file = &mut set.file[file];
                file.message_type
                    .retain(|message| message.name() != "Progress");
                // What refers to it has to go as well, or the set cannot be read.
                for message in &mut file.message_type {
                    message
                        .field
                        .retain(|field| !field.type_name().ends_with(".Progress"));
                }
            },
        ),
        (
            "field \"clusterstack.provider.v1alpha1.Target.target_id\" is gone",
            |set| {
                field(set, "Target", "target_id").number = Some(99);
            },
        ),
        (
            "field \"clusterstack.provider.v1alpha1.Target.target_id\" has changed",
            |set| {
                field(set, "Target", "target_id").name = Some("place".to_owned());
            },
        ),
        (
            "field \"clusterstack.provider.v1alpha1.Progress.bytes_done\" has changed",
            |set| {
                field(set, "Progress", "bytes_done")
                    .set_type(prost_types::field_descriptor_proto::Type::Int32);
            },
        ),
        ("value \"ERROR_REASON_QUOTA_EXCEEDED\" is gone", |set| {
            let file = at(set, "errors");
            set.file[file].enum_type[0]
                .value
                .retain(|value| value.number() != 14);
        }),
        ("call \"GetImage\" is gone or has changed", |set| {
            let file = at(set, "node_image");
            for call in &mut set.file[file].service[0].method {
                if call.name() == "GetImage" {
                    call.server_streaming = Some(true);
                }
            }
        }),
        // The types in which this test edits do not know the mark: reading and writing them drops it.
        (
            "field \"clusterstack.provider.v1alpha1.Target.secrets\" has changed",
            |_set| {},
        ),
    ];
    let old = current()?;
    for (message, edit) in edits {
        let mut set = FileDescriptorSet::decode(proto::wire::FILE_DESCRIPTOR_SET)?;
        edit(&mut set);
        let new = DescriptorPool::from_file_descriptor_set(set)?;
        let found = breaks(&old, &new);
        assert!(
            found.iter().any(|found| found == message),
            "{message}: {found:?}"
        );
    }
    Ok(())
}

fn at(set: &FileDescriptorSet, file: &str) -> usize {
    let name = format!("clusterstack/provider/v1alpha1/{file}.proto");
    set.file
        .iter()
        .position(|file| file.name() == name)
        .expect("a file of the contract")
}

fn field<'a>(
    set: &'a mut FileDescriptorSet,
    message: &str,
    field: &str,
) -> &'a mut prost_types::FieldDescriptorProto {
    let file = at(set, "node_image");
    set.file[file]
        .message_type
        .iter_mut()
        .find(|found| found.name() == message)
        .and_then(|found| found.field.iter_mut().find(|found| found.name() == field))
        .expect("a field of the contract")
}
