//! A TCP line to a server, for what lines do: be slow, go silent, break. It counts bytes.
//!
//! Threads, not tasks, as in [`delay`](crate::delay): a test that keeps its runtime busy must not slow the line down.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Small, so that a slow line moves evenly and breaks soon.
const CHUNK: usize = 16 * 1024;

/// Between two looks of a line that may not move.
const PAUSE: Duration = Duration::from_millis(10);

/// No limit.
const UNLIMITED: u64 = u64::MAX;

/// A line that runs until it is dropped; then its port is closed and its connections break.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes per second that the server may send, over all connections.
    rate: AtomicU64,
    /// Bytes that the server may still send before nothing moves any more.
    allowance: AtomicU64,
    /// All that the server has sent.
    received: AtomicU64,
    connections: AtomicU64,
    ended: AtomicBool,
    open: Mutex<Vec<Weak<Ends>>>,
    /// Held while bytes are accounted, so that connections share the rate.
    turn: Mutex<()>,
}

/// One connection.
#[derive(Debug)]
struct Ends {
    client: TcpStream,
    server: TcpStream,
}

impl Ends {
    fn shut(&self) {
        // Fails when it is closed already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Line {
    /// Opens a line to the server at `target`.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn open(target: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to listen for a line")?;
        let address = listener
            .local_addr()
            .context("failed to ask for a line's port")?;
        let shared = Arc::new(Shared {
            rate: AtomicU64::new(UNLIMITED),
            allowance: AtomicU64::new(UNLIMITED),
            received: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
            turn: Mutex::new(()),
        });
        let line = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if line.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A connection that fails is seen as such by the client: it is closed.
                let _ = join(client, target, &line);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where the server seems to be.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Limits what the server sends from now on, over all connections; `None` is no limit.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        let rate = bytes_per_second.unwrap_or(UNLIMITED).max(1);
        self.shared.rate.store(rate, Ordering::SeqCst);
    }

    /// Goes silent after the server has sent so many more bytes, until [`go_on`](Self::go_on).
    pub fn go_silent_after(&self, bytes: u64) {
        self.shared.allowance.store(bytes, Ordering::SeqCst);
    }

    /// Ends silence.
    pub fn go_on(&self) {
        self.shared.allowance.store(UNLIMITED, Ordering::SeqCst);
    }

    /// Breaks all connections; new ones can be made.
    pub fn cut(&self) {
        for ends in self
            .shared
            .ends()
            .drain(..)
            .filter_map(|ends| ends.upgrade())
        {
            ends.shut();
        }
    }

    /// Bytes that the server has sent until now.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// Connections that were made until now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn ends(&self) -> MutexGuard<'_, Vec<Weak<Ends>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `wanted` bytes may pass, or fewer, and says how many; 0 at the line's end.
    fn pass(&self, wanted: usize) -> usize {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.ended.load(Ordering::SeqCst) {
                return 0;
            }
            let allowance = self.allowance.load(Ordering::SeqCst);
            let now = wanted.min(usize::try_from(allowance).unwrap_or(usize::MAX));
            if now == 0 {
                thread::sleep(PAUSE);
                continue;
            }
            if allowance != UNLIMITED {
                // Raised meanwhile: then nothing is to be taken off.
                let less = allowance - now as u64;
                let _ = self.allowance.compare_exchange(
                    allowance,
                    less,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                );
            }
            let rate = self.rate.load(Ordering::SeqCst);
            if rate != UNLIMITED {
                thread::sleep(Duration::from_micros(now as u64 * 1_000_000 / rate));
            }
            return now;
        }
    }
}

fn join(client: TcpStream, target: SocketAddr, line: &Arc<Shared>) -> std::io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    line.connections.fetch_add(1, Ordering::SeqCst);
    let ends = Arc::new(Ends { client, server });
    {
        let mut open = line.ends();
        open.retain(|ends| ends.strong_count() > 0);
        open.push(Arc::downgrade(&ends));
    }
    let up = Arc::clone(&ends);
    thread::spawn(move || {
        pump(&up.client, &up.server, |bytes| bytes);
        // The client may still wait for its answer.
        let _ = up.server.shutdown(Shutdown::Write);
    });
    let line = Arc::clone(line);
    thread::spawn(move || {
        pump(&ends.server, &ends.client, |bytes| {
            let passed = line.pass(bytes);
            line.received.fetch_add(passed as u64, Ordering::SeqCst);
            passed
        });
        ends.shut();
    });
    Ok(())
}

/// Moves bytes as `pass` lets them, until one side ends or nothing may pass any more.
fn pump(mut from: &TcpStream, mut to: &TcpStream, mut pass: impl FnMut(usize) -> usize) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let now = pass(rest.len());
            if now == 0 || to.write_all(&rest[..now]).is_err() {
                return;
            }
            rest = &rest[now..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends for ever, to everybody.
    fn sender() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || while stream.write_all(&[7; 1000]).is_ok() {});
            }
        });
        address
    }

    #[test]
    fn silent_line_moves_exactly_what_it_may_and_goes_on() {
        let line = Line::open(sender()).unwrap();
        line.go_silent_after(100_000);
        let mut client = TcpStream::connect(line.address()).unwrap();
        client.read_exact(&mut vec![0; 100_000]).unwrap();
        client
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        assert!(client.read(&mut [0]).is_err(), "silent");
        assert_eq!(line.received(), 100_000);
        line.go_on();
        client.set_read_timeout(None).unwrap();
        client.read_exact(&mut vec![0; 50_000]).unwrap();
        assert!(line.received() >= 150_000);
        assert_eq!(line.connections(), 1);
    }

    #[test]
    fn cut_breaks_connections_and_new_ones_can_be_made() {
        let line = Line::open(sender()).unwrap();
        let mut client = TcpStream::connect(line.address()).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        line.cut();
        // Comes back, with an error or without.
        let _ = client.read_to_end(&mut Vec::new());
        let mut client = TcpStream::connect(line.address()).unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        assert_eq!(line.connections(), 2);
    }
}
