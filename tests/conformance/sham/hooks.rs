//! The suite's hands on process and backend.

use std::sync::Arc;

use async_trait::async_trait;
use provider_sdk::conformance::{Hook, Hooks};

use super::Process;

#[async_trait]
impl Hooks for super::process::Handle {
    fn has(&self, hook: Hook) -> bool {
        !matches!(hook, Hook::Terminate | Hook::AwaitExit | Hook::RotateCerts)
    }

    async fn call(&self, hook: Hook, arguments: &[(&str, String)]) -> Result<String, String> {
        let process: &Arc<Process> = &self.0;
        let argument = |name: &str| {
            arguments
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.clone())
                .ok_or_else(|| format!("no argument {name}"))
        };
        let state = || process.backend.state();
        match hook {
            Hook::Restart => process.restart().await,
            Hook::Logs => return Ok(process.log.lock().unwrap().clone()),
            Hook::BackendPutForeign => {
                let bytes = std::fs::read(argument("FILE")?).map_err(|error| error.to_string())?;
                return Ok(state().put_foreign("memory://here", &argument("NAME")?, &bytes));
            }
            Hook::BackendTamper => {
                if let Some(object) = state().objects.get_mut(&argument("ID")?) {
                    object.digest = "tampered".into();
                }
            }
            Hook::BackendRemove => {
                state().objects.remove(&argument("ID")?);
            }
            Hook::BackendNames => {
                let mut names = state();
                names.looks += 1;
                let lines = names
                    .objects
                    .values()
                    .map(|object| format!("{}\t{}", object.id, object.name));
                return Ok(lines.collect::<Vec<_>>().join("\n"));
            }
            Hook::BackendDown => state().down = true,
            Hook::BackendUp => state().down = false,
            Hook::BackendUse => {
                let id = argument("ID")?;
                let mut state = state();
                let object = state.objects.get_mut(&id).ok_or("no such object")?;
                object.in_use = true;
                return Ok(format!("{object:?}"));
            }
            Hook::BackendFree => {
                if let Some(object) = state().objects.get_mut(&argument("ID")?) {
                    object.in_use = false;
                }
            }
            other => return Err(format!("no hook {}", other.name())),
        }
        Ok(String::new())
    }
}
