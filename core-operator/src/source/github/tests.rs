use super::*;

fn asset(name: &str, state: &str, size: u64) -> Asset {
    Asset {
        id: 1,
        name: name.to_owned(),
        state: state.to_owned(),
        size,
        digest: None,
        browser_download_url: "https://example.com/".parse().unwrap(),
    }
}

fn name() -> ReleaseName {
    "docker-scs-1-30-v0-sha-abc".parse().unwrap()
}

#[test]
fn release_is_finished_when_all_files_are_there() {
    // pitfalls 1.2: a tag exists but its release is not finished
    const CHART: &str = "docker-scs-1-30-cluster-class-v0-sha.abc.tgz";
    for (assets, expected) in [
        (vec![], Some("it has no \"metadata.yaml\"")),
        (
            vec![asset("metadata.yaml", "uploaded", 1)],
            Some("it has no \"docker-scs-1-30-cluster-class-v0-sha.abc.tgz\""),
        ),
        (
            vec![
                asset("metadata.yaml", "uploaded", 1),
                asset(CHART, "starter", 0),
            ],
            Some("\"docker-scs-1-30-cluster-class-v0-sha.abc.tgz\" is in state \"starter\""),
        ),
        (
            vec![
                asset("metadata.yaml", "uploaded", 1),
                asset(CHART, "uploaded", 1),
            ],
            None,
        ),
    ] {
        let release = Release {
            tag_name: name().tag(),
            draft: false,
            assets,
        };
        assert_eq!(missing(&name(), &release).as_deref(), expected);
    }
}

#[test]
fn release_that_does_not_fit_into_a_folder_is_refused() {
    check(&name(), &[asset("a", "uploaded", RELEASE_BYTES)]).unwrap();
    let endless = [asset("a", "uploaded", u64::MAX), asset("b", "uploaded", 2)];
    let error = check(&name(), &endless).unwrap_err();
    assert!(matches!(error, SourceError::ExceedLimit { .. }), "{error}");
    let error = check(&name(), &[asset("../a", "uploaded", 1)]).unwrap_err();
    assert!(matches!(error, SourceError::RefuseFile { .. }), "{error}");
}

#[test]
fn next_page_is_asked_of_the_same_host() {
    for (links, expected) in [
        ("", None),
        ("<https://a.example/x?page=1>; rel=\"prev\"", None),
        (
            "<https://a.example/x?page=1>; rel=\"prev\", <http://b.example:1/api/v3/x?page=3>; rel=\"next\"",
            Some("/api/v3/x?page=3"),
        ),
        ("<no address>; rel=\"next\"", None),
    ] {
        let headers = HeaderMap::from_iter([(LINK, links.parse().unwrap())]);
        assert_eq!(next(&headers).as_deref(), expected, "{links}");
    }
}

#[test]
fn digests_of_other_kinds_are_not_checked() {
    let hexadecimal = "00ff".repeat(16);
    let bytes = sha256(&format!("sha256:{hexadecimal}")).unwrap();
    assert_eq!(bytes[..4], [0, 0xff, 0, 0xff]);
    for digest in [
        &hexadecimal,
        "sha256:00ff",
        &format!("sha512:{hexadecimal}"),
    ] {
        assert_eq!(sha256(digest), None, "{digest}");
    }
}
