//! Rules of `ClusterStack`.

use anyhow::{Result, ensure};
use core_operator::api::ClusterStack;
use serde_json::{Value, json};

use crate::kind::{Kind, merged};

fn with(fields: Value) -> Value {
    let least = json!({"provider": "docker", "name": "scs", "kubernetesVersion": "1.30"});
    merged(&least, fields)
}

/// One spec for each value of a field.
fn each<T: Into<Value>>(field: &str, values: impl IntoIterator<Item = T>) -> Vec<Value> {
    values
        .into_iter()
        .map(|value| {
            let mut spec = with(json!({}));
            spec[field] = value.into();
            spec
        })
        .collect()
}

async fn accepts_each(stacks: &Kind, specs: Vec<Value>) -> Result<()> {
    for spec in specs {
        stacks.accepts(spec).await?;
    }
    Ok(())
}

#[tokio::test]
async fn accepts_a_provider_a_name_and_a_kubernetes_version() -> Result<()> {
    let stack = Kind::new::<ClusterStack>()
        .await?
        .accepts(with(json!({})))
        .await?;
    let defaults = json!({"channel": "stable", "autoSubscribe": true, "noProvider": false});
    ensure!(stack["spec"] == with(defaults), "{stack}");
    Ok(())
}

#[tokio::test]
async fn rejects_what_lacks_one_of_the_three() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    for field in ["provider", "name", "kubernetesVersion"] {
        let mut lacking = with(json!({}));
        lacking[field] = Value::Null;
        stacks
            .rejects(
                &format!("spec.{field}"),
                [lacking, with(json!({field: ""}))],
            )
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn accepts_dashes_in_provider_and_name() -> Result<()> {
    // pitfall 61
    let stacks = Kind::new::<ClusterStack>().await?;
    let dashes = ["a", "9", "open-stack", "a-1-30", "a--b"];
    accepts_each(&stacks, each("provider", dashes)).await?;
    accepts_each(&stacks, each("name", dashes)).await
}

#[tokio::test]
async fn rejects_names_that_cannot_be_part_of_an_objects_name() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let wrong = ["-a", "a-", "A", "a.b", "a_b", "a b", "ä", "a/b", "a\n"];
    stacks
        .rejects("spec.provider", each("provider", wrong))
        .await?;
    stacks.rejects("spec.name", each("name", wrong)).await
}

#[tokio::test]
async fn rejects_a_stem_longer_than_45_characters() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let (nine, long) = ("a".repeat(9), |length| "b".repeat(length));
    let stem = |length| with(json!({"provider": nine, "name": long(length)}));
    stacks.accepts(stem(35)).await?;
    stacks
        .rejects("must not be longer than 45 characters", [stem(36)])
        .await?;
    accepts_each(
        &stacks,
        vec![with(json!({"provider": long(43), "name": "b"}))],
    )
    .await?;
    stacks
        .rejects(
            "spec.name",
            [with(json!({"provider": "a", "name": long(44)}))],
        )
        .await
}

#[tokio::test]
async fn rejects_kubernetes_versions_that_are_not_major_and_minor() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    accepts_each(
        &stacks,
        each("kubernetesVersion", ["1.0", "1.9", "1.34", "1.100"]),
    )
    .await?;
    let wrong = [
        "v1.30", "1.30.1", "1", "1.", ".30", "10.1", "1-30", "1.x", " 1.30",
    ];
    stacks
        .rejects("spec.kubernetesVersion", each("kubernetesVersion", wrong))
        .await?;
    // What YAML makes of 1.30 without quotes.
    stacks
        .rejects("must be of type string", each("kubernetesVersion", [1.30]))
        .await
}

#[tokio::test]
async fn accepts_any_word_as_channel() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let words = [
        "stable",
        "custom",
        "beta",
        "rc",
        "sha",
        "2026",
        "abcdefghijklmnop",
    ];
    accepts_each(&stacks, each("channel", words)).await
}

