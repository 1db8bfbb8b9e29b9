//! The renderer's text equals that of `helm template`, of the same version, for every chart at hand.
//!
//! Charts of our own cover what the real releases lack (hooks, aliases, files of several CRDs, values of all types); the real
//! releases are those in the folder that `CLUSTER_STACK_FIXTURES` names.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    reference,
    stacks::StackRelease,
    tools::{self, Tool},
};

const RELEASE: &str = "docker-scs-1-30";
const NAMESPACE: &str = "kube-system";
const KUBERNETES: &str = "v1.30.4";

/// The real releases, all with charts.
const RELEASES: &[&str] = &[
    "docker-ferrol-1-27-v0-sha-hipstsw",
    "docker-ferrol-1-27-v1",
    "docker-ferrol-1-27-v11",
    "docker-ferrol-1-27-v12",
    "docker-ferrol-1-27-v2",
    "docker-ferrol-1-27-v3",
    "docker-scs-1-30-v0-sha-d2lgujm",
    "docker-scs-1-30-v1",
    "docker-scs-1-30-v2",
    "openstack-scs-1-32-v0-sha-sjl0coz",
];

#[tokio::test]
async fn charts_with_hooks_and_aliases_are_rendered_as_helm_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    compare_all(&own_charts(folder.path())?).await
}

#[tokio::test]
async fn values_reach_templates_as_helm_hands_them_over() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let template = "apiVersion: v1
kind: ConfigMap
metadata: {name: values}
data:
{{- range $name, $value := .Values }}
  {{ $name }}: {{ printf \"%s %v %s\" (kindOf $value) $value (toJson $value) | quote }}
{{- end }}
";
    let chart = write_chart(
        folder.path(),
        "values",
        &[
            (
                "Chart.yaml",
                "apiVersion: v2\nname: values\nversion: 1.2.3\n",
            ),
            (
                "values.yaml",
                "kept: 1\nnested: {kept: 010, replaced: 2, removed: 3}\nremoved: {a: 1}\nlist: [1, 2]\n",
            ),
            ("templates/all.yaml", template),
        ],
    )?;
    let values = json!({
        "nested": {"replaced": 12_345_678_901_i64, "removed": null, "added": 0.10},
        "removed": null,
        "list": [3],
        "large": i64::MAX,
        "small": -1,
        "whole": 2.0,
        "text": "yes",
        "flag": true,
        "empty": {},
        "none": [],
    });
    compare_with_values(&[chart], &values).await
}

#[tokio::test]
async fn charts_of_the_example_stacks_are_rendered_as_helm_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let releases = folder.path().join("releases");
    for example in ["docker-example", "docker-single", "fake-example"] {
        StackRelease::example(example).write_to(&releases)?;
    }
    compare_all(&charts_of_releases(
        &releases,
        &folder.path().join("unpacked"),
    )?)
    .await
}

#[tokio::test]
async fn charts_of_the_real_releases_are_rendered_as_helm_does() -> anyhow::Result<()> {
    let Some(releases) = reference::folder(reference::RELEASES, "real releases", RELEASES)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    compare_all(&charts_of_releases(&releases, folder.path())?).await
}

async fn compare_all(charts: &[PathBuf]) -> anyhow::Result<()> {
    compare_with_values(charts, &json!({})).await
}

async fn compare_with_values(charts: &[PathBuf], values: &Value) -> anyhow::Result<()> {
    let tools = tools::ensure_async(&[Tool::Helm, Tool::HelmRenderer]).await?;
    let (helm, renderer) = (tools.path(Tool::Helm)?, tools.path(Tool::HelmRenderer)?);
    let mut renderer = Renderer::start(renderer)?;
    let mut file = tempfile::NamedTempFile::new()?;
    serde_json::to_writer(&mut file, values)?;
    for chart in charts {
        for crds in [false, true] {
            let ours = renderer.text(chart, values, crds)?;
            let first = helm_template(helm, chart, file.path(), crds)?;
            if ours == first {
                continue;
            }
            // Such as keys, which are new each time.
            let second = helm_template(helm, chart, file.path(), crds)?;
            compare(&ours, &first, &second).with_context(|| chart.display().to_string())?;
        }
    }
    Ok(())
}

/// Lines in which two runs of `helm` agree must be the renderer's too; where they differ (new keys), so may it.
fn compare(rendered: &str, first: &str, second: &str) -> anyhow::Result<()> {
    if first == second {
        ensure!(rendered == first, "{}", difference(rendered, first));
        return Ok(());
    }
    let count = first.lines().count();
    ensure!(
        rendered.lines().count() == count && second.lines().count() == count,
        "numbers of lines differ"
    );
    for ((ours, first), second) in rendered.lines().zip(first.lines()).zip(second.lines()) {
        ensure!(
            first != second || ours == first,
            "{ours:?} in place of {first:?}"
        );
    }
    Ok(())
}

fn difference(rendered: &str, expected: &str) -> String {
    let pairs = rendered
        .lines()
        .chain(["(end)"])
        .zip(expected.lines().chain(["(end)"]));
    match pairs.enumerate().find(|(_, (ours, theirs))| ours != theirs) {
        Some((line, (ours, theirs))) => {
            format!("line {}: {ours:?} in place of {theirs:?}", line + 1)
        }
        None => "the texts differ in line ends".to_owned(),
    }
}

