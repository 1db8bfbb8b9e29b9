use std::{fs, time::Instant};

use proto::Recovery;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Reads a request (and says its length as `$length`), answers with `answer`; `$id` counts.
const FUNCTIONS: &str = r#"
id=0
bytes() { dd bs=1 count="$1" 2>/dev/null; }
request() {
    set -- $(bytes 4 | od -An -tu1)
    [ $# -eq 4 ] || exit 0
    length=$(($1 * 16777216 + $2 * 65536 + $3 * 256 + $4))
    content=$(bytes $length)
    id=$((id + 1))
}
answer() { printf "\\000\\000\\000\\$(printf %03o ${#1})%s" "$1"; }
"#;

/// A program in place of the renderer, and what it left behind.
struct Fake {
    folder: TempDir,
    config: RendererConfig,
}

fn fake(script: &str) -> Fake {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("renderer");
    // the pool clears the environment: the script says itself where its tools are
    let path = std::env::var("PATH").unwrap();
    let log = folder.path().join("log");
    let text = format!(
        "#!/bin/sh\nPATH='{path}'\nlog='{}'\necho start >> \"$log\"\n{FUNCTIONS}\n{script}\n",
        log.display()
    );
    // A shell writes it: were it open for writing here while another test starts a process, which inherits that for a
    // moment, it could not be run ("text file busy").
    let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let mut shell = std::process::Command::new("sh");
    let status = shell.args(["-c", write]).arg(&program).arg(text).status();
    assert!(status.unwrap().success());
    let config = RendererConfig {
        program,
        processes: 1,
        time_limit: Duration::from_secs(20),
        memory_limit_bytes: 1 << 30,
    };
    Fake { folder, config }
}

impl Fake {
    fn starts(&self) -> usize {
        fs::read_to_string(self.folder.path().join("log"))
            .unwrap_or_default()
            .lines()
            .count()
    }
}

async fn ask(pool: &RendererPool, body: Value) -> Result<Value, RenderError> {
    pool.ask("chart", "chart \"a\"", &body).await
}

const ECHO: &str = r#"while request; do answer "{\"id\":$id,\"result\":$id}"; done"#;

#[tokio::test]
async fn one_process_answers_many_requests() {
    let fake = fake(ECHO);
    let pool = RendererPool::start(fake.config.clone());
    assert_eq!(fake.starts(), 0);
    for expected in 1..=3 {
        assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(expected));
    }
    assert_eq!(fake.starts(), 1);
}

#[tokio::test]
async fn refusals_of_helm_keep_the_process() {
    let fake = fake(
        r#"while request; do answer "{\"id\":$id,\"error\":\"a.yaml:\\n  nil pointer\"}"; done"#,
    );
    let pool = RendererPool::start(fake.config.clone());
    for _ in 0..2 {
        let error = ask(&pool, json!({})).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to render chart \"a\": a.yaml: nil pointer"
        );
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
    assert_eq!(fake.starts(), 1);
}

#[tokio::test]
async fn a_process_that_dies_fails_its_request_only() {
    let fake = fake(
        r#"request; answer "{\"id\":1,\"result\":1}"; request; echo "fatal error: stack overflow" >&2; exit 3"#,
    );
    let pool = RendererPool::start(fake.config.clone());
    assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(1));
    let error = ask(&pool, json!({})).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("exit status: 3: fatal error: stack overflow"),
        "{error}"
    );
    assert_eq!(error.recovery(), Recovery::Unknown);
    assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(1));
    assert_eq!(fake.starts(), 2);
}