#[tokio::test]
async fn rejects_channels_that_are_no_word() -> Result<()> {
    // pitfall 61: a typo such as a capital letter is no channel
    let stacks = Kind::new::<ClusterStack>().await?;
    let wrong = [
        "",
        "Stable",
        "pre-release",
        "v1.",
        "abcdefghijklmnopq",
        "a b",
    ];
    stacks.rejects("spec.channel", each("channel", wrong)).await
}

#[tokio::test]
async fn accepts_versions_in_both_forms() -> Result<()> {
    // pitfalls 60, 61
    let stacks = Kind::new::<ClusterStack>().await?;
    let versions = [
        "v0",
        "v1",
        "v10",
        "v0-sha.d2lgujm",
        "v0-sha-d2lgujm",
        "v1-beta.2",
        "v1-beta-10",
        "v3-rc.007",
    ];
    // Of any channel: it decides only what is subscribed to.
    for channel in ["stable", "custom", "beta"] {
        stacks
            .accepts(with(json!({"channel": channel, "versions": versions})))
            .await?;
    }
    stacks.accepts(with(json!({"versions": []}))).await?;
    stacks
        .accepts(with(json!({"versions": Value::Null})))
        .await?;
    let many: Vec<_> = (0..256).map(|number| format!("v{number}")).collect();
    stacks.accepts(with(json!({"versions": many}))).await?;
    Ok(())
}

#[tokio::test]
async fn rejects_versions_that_no_release_can_have() -> Result<()> {
    // pitfall 50
    let stacks = Kind::new::<ClusterStack>().await?;
    let long = format!("v1-sha.{}", "a".repeat(57));
    let wrong = [
        "",
        "1",
        "v",
        "V1",
        "v01",
        "v1.0",
        "v1-beta",
        "v1-beta.",
        "v1-.2",
        "v1-beta.2.3",
        "v1-beta-2-3",
        "v1-Beta.2",
        "v-1",
        "v1 ",
        "latest",
        "docker-scs-1-30-v1",
        &long,
    ];
    stacks
        .rejects(
            "spec.versions",
            wrong.map(|version| with(json!({"versions": ["v1", version]}))),
        )
        .await?;
    let many: Vec<_> = (0..257).map(|number| format!("v{number}")).collect();
    stacks
        .rejects(
            "must have at most 256 items",
            [with(json!({"versions": many}))],
        )
        .await
}

#[tokio::test]
async fn rejects_changes_of_what_makes_the_name_of_a_release() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    for (field, value) in [
        ("provider", "openstack"),
        ("name", "ferrol"),
        ("kubernetesVersion", "1.31"),
        ("channel", "custom"),
    ] {
        let changed = with(json!({field: value}));
        stacks
            .rejects_change(&format!("{field} is immutable"), with(json!({})), changed)
            .await?;
    }
    // Taken away, the default would come back.
    let words = "channel is immutable";
    stacks
        .rejects_change(words, with(json!({"channel": "custom"})), with(json!({})))
        .await
}

#[tokio::test]
async fn accepts_changes_of_everything_else() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let first = with(json!({
        "channel": "custom", "versions": ["v1"], "autoSubscribe": false, "noProvider": true, "pollInterval": "1h",
        "source": {"directory": {"path": "a"}}, "policy": {"drift": "Report"},
    }));
    let second = with(json!({
        "channel": "custom", "versions": ["v2"], "providerRef": {"kind": "Any", "name": "any"},
        "source": {"github": {"owner": "a", "repository": "b"}},
    }));
    stacks.accepts_change(first.clone(), second.clone()).await?;
    stacks.accepts_change(second, first).await
}

#[tokio::test]
async fn accepts_a_stack_with_neither_provider_reference_nor_no_provider() -> Result<()> {
    // Said in its condition: the object is there already where the Go operator ran without its webhooks.
    let stacks = Kind::new::<ClusterStack>().await?;
    stacks.accepts(with(json!({"noProvider": false}))).await?;
    Ok(())
}

