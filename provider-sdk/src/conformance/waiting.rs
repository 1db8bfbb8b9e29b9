//! Waiting for what an image must become.

use std::time::{Duration, Instant};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};

use super::{
    artifacts::Served,
    case::{Case, Wish},
    check::{Verdict, expect, failed},
    status::{Failure, brief, reason_name, state},
};

impl Case {
    /// EnsureImage until it holds; FAILED ends the waiting unless it is what was waited for.
    pub(crate) async fn until(
        &self,
        wish: &Wish,
        goal: &str,
        mut holds: impl FnMut(&wire::ImageObservation) -> bool,
    ) -> Verdict<wire::ImageObservation> {
        let sent = format!("{wish} again and again");
        let until = Instant::now() + self.run.options.patience;
        loop {
            let came = match self.ensure(wish).await {
                Ok(observation) if holds(&observation) => return Ok(observation),
                Ok(observation) if state(&observation) == State::Failed => {
                    return Err(failed(sent, goal, brief(&observation)));
                }
                Ok(observation) => brief(&observation),
                Err(status) if self.calls_again(&status) => Failure::from(&status).to_string(),
                Err(status) => return Err(failed(sent, goal, Failure::from(&status))),
            };
            if Instant::now() > until {
                return Err(failed(
                    sent,
                    format!("{goal} within {:?}", self.run.options.patience),
                    came,
                ));
            }
            tokio::time::sleep(self.run.pace()).await;
        }
    }

    pub(crate) async fn until_active(&self, wish: &Wish) -> Verdict<wire::ImageObservation> {
        self.until(wish, "ACTIVE", |observation| {
            state(observation) == State::Active
        })
        .await
    }

    /// EnsureImage of a FAILED image with a higher floor until ACTIVE; the old failure may still be the first answer.
    pub(crate) async fn until_after_failure(
        &self,
        wish: &Wish,
        failed_attempt: i32,
    ) -> Verdict<wire::ImageObservation> {
        let observation = self
            .until(wish, "ACTIVE in a higher attempt", |observation| {
                state(observation) == State::Active || observation.attempt > failed_attempt
            })
            .await?;
        if state(&observation) == State::Active {
            return Ok(observation);
        }
        self.until_active(wish).await
    }

    pub(crate) async fn until_published(&self, wish: &Wish) -> Verdict<wire::ImageObservation> {
        self.until(wish, "ACTIVE and published", |observation| {
            state(observation) == State::Active && observation.published
        })
        .await
    }

    /// FAILED with this reason, as an observation; a status with this reason counts where `or_status` allows it.
    pub(crate) async fn until_failed(
        &self,
        wish: &Wish,
        reason: Reason,
        or_status: bool,
    ) -> Verdict<Option<wire::ImageObservation>> {
        let goal = format!("FAILED with {}", reason_name(reason));
        let sent = format!("{wish} again and again");
        let until = Instant::now() + self.run.options.patience;
        loop {
            let came = match self.ensure(wish).await {
                Ok(observation) if state(&observation) == State::Active => {
                    return Err(failed(sent, goal, brief(&observation)));
                }
                Ok(observation) if state(&observation) == State::Failed => {
                    let failure = super::status::failure(&observation);
                    expect(
                        failure.is_some_and(|failure| failure.is(reason)),
                        sent,
                        goal,
                        brief(&observation),
                    )?;
                    return Ok(Some(observation));
                }
                Ok(observation) => brief(&observation),
                Err(status) if or_status && Failure::from(&status).is(reason) => return Ok(None),
                Err(status) if self.calls_again(&status) => Failure::from(&status).to_string(),
                Err(status) => return Err(failed(sent, goal, Failure::from(&status))),
            };
            if Instant::now() > until {
                return Err(failed(
                    sent,
                    format!("{goal} within {:?}", self.run.options.patience),
                    came,
                ));
            }
            tokio::time::sleep(self.run.pace()).await;
        }
    }

    /// Waits until this many responses with main bytes run.
    pub(crate) async fn until_open(
        &self,
        served: &Served,
        goal: &str,
        holds: impl FnMut(&usize) -> bool,
        patience: Duration,
    ) -> Verdict {
        let mut open = served.open();
        match tokio::time::timeout(patience, open.wait_for(holds)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(failed(
                format!("looked at the source for {patience:?}"),
                goal,
                format!("{} running; {}", *served.open().borrow(), served.counts()),
            )),
        }
    }

    /// Starts a transfer of an artifact that stops in the middle, and waits until it has begun.
    pub(crate) async fn transferring(&self, wish: &Wish, served: &Served) -> Verdict {
        served.behave(|behaviour| behaviour.hold_at = Some(served.size() / 2));
        let mut open = served.open();
        let until = Instant::now() + self.run.options.patience;
        // No call is abandoned: one that is still on its way could start the work anew after a DeleteImage.
        while Instant::now() < until {
            match self.ensure(wish).await {
                Err(status) if !self.calls_again(&status) => {
                    return Err(failed(wish, "OK", Failure::from(&status)));
                }
                Ok(observation) if matches!(state(&observation), State::Failed | State::Active) => {
                    return Err(failed(
                        wish,
                        "a transfer of an artifact whose source has stopped in the middle",
                        brief(&observation),
                    ));
                }
                _ => {}
            }
            let begun = open.wait_for(|open| *open > 0);
            if tokio::time::timeout(self.run.pace(), begun).await.is_ok() {
                return Ok(());
            }
        }
        Err(failed(
            wish,
            format!(
                "the source is asked for bytes within {:?}",
                self.run.options.patience
            ),
            served.counts(),
        ))
    }
}