#[tokio::test]
async fn a_process_that_died_while_idle_costs_no_request() {
    let fake = fake(r#"request; answer "{\"id\":1,\"result\":1}""#);
    let pool = RendererPool::start(fake.config.clone());
    assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(1));
    loop {
        let ended = pool
            .lock()
            .iter_mut()
            .all(|renderer| !matches!(renderer.child.try_wait(), Ok(None)));
        if ended {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_process_that_hangs_is_killed_and_the_limit_is_named() {
    let fake = fake(
        r#"echo $$ > "$log.pid"; request; case "$content" in *hang*) exec sleep 600;; esac; answer "{\"id\":1,\"result\":1}""#,
    );
    let pool = RendererPool::start(RendererConfig {
        time_limit: Duration::from_secs(2),
        ..fake.config.clone()
    });
    let start = Instant::now();
    let error = ask(&pool, json!({"hang": true})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to render chart \"a\" within the limit of 2 s"
    );
    assert!(start.elapsed() < Duration::from_mins(1));
    let process = fs::read_to_string(fake.folder.path().join("log.pid")).unwrap();
    assert!(!std::path::Path::new("/proc").join(process.trim()).exists());
    assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_process_that_grows_is_killed_and_the_limit_is_named() {
    // the shell keeps what it reads: 64 MiB of zeros as text
    let fake = fake(r"request; big=$(head -c 67108864 /dev/zero | tr '\0' a); sleep 600");
    let pool = RendererPool::start(RendererConfig {
        memory_limit_bytes: 32 << 20,
        ..fake.config.clone()
    });
    let error = ask(&pool, json!({})).await.unwrap_err();
    assert!(
        matches!(error, RenderError::ExceedMemory { used_bytes, .. } if used_bytes > 32 << 20),
        "{error}"
    );
    assert!(
        error.to_string().contains("memory limit of 32 MiB"),
        "{error}"
    );
    assert!(pool.lock().is_empty());
}

#[tokio::test]
async fn a_process_that_answers_nonsense_is_replaced() {
    for (nonsense, message) in [
        (r#"answer "garbage""#, "expected value"),
        (
            r#"answer "{\"id\":7,\"result\":1}""#,
            "it answers request 7 in place of 1",
        ),
        (r#"answer "{\"id\":1}""#, "neither a result nor an error"),
        (
            r"printf '\377\377\377\377'",
            "4294967295 bytes are more than the limit",
        ),
        (r"printf '\000\000\000\100{'; exit 0", "lost the renderer"),
    ] {
        let fake = fake(&format!("request; {nonsense}; sleep 600"));
        let pool = RendererPool::start(fake.config.clone());
        let error = ask(&pool, json!({})).await.unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.recovery(), Recovery::Unknown);
        assert!(pool.lock().is_empty(), "{nonsense}");
    }
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_leaves_the_process_in_step() {
    let fake = fake(
        r#"while request; do : > "$log.got"; while [ ! -e "$log.go" ]; do sleep 0.01; done; answer "{\"id\":$id,\"result\":$id}"; done"#,
    );
    let pool = RendererPool::start(fake.config.clone());
    let mut abandoned = Box::pin(ask(&pool, json!({})));
    let got = fake.folder.path().join("log.got");
    tokio::select! {
        _ = &mut abandoned => panic!("answered too early"),
        () = async { while !got.exists() { time::sleep(Duration::from_millis(1)).await } } => {}
    }
    drop(abandoned);
    fs::write(fake.folder.path().join("log.go"), "").unwrap();
    assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(2));
    assert_eq!(fake.starts(), 1);
}

#[tokio::test]
async fn there_are_never_more_processes_than_allowed() {
    let fake = fake(ECHO);
    let pool = RendererPool::start(RendererConfig {
        processes: 2,
        ..fake.config.clone()
    });
    let answers = futures::future::join_all((0..12).map(|_| ask(&pool, json!({})))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(fake.starts() <= 2);
}

#[tokio::test]
async fn a_program_that_is_not_there_needs_somebody() {
    let program = PathBuf::from("/nowhere/helm-renderer");
    let pool = RendererPool::start(RendererConfig {
        program,
        processes: 1,
        time_limit: Duration::from_secs(1),
        memory_limit_bytes: 1,
    });
    let error = ask(&pool, json!({})).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to start the renderer \"/nowhere/helm-renderer\""
    );
    assert_eq!(error.recovery(), Recovery::Slow);
}

#[tokio::test]
async fn the_environment_stays_here() {
    let fake = fake(
        r#"request; exported=$(env | grep -c CARGO); answer "{\"id\":1,\"result\":$exported}""#,
    );
    assert!(std::env::var_os("CARGO").is_some());
    let pool = RendererPool::start(fake.config.clone());
    assert_eq!(ask(&pool, json!({})).await.unwrap(), json!(0));
}
