//! A proxy in front of a server: it holds back what clients send on the connections they have, and lets new ones pass.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

/// A proxy that lives as long as the test.
pub struct Proxy {
    port: u16,
    gates: Arc<Mutex<Vec<Arc<Gate>>>>,
    received: Arc<AtomicUsize>,
    turns: Arc<Turns>,
}

/// Whose turn it is to send. It means something while one connection is in use.
#[derive(Default)]
struct Turns {
    is_clients: AtomicBool,
    round_trips: AtomicUsize,
}

impl Turns {
    /// The client sends: a round trip begins, unless it has sent before and waits for the answer.
    fn client(&self) {
        if !self.is_clients.swap(true, Ordering::SeqCst) {
            self.round_trips.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn server(&self) {
        self.is_clients.store(false, Ordering::SeqCst);
    }
}

/// What stands between a client and the server.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.is_closed.lock().unwrap();
        drop(self.changed.wait_while(closed, |closed| *closed).unwrap());
    }
}

impl Proxy {
    /// Listens on this port for connections to a server of this machine.
    pub fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let gates: Arc<Mutex<Vec<Arc<Gate>>>> = Arc::default();
        let (opened, received) = (Arc::clone(&gates), Arc::new(AtomicUsize::new(0)));
        let (counted, turns) = (Arc::clone(&received), Arc::<Turns>::default());
        let taken = Arc::clone(&turns);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let gate = Arc::new(Gate::default());
                opened.lock().unwrap().push(Arc::clone(&gate));
                let (back_from, back_to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                let (counted, back, forth) = (Arc::clone(&counted), Arc::clone(&taken), Arc::clone(&taken));
                thread::spawn(move || {
                    forward(back_from, back_to, |bytes| {
                        counted.fetch_add(bytes, Ordering::Relaxed);
                        back.server();
                    });
                });
                thread::spawn(move || {
                    forward(client, upstream, |_| {
                        forth.client();
                        gate.pass();
                    });
                });
            }
        });
        Self { port, gates, received, turns }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Gives how many bytes the server has sent in all.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// Gives how often the client of the only connection has sent something and then waited for the server.
    pub fn round_trips(&self) -> usize {
        self.turns.round_trips.load(Ordering::SeqCst)
    }

    /// Holds back what is sent from now on over the connections that are open, also when their client is gone.
    pub fn hold(&self) {
        self.gates.lock().unwrap().iter().for_each(|gate| gate.set(true));
    }

    /// Lets it through.
    pub fn release(&self) {
        self.gates.lock().unwrap().iter().for_each(|gate| gate.set(false));
    }
}

/// The server's end stays open as long as something is held back for it.
fn forward(mut from: TcpStream, mut to: TcpStream, before: impl Fn(usize)) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        before(read);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
