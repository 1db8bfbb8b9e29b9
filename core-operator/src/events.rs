//! Events: what happened to an object, for people who look at it with `kubectl describe`.
//!
//! For transitions and mistakes of users, never once per loop. Publishing never delays a reconcile: a queue takes the
//! events, and when the API server is away for so long that the queue is full, the newest are lost.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;
use tracing::debug;

/// Who reports; also the `source` column of `kubectl get events`.
pub const REPORTER: &str = "cluster-stack-operator";

/// Events that wait; a burst of 100 stacks makes some hundred.
const QUEUE: usize = 1024;

/// Longest note that an API server takes, in bytes (`events.k8s.io/v1`).
const LONGEST_NOTE: usize = 1024;

/// Publishes events in the background. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<(Event, ObjectReference)>);

impl Events {
    /// Starts the task that publishes. It ends with the last clone.
    #[must_use]
    pub fn start(client: Client, instance: String) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: Some(instance),
        };
        let recorder = Recorder::new(client, reporter);
        tokio::spawn(async move {
            while let Some((event, object)) = receiver.recv().await {
                if let Err(error) = recorder.publish(&event, &object).await {
                    debug!(reason = event.reason, object = object.name, %error, "event not published");
                }
            }
        });
        Self(sender)
    }

    /// Something went as it should.
    pub fn normal(&self, object: ObjectReference, reason: &str, note: impl Into<String>) {
        self.publish(EventType::Normal, object, reason, note.into());
    }

    /// Somebody should look at it.
    pub fn warning(&self, object: ObjectReference, reason: &str, note: impl Into<String>) {
        self.publish(EventType::Warning, object, reason, note.into());
    }

    fn publish(&self, type_: EventType, object: ObjectReference, reason: &str, mut note: String) {
        note.truncate(note.floor_char_boundary(LONGEST_NOTE));
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: (!note.is_empty()).then_some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if self.0.try_send((event, object)).is_err() {
            debug!(reason, "event lost, the queue is full");
        }
    }
}
