//! What the source of a stack has, listed beside the reconcile.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::{
    api::ClusterStack,
    context::Context,
    controllers::places::PlaceError,
    jobs::{Failure, Jobs, Pace},
    source::Listing,
};

/// Listings under way and done, by the UID of the stack.
pub type Listings = Jobs<Arc<Listing>, PlaceError>;

impl Failure for PlaceError {
    fn recovery(&self) -> proto::Recovery {
        Self::recovery(self)
    }
}

/// What is known of the source's releases.
#[derive(Debug, Clone, Default)]
pub(super) struct Listed {
    /// The last listing that was complete.
    pub listing: Option<Arc<Listing>>,
    /// Why it is not the newest, if so.
    pub problem: Option<Arc<PlaceError>>,
    /// Time until the next one; none while one is under way, which wakes the stack, or when the stack wants none.
    pub due: Option<Duration>,
}

/// The source's releases; starts to list them when that is due: for the first time, at a change of the spec, and every
/// poll interval.
pub(super) fn look(stack: &Arc<ClusterStack>, context: &Arc<Context>) -> Listed {
    let uid = stack.uid().unwrap_or_default();
    if !stack.spec.auto_subscribe {
        context.listings.forget(&uid);
        return Listed::default();
    }
    let pace = Pace {
        interval: stack.poll_interval(context.poll_interval),
        longest: None,
    };
    let list = |_previous| {
        let (places, stack) = (context.places.clone(), Arc::clone(stack));
        async move { places.list(&stack).await }
    };
    let (waker, object) = (context.wakers.stacks.clone(), ObjectRef::from_obj(&**stack));
    let look = context
        .listings
        .look(&uid, input(stack, context), pace, list, move || {
            waker.wake(object);
        });
    Listed {
        listing: look.value.map(|listing| Arc::clone(&*listing)),
        problem: look.failure,
        due: look.due,
    }
}

/// Any change of the spec or of a Secret lists at once: somebody is waiting for something.
fn input(stack: &ClusterStack, context: &Context) -> u64 {
    let mut hasher = DefaultHasher::new();
    stack.metadata.generation.hash(&mut hasher);
    context.places.secrets().changes(stack).hash(&mut hasher);
    hasher.finish()
}