#[tokio::test]
async fn accepts_poll_intervals_of_a_minute_and_more() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let intervals = [
        "1m", "60s", "5m", "90s", "1h", "1h30m", "1h1m1s", "0h1m", "720h",
    ];
    accepts_each(&stacks, each("pollInterval", intervals)).await
}

#[tokio::test]
async fn rejects_poll_intervals_below_a_minute_or_without_meaning() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let short = ["59s", "0s", "0m", "0h0m1s"];
    stacks
        .rejects(
            "pollInterval must be at least 1m",
            each("pollInterval", short),
        )
        .await?;
    let wrong = [
        "",
        "5",
        "m",
        "5 m",
        "-5m",
        "5m1h",
        "1.5h",
        "5M",
        "1d",
        "60000ms",
        "99999999999999h",
        "00000000000000001m",
    ];
    stacks
        .rejects("spec.pollInterval", each("pollInterval", wrong))
        .await
}

#[tokio::test]
async fn accepts_one_source() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let github = json!({"owner": "SovereignCloudStack", "repository": "cluster-stacks"});
    let secrets = json!({"secretRef": {"name": "token"}, "caSecretRef": {"name": "ca"}});
    for source in [
        json!({"github": github}),
        merged(&secrets, json!({"github": github})),
        json!({"github": merged(&github, json!({"url": "https://github.example.com"}))}),
        json!({"github": merged(&github, json!({"url": "http://127.0.0.1:8080/api/v3/"}))}),
        json!({"github": {"owner": "o_o-1", "repository": ".github"}}),
        merged(&secrets, json!({"directory": {"path": "releases"}})),
    ] {
        stacks.accepts(with(json!({"source": source}))).await?;
    }
    // null is the same as absent.
    let mut source = json!({"directory": {"path": "releases"}});
    source["github"] = Value::Null;
    source["secretRef"] = Value::Null;
    stacks.accepts(with(json!({"source": source}))).await?;
    let mut absent = with(json!({}));
    absent["source"] = Value::Null;
    stacks.accepts(absent).await?;
    Ok(())
}

#[tokio::test]
async fn rejects_no_source_and_two_sources() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let github = json!({"owner": "a", "repository": "b"});
    let directory = json!({"path": "a"});
    let sources = [
        json!({}),
        json!({"secretRef": {"name": "token"}}),
        json!({"github": Value::Null}),
        json!({"github": github, "directory": directory}),
    ];
    stacks
        .rejects(
            "exactly one of github and directory must be set",
            each("source", sources),
        )
        .await
}

#[tokio::test]
async fn rejects_incomplete_github_sources() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let source = |github| with(json!({"source": {"github": github}}));
    let complete = json!({"owner": "a", "repository": "b"});
    for field in ["owner", "repository"] {
        let words = format!("spec.source.github.{field}");
        let mut wrong: Vec<_> = ["", "a/b", "a b", ".", "..", "a?b", "ä"]
            .map(|value| source(merged(&complete, json!({field: value}))))
            .into();
        wrong.push(source(merged(&complete, json!({field: Value::Null}))));
        wrong.push(source(merged(&complete, json!({field: "a".repeat(101)}))));
        stacks.rejects(&words, wrong).await?;
    }
    let urls = [
        "",
        "github.com",
        "ftp://github.com",
        "https://",
        "https://a b",
        "file:///a",
        "https://user:password@a",
        "https://a/?token=b",
        "https://a#b",
    ];
    let wrong = urls.map(|url| source(merged(&complete, json!({"url": url}))));
    stacks.rejects("spec.source.github.url", wrong).await
}

