//! A TCP proxy on the loopback address that makes a server seem far away.
//!
//! Every byte is late by half a round trip in each direction; nothing is slower otherwise: any number of bytes may be under way. Opening a connection takes no
//! time, the TLS handshake on it does. Threads, not tasks: a runtime's timers are a millisecond coarse, which is a fifth of what is to be measured.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Larger than anything a control plane sends at once.
const BUFFER: usize = 256 * 1024;

/// A running proxy. Dropping it closes its port; connections end with their clients or the server.
#[derive(Debug)]
pub struct Delay {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Delay {
    /// Starts a proxy in front of the server at `target`.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn start(target: SocketAddr, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("failed to listen for the delaying proxy")?;
        let address = listener
            .local_addr()
            .context("failed to ask for the delaying proxy's port")?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                // A connection that fails is seen as such by the client: it is closed.
                let _ = join(client, target, round_trip / 2);
            }
        });
        Ok(Self { address, ended })
    }

    /// Where the server seems to be.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(client: TcpStream, target: SocketAddr, delay: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pump(client.try_clone()?, server.try_clone()?, delay);
    pump(server, client, delay);
    Ok(())
}

/// Moves what arrives, late. The end of one direction is passed on like its bytes.
fn pump(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let late = (Instant::now() + delay, buffer[..read].to_vec());
            if sender.send(late).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_take_the_round_trip_longer_and_arrive_whole() {
        const ROUND_TRIP: Duration = Duration::from_millis(20);
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let delay = Delay::start(server.local_addr().unwrap(), ROUND_TRIP).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut bytes = vec![0; 4];
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes).unwrap();
            }
        });
        let mut client = TcpStream::connect(delay.address()).unwrap();
        let begin = Instant::now();
        for text in [b"ping", b"pong"] {
            client.write_all(text).unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, text);
        }
        assert!(begin.elapsed() >= 2 * ROUND_TRIP);
        client.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }
}
