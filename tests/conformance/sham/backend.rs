//! The backend: places with objects, ids that are never taken twice, and an outage. It outlives the provider's process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

/// Who made an object, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub installation: String,
    pub key: String,
    pub spec_digest: String,
}

/// The last verification of an object.
#[derive(Clone, Debug)]
pub struct Verified {
    pub level: i32,
    pub digest: String,
    pub size: u64,
    pub time: SystemTime,
}

/// An image in the backend.
#[derive(Clone, Debug)]
pub struct Object {
    pub id: String,
    pub place: String,
    pub name: String,
    /// The name that it has when it is published.
    pub display_name: String,
    /// The name that it has when it is not.
    pub working_name: String,
    pub attempt: i32,
    pub marker: Option<Marker>,
    /// All bytes are there.
    pub complete: bool,
    /// Digest of the bytes, as they came.
    pub digest: String,
    pub size: u64,
    pub verified: Option<Verified>,
    pub in_use: bool,
    pub created: SystemTime,
}

/// Places by what is in them.
#[derive(Debug, Default)]
pub struct Backend {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub struct State {
    pub objects: BTreeMap<String, Object>,
    /// Ids of all objects that ever were.
    pub burnt: BTreeSet<String>,
    pub down: bool,
    /// How often somebody read all names.
    pub looks: u64,
    foreign: u64,
}

impl Backend {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    /// The object with this marker at the place, whatever its id.
    pub fn find(&mut self, place: &str, installation: &str, key: &str) -> Option<&mut Object> {
        self.objects.values_mut().find(|object| {
            object.place == place
                && object
                    .marker
                    .as_ref()
                    .is_some_and(|marker| marker.installation == installation && marker.key == key)
        })
    }

    /// Adds an object, unless its id was taken before.
    pub fn add(&mut self, object: Object) -> bool {
        if !self.burnt.insert(object.id.clone()) {
            return false;
        }
        self.objects.insert(object.id.clone(), object);
        true
    }

    /// Adds somebody else's object.
    pub fn put_foreign(&mut self, place: &str, name: &str, bytes: &[u8]) -> String {
        self.foreign += 1;
        let id = format!("foreign-{}", self.foreign);
        let object = Object {
            id: id.clone(),
            place: place.into(),
            name: name.into(),
            display_name: String::new(),
            working_name: String::new(),
            attempt: 0,
            marker: None,
            complete: true,
            digest: format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
            size: bytes.len() as u64,
            verified: None,
            in_use: false,
            created: SystemTime::now(),
        };
        self.add(object);
        id
    }
}

/// The nth id of an image.
pub fn id(installation: &str, key: &str, n: u32) -> String {
    let hash = Sha256::digest(format!("{installation}/{key}/{n}"));
    hex::encode(&hash[..16])
}
