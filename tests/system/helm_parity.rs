//! The renderer's text equals that of `helm template`, of the same version, for every chart at hand.
//!
//! Charts of our own cover what the real releases lack (hooks, aliases, files of several CRDs); the real releases are
//! those in the folder that `CLUSTER_STACK_FIXTURES` names.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::tools::{self, Tool};

const RELEASE: &str = "docker-scs-1-30";
const NAMESPACE: &str = "kube-system";
const KUBERNETES: &str = "v1.30.4";

#[tokio::test]
async fn renderer_prints_what_helm_template_prints() -> anyhow::Result<()> {
    let tools = tools::ensure(&[Tool::Helm, Tool::HelmRenderer]).await?;
    let folder = tempfile::tempdir()?;
    let mut charts = own_charts(folder.path())?;
    match std::env::var_os("CLUSTER_STACK_FIXTURES") {
        Some(fixtures) => charts.extend(real_charts(
            Path::new(&fixtures),
            &folder.path().join("fixtures"),
        )?),
        None => println!(
            "CLUSTER_STACK_FIXTURES is not set: the charts of the real releases were not compared"
        ),
    }
    let mut renderer = Renderer::start(tools.path(Tool::HelmRenderer))?;
    for chart in &charts {
        for crds in [false, true] {
            let helm = || helm_template(tools.path(Tool::Helm), chart, crds);
            let ours = renderer.text(chart, crds)?;
            let (first, second) = (helm()?, helm()?);
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

fn helm_template(helm: &Path, chart: &Path, crds: bool) -> anyhow::Result<String> {
    let mut command = Command::new(helm);
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .args(["template", RELEASE])
        .arg(chart);
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

    fn text(&mut self, chart: &Path, crds: bool) -> anyhow::Result<String> {
        let body = json!({
            "path": chart, "releaseName": RELEASE, "namespace": NAMESPACE, "kubeVersion": KUBERNETES,
            "includeCrds": crds, "withText": true,
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
    let mut paths = Vec::new();
    for (name, files) in charts {
        for (path, content) in files {
            let path = folder.join(name).join(path);
            fs::create_dir_all(path.parent().context("no parent")?)?;
            fs::write(path, content)?;
        }
        paths.push(folder.join(name));
    }
    Ok(paths)
}

/// The class charts as they are, and every chart inside the addon archives (which may hold several).
fn real_charts(fixtures: &Path, into: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut charts = Vec::new();
    for (index, entry) in walkdir::WalkDir::new(fixtures).into_iter().enumerate() {
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
    ensure!(!charts.is_empty(), "{} holds no charts", fixtures.display());
    Ok(charts)
}