#[tokio::test]
async fn rejects_references_to_secrets_without_a_name() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    for field in ["secretRef", "caSecretRef"] {
        let wrong = [
            json!({}),
            json!({"name": ""}),
            json!({"name": "a".repeat(254)}),
        ];
        let words = format!("spec.source.{field}");
        let source =
            |reference| with(json!({"source": {"directory": {"path": "a"}, field: reference}}));
        stacks.rejects(&words, wrong.map(source)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn rejects_directories_outside_of_the_source_root() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let source = |path: &str| with(json!({"source": {"directory": {"path": path}}}));
    let long = format!("a{}", "/a".repeat(2000));
    let inside = [
        ".",
        "a",
        "a/b",
        "a/b/",
        "./a",
        "a//b",
        "a..b",
        "..a/b..",
        "...",
        long.as_str(),
    ];
    accepts_each(&stacks, inside.map(source).into()).await?;
    let outside = [
        "/",
        "/a",
        "..",
        "../a",
        "a/..",
        "a/../b",
        "a/b/../../..",
        "./..",
        "//a",
    ];
    stacks
        .rejects("path must be relative", outside.map(source))
        .await?;
    let long = "a".repeat(4097);
    stacks
        .rejects("spec.source.directory.path", ["", &long].map(source))
        .await?;
    stacks
        .rejects(
            "spec.source.directory.path",
            [with(json!({"source": {"directory": {}}}))],
        )
        .await
}

#[tokio::test]
async fn accepts_two_policies_for_drift() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    for policy in [json!({"drift": "Correct"}), json!({"drift": "Report"})] {
        stacks.accepts(with(json!({"policy": policy}))).await?;
    }
    let stack = stacks.accepts(with(json!({"policy": {}}))).await?;
    ensure!(stack["spec"]["policy"]["drift"] == "Correct", "{stack}");
    let wrong = ["", "correct", "Ignore"].map(|drift| with(json!({"policy": {"drift": drift}})));
    stacks.rejects("spec.policy.drift", wrong).await
}

#[tokio::test]
async fn drops_unknown_fields() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let unknown = with(json!({"colour": "green", "policy": {"colour": "green"}}));
    let stack = stacks.create_leniently(&unknown).await?;
    ensure!(stack["spec"]["provider"] == "docker", "{stack}");
    ensure!(!stack["spec"].to_string().contains("green"), "{stack}");
    Ok(())
}

#[tokio::test]
async fn status_is_written_apart_from_the_spec() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    stacks
        .keeps_spec_and_status_apart(with(json!({})), with(json!({"versions": ["v1"]})))
        .await
}

#[tokio::test]
async fn rejects_a_status_that_does_not_read_well() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let stack = stacks.accepts(with(json!({}))).await?;
    let ready = json!({"type": "Ready", "status": "True"});
    stacks
        .accepts_status(&stack, json!({
            "conditions": [ready], "latestRelease": "", "usableVersions": "", "newestListed": "v1",
            "summary": [{"name": "v1", "ready": false, "phase": ""}],
        }))
        .await?;
    stacks
        .rejects_status(
            &stack,
            "Duplicate value",
            [json!({"conditions": [ready, ready]})],
        )
        .await?;
    stacks
        .rejects_status(
            &stack,
            "status.conditions",
            [
                json!({"conditions": [{"type": "Ready"}]}),
                json!({"conditions": [{"status": "True"}]}),
                json!({"conditions": [merged(&ready, json!({"lastTransitionTime": "yesterday"}))]}),
            ],
        )
        .await?;
    stacks
        .rejects_status(
            &stack,
            "status.summary",
            [json!({"summary": [{"name": "v1"}]})],
        )
        .await
}

#[tokio::test]
async fn columns_are_those_of_the_go_operator_and_ready() -> Result<()> {
    let stacks = Kind::new::<ClusterStack>().await?;
    let columns = stacks.columns().await?;
    let expected = [
        "Name",
        "Provider",
        "ClusterStack",
        "K8s",
        "Channel",
        "Autosubscribe",
        "Usable",
        "Latest",
        "Ready",
        "Age",
        "Reason",
        "Message",
    ];
    ensure!(columns == expected, "{columns:?}");
    ensure!(stacks.names().await? == json!([["csk"], ["cluster-api", "cluster-stacks"]]));
    Ok(())
}
