use super::*;

fn names(tags: &[&str]) -> Vec<ReleaseName> {
    tags.iter().map(|tag| tag.parse().unwrap()).collect()
}

#[test]
fn tags_in_dot_form_are_foreign() {
    // they would be looked up in dash form, and two tags could mean one release
    assert!(release_of_tag("docker-scs-1-30-v0-sha-abc").is_some());
    for tag in ["docker-scs-1-30-v0-sha.abc", "v1.2.3", ""] {
        assert_eq!(release_of_tag(tag), None, "{tag}");
    }
}

#[test]
fn release_that_moved_between_pages_is_listed_once() {
    let page = |tags: &[&str], foreign| Listing {
        releases: names(tags),
        foreign,
        unfinished: 1,
    };
    let pages = [
        page(&["a-b-1-30-v3", "a-b-1-30-v2"], 1),
        page(&["a-b-1-30-v2", "a-b-1-30-v1"], 2),
    ];
    let expected = Listing {
        releases: names(&["a-b-1-30-v3", "a-b-1-30-v2", "a-b-1-30-v1"]),
        foreign: 3,
        unfinished: 2,
    };
    assert_eq!(Listing::join(&pages), expected);
}

#[test]
fn file_names_stay_in_their_folder() {
    for name in ["metadata.yaml", "a b.tgz", "ä", "a..b"] {
        assert!(is_file_name(name), "{name}");
    }
    let long = "x".repeat(256);
    for name in [
        "", ".", "..", ".hidden", "a/b", "/a", "a\\b", "a\0", "a\n", &long,
    ] {
        assert!(!is_file_name(name), "{name}");
    }
}

#[test]
fn release_beyond_any_need_is_refused() {
    let name = &names(&["a-b-1-30-v1"])[0];
    check_limits(name, RELEASE_FILES, RELEASE_BYTES).unwrap();
    for (files, bytes) in [(RELEASE_FILES + 1, 0), (1, RELEASE_BYTES + 1)] {
        let error = check_limits(name, files, bytes).unwrap_err();
        assert!(matches!(error, SourceError::ExceedLimit { .. }), "{error}");
    }
}
