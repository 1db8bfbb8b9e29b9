//! Free ports on the loopback address.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rand::Rng;

/// Below the ephemeral range (32768 and up), from which the kernel takes the local ports of outgoing connections: one of those may
/// hold a port of that range at the moment a server wants to listen on it again.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port nobody else of the test bed gets while this value lives, in this process or another.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Finds a port on which nobody listens and reserves it.
    ///
    /// # Errors
    ///
    /// When the reservation files cannot be written or no port is left.
    pub fn reserve() -> Result<Self> {
        static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

        let folder = std::env::temp_dir().join("cluster-stack-operator-ports");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        for _ in 0..1000 {
            let number = rand::rng().random_range(RANGE);
            let path = folder.join(number.to_string());
            let lock = File::create(&path)
                .with_context(|| format!("failed to create {}", path.display()))?;
            if lock.try_lock().is_err() || TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_err()
            {
                continue;
            }
            // Never twice in one process: what used it before may still be known somewhere by its port.
            if GIVEN
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(number)
            {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        bail!("no free port between {} and {}", RANGE.start, RANGE.end)
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
