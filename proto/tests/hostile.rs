//! Nothing that a peer sends panics: random bytes, and messages whose every field is random.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;
use proto::request::{
    DeleteImage, EnsureImage, GetImage, ListImages, Page, ResolveImages, ResolvedImages,
    ValidateTarget, ValidatedTarget,
};
use proto::{CallError, Observation, ProviderInfo, wire};

/// Reads the bytes as each message, and each message into its checked type.
fn read_as_everything(bytes: &[u8]) {
    macro_rules! read {
        ($($message:ident => $checked:ty,)+) => {
            $(if let Ok(message) = wire::$message::decode(bytes) {
                let _printed = format!("{message:?}");
                match <$checked>::try_from(message) {
                    Ok(checked) => drop(format!("{checked:?}")),
                    Err(invalid) => assert!(!invalid.path().is_empty()),
                }
            })+
        };
    }
    read! {
        GetProviderInfoResponse => ProviderInfo,
        ValidateTargetRequest => ValidateTarget,
        ValidateTargetResponse => ValidatedTarget,
        ResolveImagesRequest => ResolveImages,
        ResolveImagesResponse => ResolvedImages,
        EnsureImageRequest => EnsureImage,
        GetImageRequest => GetImage,
        DeleteImageRequest => DeleteImage,
        ListImagesRequest => ListImages,
        ListImagesResponse => Page,
        ImageObservation => Observation,
    }
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        Just(-1),
        Just(i64::MAX),
        Just(i64::MIN),
        any::<i64>(),
        0..9_i64
    ]
}

fn enumeration() -> impl Strategy<Value = i32> {
    prop_oneof![0..14_i32, any::<i32>()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("ni-abc".to_owned()),
        Just(format!("sha256:{}", "0a".repeat(32))),
        Just("https://files.example.org/i".to_owned()),
        Just("a".repeat(600)),
        ".*",
    ]
}

prop_compose! {
    fn instant()(seconds in number(), nanos in enumeration()) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos }
    }
}

prop_compose! {
    fn length()(seconds in number(), nanos in enumeration()) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }
}

fn value() -> impl Strategy<Value = prost_types::Value> {
    use prost_types::value::Kind;
    let leaf = prop_oneof![
        Just(None),
        any::<f64>().prop_map(|number| Some(Kind::NumberValue(number))),
        text().prop_map(|text| Some(Kind::StringValue(text))),
        any::<bool>().prop_map(|flag| Some(Kind::BoolValue(flag))),
    ]
    .prop_map(|kind| prost_types::Value { kind });
    leaf.prop_recursive(40, 60, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3)
                .prop_map(|values| Kind::ListValue(prost_types::ListValue { values })),
            btree_map(text(), inner, 0..3)
                .prop_map(|fields| Kind::StructValue(prost_types::Struct { fields })),
        ]
        .prop_map(|kind| prost_types::Value { kind: Some(kind) })
    })
}

prop_compose! {
    fn object()(fields in btree_map(text(), value(), 0..3)) -> prost_types::Struct {
        prost_types::Struct { fields }
    }
}

fn source() -> impl Strategy<Value = wire::artifact::Source> {
    prop_oneof![
        vec(text(), 0..6).prop_map(|urls| wire::artifact::Source::Http(wire::HttpSource {
            urls,
            ca_bundle_pem: Vec::new(),
        })),
        text().prop_map(|repository| wire::artifact::Source::Oci(wire::OciSource {
            repository,
            ca_bundle_pem: Vec::new(),
        })),
    ]
}

prop_compose! {
    fn spec()(
        display_name in text(),
        source in proptest::option::of(source()),
        digests in (text(), text()),
        numbers in (number(), number()),
        enums in (enumeration(), enumeration()),
        options in proptest::option::of(object()),
        artifact in any::<bool>(),
    ) -> wire::ImageSpec {
        wire::ImageSpec {
            display_name,
            artifact: artifact.then(|| wire::Artifact {
                source,
                digest: digests.0,
                size_bytes: numbers.0,
                compression: enums.0,
                uncompressed_digest: digests.1,
                ..wire::Artifact::default()
            }),
            disk_format: enums.1,
            min_disk_bytes: numbers.1,
            options,
            ..wire::ImageSpec::default()
        }
    }
}

prop_compose! {
    fn ensure()(
        installation_id in text(),
        target in proptest::option::of((text(), proptest::option::of(object()))),
        key in (text(), text()),
        spec in proptest::option::of(spec()),
        stall_timeout in proptest::option::of(length()),
        times in (proptest::option::of(instant()), proptest::option::of(instant())),
        enums in (enumeration(), enumeration(), enumeration()),
    ) -> wire::EnsureImageRequest {
        wire::EnsureImageRequest {
            caller: Some(wire::CallerInfo { installation_id, ..wire::CallerInfo::default() }),
            target: target.map(|(target_id, config)| wire::Target {
                target_id,
                config,
                ..wire::Target::default()
            }),
            image_key: Some(wire::ImageKey { key: key.0, spec_digest: key.1 }),
            spec,
            policy: Some(wire::WorkPolicy {
                stall_timeout,
                deadline: times.0,
                verified_since: times.1,
                attempt_floor: enums.0,
                verification_level: enums.1,
                adopt: enums.2,
            }),
            publish: true,
        }
    }
}

prop_compose! {
    fn observation()(
        key in (text(), text()),
        texts in (text(), text(), text()),
        numbers in (number(), number(), number()),
        enums in (enumeration(), enumeration(), enumeration()),
        times in (proptest::option::of(instant()), proptest::option::of(instant())),
        next_call_delay in proptest::option::of(length()),
        code in proptest::option::of(enumeration()),
    ) -> wire::ImageObservation {
        wire::ImageObservation {
            image_key: Some(wire::ImageKey { key: key.0, spec_digest: key.1 }),
            state: enums.0,
            provider_image_id: texts.0,
            backend_status: texts.1,
            attempt: enums.1,
            progress: Some(wire::Progress {
                bytes_done: numbers.0,
                bytes_total: numbers.1,
                advance_time: times.0,
            }),
            error: code.map(|code| tonic_types::pb::Status { code, ..Default::default() }),
            next_call_delay,
            verification: Some(wire::Verification {
                level: enums.2,
                observed_digest: texts.2,
                observed_size_bytes: numbers.2,
                verify_time: times.1,
            }),
            ..wire::ImageObservation::default()
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_panic_nobody(bytes in vec(any::<u8>(), 0..300)) {
        read_as_everything(&bytes);
        let status = tonic::Status::with_details(tonic::Code::Internal, "", bytes.into());
        let _class = CallError::of(&status).recovery();
    }

    #[test]
    fn random_requests_are_read_or_refused_and_what_is_read_can_be_sent(message in ensure()) {
        read_as_everything(&message.encode_to_vec());
        if let Ok(request) = EnsureImage::try_from(message) {
            let spec = request.spec.to_wire().expect("what was accepted keeps to the limits");
            let again = proto::ImageSpec::try_from(spec).expect("what we send is accepted");
            prop_assert_eq!(proto::SpecDigest::of(&again), proto::SpecDigest::of(&request.spec));
        }
    }

    #[test]
    fn random_observations_are_read_or_refused(message in observation()) {
        read_as_everything(&message.encode_to_vec());
        if let Ok(seen) = Observation::try_from(message) {
            let again = Observation::try_from(wire::ImageObservation::from(&seen));
            prop_assert_eq!(again, Ok(seen));
        }
    }
}
