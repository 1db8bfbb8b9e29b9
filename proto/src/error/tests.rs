use super::*;

fn travelled(error: &ProviderError) -> CallError {
    CallError::of(&error.to_status())
}

#[test]
fn errors_arrive_as_they_were_sent() {
    let error = ProviderError::backend_unavailable("the engine does not answer")
        .with_retry_after(Duration::from_secs(7))
        .with_field("target.config.endpoint", "is not reachable")
        .with_metadata("attempt", "3");
    assert_eq!(travelled(&error), CallError::Refused(error.clone()));
    assert_eq!(
        ProviderError::of_rpc_status(&error.to_rpc_status()),
        Some(error)
    );
}

#[test]
fn each_reason_travels_with_its_code_and_has_one_class() {
    for reason in Reason::ALL {
        let error = ProviderError::new(*reason, "words");
        let status = error.to_status();
        assert_eq!(status.code(), reason.code());
        let CallError::Refused(read) = CallError::of(&status) else {
            panic!("{reason:?} is no answer");
        };
        assert_eq!(read.reason(), Some(*reason));
        let class = match reason {
            Reason::InvalidField
            | Reason::ConfigInvalid
            | Reason::UnsupportedArtifact
            | Reason::SizeLimitExceeded
            | Reason::PageTokenInvalid
            | Reason::NodeImagesInvalid
            | Reason::ContentRejected
            | Reason::ImageSpecConflict
            | Reason::DigestMismatch
            | Reason::SizeMismatch
            | Reason::NotSupported => "terminal",
            Reason::TransferStalled | Reason::DeadlinePassed => "unknown",
            Reason::ProviderBusy
            | Reason::OperationInProgress
            | Reason::InternalBug
            | Reason::BackendUnavailable
            | Reason::SourceUnavailable
            | Reason::ProviderNotReady => "fast",
            _ => "slow",
        };
        assert_eq!(read.recovery().as_str(), class, "{reason:?}");
    }
}

#[test]
fn what_passes_by_itself_names_a_time() {
    for reason in [
        Reason::BackendUnavailable,
        Reason::SourceUnavailable,
        Reason::ProviderNotReady,
        Reason::ProviderBusy,
        Reason::OperationInProgress,
    ] {
        let CallError::Refused(read) = travelled(&ProviderError::new(reason, "words")) else {
            panic!("{reason:?} is no answer");
        };
        assert_eq!(read.retry_after(), Some(USUAL_RETRY_AFTER));
    }
}

#[test]
fn statuses_without_our_error_info_are_no_answers() {
    let foreign = pb::Status {
        code: Code::InvalidArgument as i32,
        message: "words".to_owned(),
        details: vec![any(
            "ErrorInfo",
            &ErrorInfo {
                reason: "INVALID_FIELD".to_owned(),
                domain: "example.org".to_owned(),
                metadata: BTreeMap::new(),
            },
        )],
    };
    let mut twice = ProviderError::config_invalid("words").to_rpc_status();
    twice.details.push(twice.details[0].clone());
    for status in [foreign, twice] {
        let status = tonic::Status::with_details(
            Code::InvalidArgument,
            "words",
            status.encode_to_vec().into(),
        );
        let read = CallError::of(&status);
        assert!(matches!(read, CallError::Unanswered { .. }), "{read:?}");
        assert_eq!(read.recovery(), Recovery::Unknown);
    }
    for status in [
        tonic::Status::cancelled("Timeout expired"),
        tonic::Status::invalid_argument("by a proxy"),
        tonic::Status::with_details(Code::Internal, "", vec![0xff; 9].into()),
    ] {
        assert_eq!(CallError::of(&status).recovery(), Recovery::Unknown);
    }
    assert_eq!(
        CallError::of(&tonic::Status::unimplemented("")).recovery(),
        Recovery::Terminal
    );
}

#[test]
fn reasons_of_later_versions_are_judged_by_their_code() {
    for (code, retry, class) in [
        (Code::Unavailable, false, "fast"),
        (Code::ResourceExhausted, false, "slow"),
        (Code::ResourceExhausted, true, "fast"),
        (Code::DataLoss, false, "terminal"),
        (Code::Ok, false, "unknown"),
    ] {
        let mut error = ProviderError::new(Reason::InternalBug, "words");
        error.reason = ReasonText::Later("SOMETHING_NEW".to_owned(), code);
        if retry {
            error = error.with_retry_after(Duration::from_secs(3));
        }
        let read = ProviderError::of_rpc_status(&error.to_rpc_status());
        assert_eq!(read.as_ref().and_then(ProviderError::reason), None);
        assert_eq!(read.map(|read| read.recovery().as_str()), Some(class));
    }
}

#[test]
fn long_errors_stay_below_what_a_trailer_holds() {
    for text in ["a".repeat(5000), "é b".repeat(3000), " ".repeat(1025)] {
        let mut error = ProviderError::config_invalid(text.as_str());
        for n in 0..300 {
            error = error.with_field(format!("target.config.a{n}"), text.as_str());
        }
        for n in 0..300 {
            error = error.with_metadata(format!("m{n}"), text.as_str());
        }
        let status = error.to_status();
        assert!(status.message().ends_with('…'));
        assert!(shortened(status.message(), MAX_MESSAGE_BYTES) == status.message());
        let details = pb::Status::decode(status.details()).expect("details");
        assert!(encoded_len(&details.details) <= MAX_DETAILS_BYTES);
        assert!(matches!(CallError::of(&status), CallError::Refused(_)));
    }
    assert_eq!(shortened("short", 5), "short");
}

#[test]
fn named_times_are_clamped() {
    for (named, taken) in [(0, 1), (60, 60), (u64::MAX, 900)] {
        let error = ProviderError::new(Reason::ProviderBusy, "words")
            .with_retry_after(Duration::from_secs(named));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(taken)));
    }
}

#[test]
fn edited_errors_hold_nothing_of_what_was_taken_out() {
    let error = ProviderError::internal_bug("bad canary")
        .with_field("a", "canary")
        .with_metadata("b", "canary")
        .edited(|text| text.replace("canary", "…"));
    assert!(!format!("{error:?}").contains("canary"));
}
