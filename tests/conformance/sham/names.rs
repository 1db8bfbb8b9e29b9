//! Who carries which name.

use std::time::Duration;

use super::{Fault, backend::Backend};

/// Gives an object its display name; false if somebody else's object is in the way.
pub async fn publish(backend: &Backend, fault: Option<Fault>, id: &str, name: &str) -> bool {
    let (others, looks) = {
        let mut state = backend.state();
        let Some(ours) = state.objects.get(id).cloned() else {
            return false;
        };
        let carriers: Vec<_> = state
            .objects
            .values()
            .filter(|object| object.place == ours.place && object.name == name && object.id != id)
            .cloned()
            .collect();
        let installation = ours.marker.as_ref().map(|marker| &marker.installation);
        let foreign = carriers.iter().any(|object| {
            let theirs = object.marker.as_ref().map(|marker| &marker.installation);
            match theirs {
                None => true,
                Some(theirs) => {
                    Some(theirs) != installation && fault != Some(Fault::TakesNamesOfOthers)
                }
            }
        });
        if foreign {
            return false;
        }
        let others: Vec<_> = carriers.into_iter().map(|object| object.id).collect();
        if fault == Some(Fault::TwoForAMoment) && !others.is_empty() {
            rename(&mut state, id, Some(name));
        } else {
            if fault != Some(Fault::TwoPublished) {
                for other in &others {
                    rename(&mut state, other, None);
                }
            }
            rename(&mut state, id, Some(name));
            return true;
        }
        (others, state.looks)
    };
    // The wrong order, and time to see it, however slow the machine is.
    for _ in 0..2000 {
        if backend.state().looks > looks + 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut state = backend.state();
    for other in &others {
        rename(&mut state, other, None);
    }
    true
}

/// Gives an object a name, or its working name back.
pub fn rename(state: &mut super::backend::State, id: &str, name: Option<&str>) {
    if let Some(object) = state.objects.get_mut(id) {
        object.name = name.unwrap_or(&object.working_name).to_owned();
    }
}

/// Whether the object carries the name, and no other at its place does.
pub fn is_published(state: &super::backend::State, fault: Option<Fault>, id: &str) -> bool {
    let Some(ours) = state.objects.get(id) else {
        return false;
    };
    ours.name == ours.display_name
        && (fault == Some(Fault::TwoPublished)
            || !state.objects.values().any(|other| {
                other.id != id && other.place == ours.place && other.name == ours.name
            }))
}
