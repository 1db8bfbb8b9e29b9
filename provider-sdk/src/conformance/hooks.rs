//! What can be done to provider and backend from outside of the contract: restarts, logs, objects behind the provider's back.
//!
//! A hook is a closure of a test, or a command. A check whose hook is absent is not run, and says so.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use async_trait::async_trait;
use tokio::process::Command;

/// Things that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Kills the provider (SIGKILL) if it lives, and starts it. May print the new address.
    Restart,
    /// Asks the provider to end (SIGTERM) and returns at once; prints nothing.
    Terminate,
    /// Returns when the provider that was asked to end has ended, and says after how many seconds.
    AwaitExit,
    /// Prints all that the provider has logged, at its most verbose level.
    Logs,
    /// Makes an object that carries no marker: `NAME`, `FILE` (the bytes as served), `DISK_FORMAT`. Prints its id.
    BackendPutForeign,
    /// Changes or deactivates the object `ID`.
    BackendTamper,
    /// Removes the object `ID`, marked or not.
    BackendRemove,
    /// Prints all objects, a line each: id, tab, name. An object with several names has several lines.
    BackendNames,
    /// Takes the backend away.
    BackendDown,
    /// Brings the backend back.
    BackendUp,
    /// Puts the object `ID` in use and prints all that the backend knows about it.
    BackendUse,
    /// Ends the use of the object `ID`.
    BackendFree,
    /// Replaces the server certificate, by the same authority, without a restart.
    RotateCerts,
}

impl Hook {
    /// All hooks.
    pub const ALL: [Self; 13] = [
        Self::Restart,
        Self::Terminate,
        Self::AwaitExit,
        Self::Logs,
        Self::BackendPutForeign,
        Self::BackendTamper,
        Self::BackendRemove,
        Self::BackendNames,
        Self::BackendDown,
        Self::BackendUp,
        Self::BackendUse,
        Self::BackendFree,
        Self::RotateCerts,
    ];

    /// As written on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Terminate => "terminate",
            Self::AwaitExit => "await-exit",
            Self::Logs => "logs",
            Self::BackendPutForeign => "backend-put-foreign",
            Self::BackendTamper => "backend-tamper",
            Self::BackendRemove => "backend-remove",
            Self::BackendNames => "backend-names",
            Self::BackendDown => "backend-down",
            Self::BackendUp => "backend-up",
            Self::BackendUse => "backend-use",
            Self::BackendFree => "backend-free",
            Self::RotateCerts => "rotate-certs",
        }
    }

    /// The hook of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }
}

/// Does things to provider and backend.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// Whether this one can be done.
    fn has(&self, hook: Hook) -> bool;

    /// Does it, and returns what it prints.
    ///
    /// # Errors
    ///
    /// Says why it could not be done.
    async fn call(&self, hook: Hook, arguments: &[(&str, String)]) -> Result<String, String>;
}

/// Nothing can be done.
#[derive(Clone, Copy, Debug)]
pub struct NoHooks;

#[async_trait]
impl Hooks for NoHooks {
    fn has(&self, _: Hook) -> bool {
        false
    }

    async fn call(&self, hook: Hook, _: &[(&str, String)]) -> Result<String, String> {
        Err(format!("there is no hook \"{}\"", hook.name()))
    }
}

/// Hooks that are commands for `sh -c`; arguments are environment variables that begin with `CONFORMANCE_`.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    commands: BTreeMap<Hook, String>,
}

/// A hook that takes longer than this hangs.
const LONGEST: Duration = Duration::from_mins(2);

impl Commands {
    /// No commands.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    #[must_use]
    pub fn with(mut self, hook: Hook, command: impl Into<String>) -> Self {
        self.commands.insert(hook, command.into());
        self
    }
}

#[async_trait]
impl Hooks for Commands {
    fn has(&self, hook: Hook) -> bool {
        self.commands.contains_key(&hook)
    }

    async fn call(&self, hook: Hook, arguments: &[(&str, String)]) -> Result<String, String> {
        let command = self
            .commands
            .get(&hook)
            .ok_or_else(|| format!("there is no hook \"{}\"", hook.name()))?;
        let child = Command::new("sh")
            .arg("-c")
            .arg(command)
            .env("CONFORMANCE_HOOK", hook.name())
            .envs(
                arguments
                    .iter()
                    .map(|(name, value)| (format!("CONFORMANCE_{name}"), value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("hook \"{}\": {error}", hook.name()))?;
        let output = tokio::time::timeout(LONGEST, child.wait_with_output())
            .await
            .map_err(|_elapsed| format!("hook \"{}\" hangs", hook.name()))?
            .map_err(|error| format!("hook \"{}\": {error}", hook.name()))?;
        if !output.status.success() {
            return Err(format!(
                "hook \"{}\" ended with {}: {}",
                hook.name(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn command_gets_its_arguments_from_the_environment() {
        let hooks = Commands::new().with(
            Hook::BackendRemove,
            "printf '%s' \"$CONFORMANCE_HOOK $CONFORMANCE_ID\"",
        );
        let printed = hooks
            .call(Hook::BackendRemove, &[("ID", "a b".into())])
            .await
            .unwrap();
        assert_eq!(printed, "backend-remove a b");
        assert!(!hooks.has(Hook::Restart));
    }

    #[tokio::test]
    async fn failing_command_says_what_it_wrote() {
        let hooks = Commands::new().with(Hook::Logs, "echo broken >&2; exit 3");
        let error = hooks.call(Hook::Logs, &[]).await.unwrap_err();
        assert!(error.contains("broken"), "{error}");
    }
}
