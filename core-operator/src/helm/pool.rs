//! The renderer processes: one request each at a time, killed and replaced when they hang, grow or talk nonsense.
//!
//! A request runs in a task of its own. When nobody waits for it any more, the task still reads the answer (within the
//! time limit) before it gives the process back: a process is never out of step with its requests.

use std::{
    fmt::Display,
    io,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time,
};

use super::error::{RenderError, shorten};

/// The largest request or answer; the renderer has the same limit.
const MAX_FRAME_BYTES: usize = 128 << 20;

/// How often the memory of a busy renderer is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// How long a renderer that closed its pipes may take to end.
const END_TIME: Duration = Duration::from_secs(2);

/// Bytes of a renderer's error output that are kept: the first line says what happened, a trace of stacks follows.
const ERROR_OUTPUT_BYTES: usize = 512;

/// How to run the renderer.
#[derive(Debug, Clone)]
pub struct RendererConfig {
    /// The program, built from `core-operator/helm-renderer`.
    pub program: PathBuf,
    /// How many processes there may be; they are started when first needed. At least one.
    pub processes: usize,
    /// How long one request may take, from the moment a process has it.
    pub time_limit: Duration,
    /// How much memory of its own a process may use (its program text and files not counted).
    pub memory_limit_bytes: u64,
}

/// The renderer processes. Cheap to clone.
#[derive(Clone)]
pub struct RendererPool {
    config: Arc<RendererConfig>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Renderer>>>,
}

impl RendererPool {
    /// A pool without processes: the first requests start them.
    #[must_use]
    pub fn start(config: RendererConfig) -> Self {
        let permits = Arc::new(Semaphore::new(config.processes.max(1)));
        Self {
            config: Arc::new(config),
            permits,
            idle: Arc::default(),
        }
    }

    /// Sends one request to an idle process and returns its answer; `what` names the subject in errors.
    ///
    /// # Errors
    ///
    /// [`RenderError::Render`] if Helm refuses; the other variants if the process failed, which is then replaced.
    pub(super) async fn ask<Request, Answer>(
        &self,
        kind: &'static str,
        what: &str,
        request: &Request,
    ) -> Result<Answer, RenderError>
    where
        Request: Serialize + Sync,
        Answer: DeserializeOwned + Send + 'static,
    {
        let body = serde_json::to_vec(request).map_err(|error| RenderError::EncodeRequest {
            kind,
            message: error.to_string(),
        })?;
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return Err(lost(what, "the pool is closed"));
        };
        let (pool, what_of_task) = (self.clone(), what.to_owned());
        let task = tokio::spawn(async move { pool.run(permit, kind, what_of_task, body).await });
        task.await.unwrap_or_else(|error| Err(lost(what, error)))
    }

    async fn run<Answer: DeserializeOwned>(
        self,
        permit: OwnedSemaphorePermit,
        kind: &'static str,
        what: String,
        body: Vec<u8>,
    ) -> Result<Answer, RenderError> {
        let mut renderer = match self.take_idle() {
            Some(renderer) => renderer,
            None => Renderer::start(&self.config)?,
        };
        renderer.requests += 1;
        let answer = match encode(renderer.requests, kind, &body) {
            Ok(frame) => renderer
                .exchange(&self.config, &what, &frame)
                .await
                .and_then(|answer| decode(&answer, renderer.requests, &what)),
            Err(error) => Err(error),
        };
        match &answer {
            Ok(_) | Err(RenderError::Render { .. } | RenderError::EncodeRequest { .. }) => {
                self.lock().push(renderer);
            }
            Err(error) => {
                tracing::warn!(kind, error = %error, "replacing a renderer");
                renderer.kill().await;
            }
        }
        drop(permit); // only now: whoever waits finds the process, or the room for a new one
        answer
    }

    /// An idle process that still lives: one that was killed while idle costs no request.
    fn take_idle(&self) -> Option<Renderer> {
        loop {
            let mut renderer = self.lock().pop()?;
            if matches!(renderer.child.try_wait(), Ok(None)) {
                return Some(renderer);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Renderer>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every answer is made of: a result or an error.
#[derive(Deserialize)]
struct Reply<Answer> {
    id: u64,
    error: Option<String>,
    result: Option<Answer>,
}

fn encode(id: u64, kind: &'static str, body: &[u8]) -> Result<Vec<u8>, RenderError> {
    let head = format!(r#"{{"id":{id},"kind":"{kind}","body":"#);
    let length = head.len() + body.len() + 1;
    let Some(size) = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FRAME_BYTES)
    else {
        let message = format!("{length} bytes are more than the limit of {MAX_FRAME_BYTES}");
        return Err(RenderError::EncodeRequest { kind, message });
    };
    Ok([&size.to_be_bytes(), head.as_bytes(), body, b"}"].concat())
}

fn decode<Answer: DeserializeOwned>(
    frame: &[u8],
    id: u64,
    what: &str,
) -> Result<Answer, RenderError> {
    let malformed = |message: String| RenderError::ReadAnswer {
        what: what.to_owned(),
        message,
    };
    let reply: Reply<Answer> =
        serde_json::from_slice(frame).map_err(|error| malformed(error.to_string()))?;
    if reply.id != id {
        return Err(malformed(format!(
            "it answers request {} in place of {id}",
            reply.id
        )));
    }
    match (reply.error, reply.result) {
        (Some(message), _) => Err(RenderError::refused(what, &message)),
        (None, Some(answer)) => Ok(answer),
        (None, None) => Err(malformed("it has neither a result nor an error".to_owned())),
    }
}

/// One process. Dropping it kills it.
struct Renderer {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    error_output: JoinHandle<String>,
    requests: u64,
}

impl Renderer {
    fn start(config: &RendererConfig) -> Result<Self, RenderError> {
        let failed = |source| RenderError::StartRenderer {
            program: config.program.clone(),
            source: Arc::new(source),
        };
        let mut child = Command::new(&config.program)
            // Go collects garbage eagerly before we have to kill
            .arg(format!(
                "--memory-limit={}",
                config.memory_limit_bytes / 4 * 3
            ))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(io::Error::other("no pipes")));
        };
        Ok(Self {
            child,
            stdin,
            stdout,
            error_output: tokio::spawn(keep_beginning(stderr)),
            requests: 0,
        })
    }

    /// Writes a request and reads the answer, within the limits.
    async fn exchange(
        &mut self,
        config: &RendererConfig,
        what: &str,
        frame: &[u8],
    ) -> Result<Vec<u8>, RenderError> {
        let process = self.child.id();
        let outcome = tokio::select! {
            outcome = talk(&mut self.stdin, &mut self.stdout, frame) => outcome,
            used_bytes = outgrow(process, config.memory_limit_bytes) => {
                let limit_bytes = config.memory_limit_bytes;
                return Err(RenderError::ExceedMemory { what: what.to_owned(), limit_bytes, used_bytes });
            }
            () = time::sleep(config.time_limit) => {
                return Err(RenderError::ExceedTime { what: what.to_owned(), limit: config.time_limit });
            }
        };
        match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(length)) => {
                let message =
                    format!("{length} bytes are more than the limit of {MAX_FRAME_BYTES}");
                Err(RenderError::ReadAnswer {
                    what: what.to_owned(),
                    message,
                })
            }
            Err(error) => Err(lost(what, self.end(&error).await)),
        }
    }

    /// How a process ended that no longer answers.
    async fn end(&mut self, error: &io::Error) -> String {
        let status = match time::timeout(END_TIME, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            _ => return error.to_string(),
        };
        match time::timeout(END_TIME, &mut self.error_output).await {
            Ok(Ok(output)) if !output.trim().is_empty() => {
                format!("{status}: {}", shorten(&output, ERROR_OUTPUT_BYTES))
            }
            _ => status,
        }
    }

    async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(error = %error, "renderer ended by itself");
        }
    }
}