fn helm_template(helm: &Path, chart: &Path, values: &Path, crds: bool) -> anyhow::Result<String> {
    let mut command = Command::new(helm);
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .args(["template", RELEASE])
        .arg(chart)
        .arg("--values")
        .arg(values);
    command.args(["--namespace", NAMESPACE, "--kube-version", KUBERNETES]);
    if crds {
        command.arg("--include-crds");
    }
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The renderer, asked without the core: only here the text is of interest.
struct Renderer {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Renderer {
    fn start(program: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self {
            child,
            stdin,
            stdout,
        })
    }

    fn text(&mut self, chart: &Path, values: &Value, crds: bool) -> anyhow::Result<String> {
        let body = json!({
            "path": chart, "releaseName": RELEASE, "namespace": NAMESPACE, "kubeVersion": KUBERNETES,
            "includeCrds": crds, "withText": true, "values": values,
        });
        let request = serde_json::to_vec(&json!({"id": 1, "kind": "chart", "body": body}))?;
        self.stdin
            .write_all(&u32::try_from(request.len())?.to_be_bytes())?;
        self.stdin.write_all(&request)?;
        let mut head = [0; 4];
        self.stdout.read_exact(&mut head)?;
        let mut answer = vec![0; u32::from_be_bytes(head) as usize];
        self.stdout.read_exact(&mut answer)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let text = answer["result"]["text"].as_str();
        Ok(text
            .with_context(|| format!("{}: {}", chart.display(), answer["error"]))?
            .to_owned())
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Charts with what the real ones lack.
fn own_charts(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let map = |name: &str, more: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n{more}")
    };
    let hook = |name: &str, events: &str, weight: i64| {
        map(
            name,
            &format!(
                "  annotations: {{helm.sh/hook: '{events}', helm.sh/hook-weight: '{weight}'}}\n"
            ),
        )
    };
    let crd = |name: &str| {
        format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {name}}}\n"
        )
    };
    let chart =
        |name: &str, more: &str| format!("apiVersion: v2\nname: {name}\nversion: 1.2.3\n{more}");
    let charts: Vec<(&str, Vec<(&str, String)>)> = vec![
        (
            "hooks",
            vec![
                ("Chart.yaml", chart("hooks", "")),
                ("templates/a.yaml", [hook("b", "pre-install,pre-upgrade", 0), hook("a", "pre-install", 5)].join("---\n")),
                ("templates/b.yaml", [hook("t", "test", 0), hook("old", "crd-install", 0), map("plain", "")].join("\n---\n# x\n")),
                ("templates/c.yaml", hook("after", "post-install", -3)),
                ("templates/NOTES.txt", "Thank you\n".to_owned()),
                ("crds/all.yaml", [crd("a.example.org"), crd("b.example.org")].join("---\n")),
            ],
        ),
        (
            "aliases",
            vec![
                ("Chart.yaml", chart("aliases", "dependencies:\n- {name: inner, version: 1.x.x, repository: '', alias: first}\n- {name: inner, version: 1.x.x, repository: '', alias: second, condition: second.enabled}\n- {name: helpers, version: '*', repository: ''}\n")),
                ("values.yaml", "first: {size: 12345678901}\nsecond: {enabled: true, size: 2}\nglobal: {zone: a}\n".to_owned()),
                ("charts/inner/Chart.yaml", chart("inner", "")),
                ("charts/inner/values.yaml", "size: 1\nratio: 0.10\nflag: yes\noctal: 0644\n".to_owned()),
                ("charts/inner/templates/a.yaml", map("{{ include \"helpers.name\" . }}", "data: {{ toYaml .Values | nindent 2 }}\n")),
                ("charts/helpers/Chart.yaml", chart("helpers", "type: library\n")),
                ("charts/helpers/templates/_name.tpl", "{{ define \"helpers.name\" }}{{ .Chart.Name }}-{{ .Release.Name }}-{{ .Values.global.zone }}{{ end }}".to_owned()),
                ("templates/z.yaml", map("version", "data: {kube: {{ .Capabilities.KubeVersion.Version | quote }}, got: {{ .Capabilities.APIVersions.Has \"apps/v1\" | quote }}}\n")),
                ("values.schema.json", r#"{"type": "object", "properties": {"first": {"type": "object"}}}"#.to_owned()),
            ],
        ),
    ];
    charts
        .iter()
        .map(|(name, files)| write_chart(folder, name, files))
        .collect()
}

fn write_chart(
    folder: &Path,
    name: &str,
    files: &[(&str, impl AsRef<str>)],
) -> anyhow::Result<PathBuf> {
    let chart = folder.join(name);
    for (path, content) in files {
        let path = chart.join(path);
        fs::create_dir_all(path.parent().context("no parent")?)?;
        fs::write(path, content.as_ref())?;
    }
    Ok(chart)
}

/// The class charts as they are, and every chart inside the addon archives (which may hold several).
fn charts_of_releases(releases: &Path, into: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut charts = Vec::new();
    for (index, entry) in walkdir::WalkDir::new(releases).into_iter().enumerate() {
        let path = entry?.into_path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.ends_with(".tgz") {
            continue;
        }
        if name.contains("-cluster-class-") {
            charts.push(path);
        } else if name.contains("-cluster-addon-") {
            let folder = into.join(index.to_string());
            fs::create_dir_all(&folder)?;
            let status = Command::new("tar")
                .arg("-xzf")
                .arg(&path)
                .arg("-C")
                .arg(&folder)
                .status()?;
            ensure!(status.success(), "{} cannot be unpacked", path.display());
            for inner in fs::read_dir(&folder)? {
                let inner = inner?.path();
                if inner.join("Chart.yaml").exists() {
                    charts.push(inner);
                }
            }
        }
    }
    ensure!(!charts.is_empty(), "{} holds no charts", releases.display());
    Ok(charts)
}
