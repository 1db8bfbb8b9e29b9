use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only the reading is of interest")]
struct Shape {
    name: String,
    list: Option<Vec<u8>>,
    map: Option<std::collections::BTreeMap<String, String>>,
    action: Option<Action>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Apply,
    Delete,
}

#[test]
fn values_are_those_of_go() {
    // dependencies of the options: each line fails with the defaults or is easily lost in an update
    for (text, value) in [
        ("mode: 0644", json!({"mode": 420})),
        ("mode: 0o644", json!({"mode": 420})),
        ("on: yes", json!({"on": true})),
        ("a: \"0644\"", json!({"a": "0644"})),
        (
            "a: &x {b: 1}\nc: {<<: *x}",
            json!({"a": {"b": 1}, "c": {"b": 1}}),
        ),
        ("a: ~", json!({"a": null})),
        ("a: 1_000", json!({"a": 1000})),
        (
            "a: 9007199254740993",
            json!({"a": 9_007_199_254_740_993_i64}),
        ),
    ] {
        let parsed = parse::<Value>("x.yaml", text).unwrap();
        assert_eq!((parsed.value, parsed.warnings.len()), (value, 0), "{text}");
    }
}

#[test]
fn of_a_repeated_key_the_last_one_counts_and_is_warned_about() {
    let parsed = parse::<Value>("x.yaml", "a: 1\nb:\n  c: 1\n  c: 2\n").unwrap();
    assert_eq!(parsed.value, json!({"a": 1, "b": {"c": 2}}));
    assert_eq!(
        parsed.warnings,
        ["\"x.yaml\" has the key \"c\" twice in one map (line 4, column 3): the last one counts"]
    );
    let parsed = parse::<Shape>("x.yaml", "name: a\nname: b").unwrap();
    assert_eq!(
        (parsed.value.name.as_str(), parsed.warnings.len()),
        ("b", 1)
    );
    let parsed =
        parse_documents::<Value>("x.yaml", "---\na: 1\n---\n# nothing\n---\nb: 1\nb: 2\n").unwrap();
    assert_eq!(
        (parsed.value, parsed.warnings.len()),
        (vec![json!({"a": 1}), json!({"b": 2})], 1)
    );
}

#[test]
fn errors_name_file_field_expected_and_found() {
    for (text, message) in [
        ("", "\"x.yaml\" is empty"),
        ("# nothing\n", "\"x.yaml\" is empty"),
        ("---\n", "\"x.yaml\" is empty"),
        (
            "[]",
            "\"x.yaml\" is wrong in the document (line 1, column 1): expected a map, found a list",
        ),
        (
            "<html>",
            "\"x.yaml\" is wrong in the document (line 1, column 1): expected a map, found text",
        ),
        (
            "list: []",
            "\"x.yaml\" lacks the field \"name\" (line 1, column 1)",
        ),
        (
            "name: []",
            "\"x.yaml\" is wrong in \"name\" (line 1, column 7): expected text, found a list",
        ),
        (
            "name: ~",
            "\"x.yaml\" is wrong in \"name\" (line 1, column 7): expected text, found nothing",
        ),
        (
            "name: a\nlist: {}",
            "\"x.yaml\" is wrong in \"list\" (line 2, column 7): expected a list, found a map",
        ),
        (
            "name: a\nlist: [1, [2]]",
            "\"x.yaml\" is wrong in \"list[1]\" (line 2, column 11)",
        ),
        (
            "name: a\nmap: {a: {}}",
            "\"x.yaml\" is wrong in \"map.a\" (line 2, column 10): expected text, found a map",
        ),
        (
            "name: a\naction: remove",
            "\"x.yaml\" is wrong in \"action\" (line 2, column 9): expected one of apply, delete, found text",
        ),
        (
            "name: [",
            "\"x.yaml\" is no valid YAML at line 1, column 7: unclosed bracket '['",
        ),
        (
            "name: a\n---\nname: b",
            "several documents where one is expected",
        ),
    ] {
        let error = parse::<Shape>("x.yaml", text).expect_err(text).to_string();
        assert!(
            error.starts_with(message) || error.ends_with(message),
            "{text}: {error}"
        );
    }
}

#[test]
fn errors_never_quote_the_file() {
    let long = format!("name: {{{}: 1, b: ]", "s3cret".repeat(1000));
    for text in [
        "s3cret",
        "name: [s3cret]",
        "name: a\nlist: s3cret",
        "name: a\nlist: [s3cret]",
        "name: a\naction: s3cret",
        "name: a\naction: {s3cret: 1}",
        "name: *s3cret",
        "name: \"s3cret",
        "name: 's3cret' s3cret",
        "name: a: s3cret",
        "{{ s3cret }}",
        "%s3cret\n---\n- a",
        "- !!binary s3cret",
        "name: \"\\s3cret\"",
        &long,
    ] {
        for error in [
            parse::<Shape>("x.yaml", text).map(|_| ()).expect_err(text),
            parse::<Vec<Action>>("x.yaml", text)
                .map(|_| ())
                .expect_err(text),
        ] {
            let error = error.to_string();
            assert!(!error.contains("s3cret"), "{error}");
            assert!(error.len() < 300, "{error}");
        }
    }
}

#[test]
fn budget_takes_real_manifests_and_refuses_bombs() {
    // A stack overflow would abort the test run: every way to nest must end in an answer.
    let lists = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let maps = |depth: usize| format!("{}1{}", "{a: ".repeat(depth), "}".repeat(depth));
    let blocks = |depth: usize| {
        let lines: Vec<_> = (0..depth)
            .map(|level| format!("{}a:", " ".repeat(level)))
            .collect();
        lines.join("\n")
    };
    let dashes = |depth: usize| format!("{}1", "- ".repeat(depth));
    let aliases = |depth: usize| {
        (1..depth).fold("- &a0 [1]\n".to_owned(), |text, level| {
            format!("{text}- &a{level} [*a{}]\n", level - 1)
        })
    };
    for nested in [lists, maps, blocks, dashes, aliases] as [fn(usize) -> String; 5] {
        for depth in [30, 64, 100] {
            assert!(
                parse::<Value>("x.yaml", &nested(depth)).is_ok(),
                "{}",
                nested(3)
            );
        }
        for depth in [129, 200, 2_000] {
            assert!(
                parse::<Value>("x.yaml", &nested(depth)).is_err(),
                "{}",
                nested(3)
            );
            assert!(
                parse::<Shape>("x.yaml", &nested(depth)).is_err(),
                "{}",
                nested(3)
            );
            assert!(
                parse_documents::<Value>("x.yaml", &nested(depth)).is_err(),
                "{}",
                nested(3)
            );
        }
    }
    // Ten times as many keys as in any manifest at hand.
    let wide: Vec<_> = (0..20_000).map(|n| format!("key{n}: value {n}")).collect();
    let wide = wide.join("\n");
    assert!(parse::<Value>("x.yaml", &wide).is_ok());
    let bomb = (1..10).fold(
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(),
        |bomb, level| {
            let below = format!("*a{},", level - 1).repeat(10);
            format!("{bomb}a{level}: &a{level} [{below}]\n")
        },
    );
    assert!(parse::<Value>("x.yaml", &bomb).is_err());
}

#[test]
fn binary_is_no_yaml() {
    let text = String::from_utf8_lossy(&[0x1f, 0x8b, 8, 0, 1, 2, 0xff]).into_owned();
    assert!(matches!(
        parse::<Shape>("x.yaml", &text),
        Err(YamlError::RejectSyntax { .. })
    ));
}