/// The answer to a request, or the length of one that is too long.
async fn talk(
    stdin: &mut ChildStdin,
    stdout: &mut ChildStdout,
    frame: &[u8],
) -> io::Result<Result<Vec<u8>, usize>> {
    stdin.write_all(frame).await?;
    stdin.flush().await?;
    let length = stdout.read_u32().await? as usize;
    if length > MAX_FRAME_BYTES {
        return Ok(Err(length));
    }
    // grows with what arrives: a length alone must not take memory
    let mut answer = Vec::with_capacity(length.min(1 << 20));
    stdout.take(length as u64).read_to_end(&mut answer).await?;
    if answer.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Ok(answer))
}

/// Returns when the process uses more than `limit` bytes, with what it uses.
async fn outgrow(process: Option<u32>, limit: u64) -> u64 {
    let Some(process) = process else {
        return std::future::pending().await;
    };
    loop {
        time::sleep(MEMORY_INTERVAL).await;
        match own_memory(process) {
            Some(used) if used > limit => return used,
            _ => {}
        }
    }
}

/// Memory that belongs to the process alone, in bytes. Its 70 MiB of program text are shared with the page cache and
/// with its siblings and do not count: they would hide the growth that we look for.
fn own_memory(process: u32) -> Option<u64> {
    // A read from /proc does not wait for a disk: no need for a blocking thread.
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kibibytes: u64 = status
        .lines()
        .filter_map(|line| {
            line.strip_prefix("RssAnon:")
                .or_else(|| line.strip_prefix("RssShmem:"))
        })
        .filter_map(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .sum();
    Some(kibibytes * 1024)
}

/// Reads to the end, so that the process never waits for us, and keeps the beginning.
async fn keep_beginning(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let room = ERROR_OUTPUT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn lost(what: &str, message: impl Display) -> RenderError {
    RenderError::LoseRenderer {
        what: what.to_owned(),
        message: message.to_string(),
    }
}

#[cfg(test)]
mod tests;
