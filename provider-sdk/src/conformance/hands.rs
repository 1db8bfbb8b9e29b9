//! The suite's hands on provider and backend: what checks do with hooks.

use std::time::{Duration, Instant};

use proto::wire;

use super::{
    artifacts::Served,
    case::Case,
    check::{Verdict, failed, not_applicable},
    hooks::Hook,
    run::word,
    status::Failure,
};

impl Case {
    /// Kills and starts the provider, and waits until it answers.
    pub(crate) async fn restart(&self) -> Verdict {
        self.disturb();
        let printed = self.run.hook(Hook::Restart, &[]).await?;
        let address = printed.trim();
        self.reconnect((!address.is_empty()).then_some(address))
            .await
    }

    pub(crate) async fn reconnect(&self, address: Option<&str>) -> Verdict {
        self.run
            .reconnect(address)
            .map_err(|error| failed("hook \"restart\"", "an address", error))?;
        let until = Instant::now() + self.run.options.patience;
        loop {
            let answer = self
                .line()
                .call(&wire::GetProviderInfoRequest {
                    caller: Some(self.caller()),
                })
                .await;
            match answer {
                Ok(_) => return Ok(()),
                Err(status) if Instant::now() > until => {
                    return Err(failed(
                        "hook \"restart\", then GetProviderInfo",
                        format!("OK within {:?}", self.run.options.patience),
                        Failure::from(&status),
                    ));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Makes a foreign object that carries a name; answers its id.
    pub(crate) async fn put_foreign(&self, name: &str, served: &Served) -> Verdict<String> {
        let bytes = served
            .content
            .bytes()
            .ok_or_else(|| not_applicable("the artifact is not in memory"))?;
        let path = std::env::temp_dir().join(format!("conformance-{}-{}", self.run.id, word(8)));
        let written = tokio::fs::write(&path, bytes).await;
        let format = served.content.format.as_str_name();
        let printed = match written {
            Ok(()) => {
                self.run
                    .hook(
                        Hook::BackendPutForeign,
                        &[
                            ("NAME", name.to_owned()),
                            ("FILE", path.to_string_lossy().into_owned()),
                            (
                                "DISK_FORMAT",
                                format
                                    .strip_prefix("DISK_FORMAT_")
                                    .unwrap_or(format)
                                    .to_owned(),
                            ),
                        ],
                    )
                    .await
            }
            Err(error) => Err(failed(
                format!("a file for hook \"{}\"", Hook::BackendPutForeign.name()),
                "it can be written",
                error,
            )),
        };
        let _ = tokio::fs::remove_file(&path).await;
        printed.map(|printed| printed.trim().to_owned())
    }

    /// Ids and names of all objects in the backend.
    pub(crate) async fn backend_names(&self) -> Verdict<Vec<(String, String)>> {
        let printed = self.run.hook(Hook::BackendNames, &[]).await?;
        Ok(printed
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (id, name) = line.split_once('\t').unwrap_or((line, ""));
                (id.to_owned(), name.to_owned())
            })
            .collect())
    }

    /// Ids of the objects in the backend that carry this name.
    pub(crate) async fn carriers(&self, name: &str) -> Verdict<Vec<String>> {
        Ok(self
            .backend_names()
            .await?
            .into_iter()
            .filter(|(_, carried)| carried == name)
            .map(|(id, _)| id)
            .collect())
    }
}
