//! A TLS handshake that does not hold up the thread it is asked for on.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::web::{pressure::Pressure, share::Share};

/// What the handshake waits for has come.
struct Arrived(Notify);

impl Wake for Arrived {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Shakes hands with the client behind `stream`. Every step, from reading the first message to
/// checking the client's certificates, is taken in a turn of `share`; no turn is held while
/// the client is waited for.
///
/// # Errors
/// When the client does not do its part, breaks off, or is asked by `pressure` to give way.
pub(in crate::web) async fn shake_hands<S>(
    config: Arc<ServerConfig>,
    stream: S,
    share: &Share,
    pressure: &Pressure,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let arrived = Arc::new(Arrived(Notify::new()));
    let mut accept = TlsAcceptor::from(config).accept(stream);
    loop {
        let waker = Waker::from(Arc::clone(&arrived));
        let step = move || {
            let polled = Pin::new(&mut accept).poll(&mut Context::from_waker(&waker));
            (accept, polled)
        };
        let taken = share.turn().await.spend(step).await;
        let (rest, polled) = taken.map_err(io::Error::other)?;
        if let Poll::Ready(outcome) = polled {
            return outcome;
        }
        accept = rest;
        let came = pressure.unless_asked(arrived.0.notified()).await;
        came.ok_or(io::ErrorKind::TimedOut)?;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        thread::{self, ThreadId},
        time::Duration,
    };

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{PrivateKeyDer, ServerName},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::web::tests::block_on;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Chooses the certificate, in the middle of the costly step, and notes where and beside whom.
    #[derive(Debug)]
    struct Watching {
        key: Arc<CertifiedKey>,
        inside: AtomicUsize,
        most: AtomicUsize,
        threads: Mutex<Vec<ThreadId>>,
        /// Says that it is there, and waits to be let go.
        pause: Option<(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>)>,
    }

    impl ResolvesServerCert for Watching {
        fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(inside, Ordering::SeqCst);
            self.threads.lock().unwrap().push(thread::current().id());
            if let Some((there, go)) = &self.pause {
                there.send(()).unwrap();
                go.lock().unwrap().recv_timeout(PATIENCE).ok()?;
            }
            for _ in 0..100 {
                thread::yield_now();
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            Some(Arc::clone(&self.key))
        }
    }

    fn ends(
        pause: Option<(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>)>,
    ) -> (Arc<Watching>, Arc<ServerConfig>, TlsConnector) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let certified = CertifiedKey::from_der(vec![certificate], secret, &provider).unwrap();
        let watching = Arc::new(Watching {
            key: Arc::new(certified),
            inside: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            threads: Mutex::default(),
            pause,
        });
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&watching) as Arc<dyn ResolvesServerCert>);
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(client));
        (watching, Arc::new(server), connector)
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("localhost").unwrap()
    }

    /// A client that leaves at once would break off what the server still has to say.
    async fn until_closed(mut stream: impl AsyncRead + Unpin) {
        let _ = stream.read(&mut [0]).await;
    }

    /// The step is let go by the runtime's thread: were it taken there, it would never end.
    #[test]
    fn the_runtime_goes_on_during_the_costly_step() {
        let ((there, came), (go, gone)) = (mpsc::channel(), mpsc::channel());
        let (watching, server, client) = ends(Some((there, Mutex::new(gone))));
        block_on(async {
            let (near, far) = duplex(16 << 10);
            let shaking = tokio::spawn(async move {
                let share = Share::new();
                let pressure = Pressure::default();
                let mut stream = shake_hands(server, near, &share, &pressure).await?;
                stream.write_all(b"hello").await?;
                stream.shutdown().await
            });
            let connecting = tokio::spawn(async move {
                let mut stream = client.connect(name(), far).await.unwrap();
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await.unwrap();
                said
            });
            while came.try_recv().is_err() {
                assert!(!shaking.is_finished());
                tokio::task::yield_now().await;
            }
            go.send(()).unwrap();
            assert_eq!(connecting.await.unwrap(), b"hello");
            shaking.await.unwrap().unwrap();
        });
        let here = thread::current().id();
        assert!(!watching.threads.lock().unwrap().contains(&here));
    }

    #[test]
    fn a_flood_is_taken_one_by_one() {
        const FLOOD: usize = 40;
        let (watching, server, client) = ends(None);
        block_on(async {
            let share = Arc::new(Share::new());
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..FLOOD {
                let (near, far) = duplex(16 << 10);
                let (server, share) = (Arc::clone(&server), Arc::clone(&share));
                tasks.spawn(async move {
                    let pressure = Pressure::default();
                    shake_hands(server, near, &share, &pressure).await.unwrap();
                });
                let client = client.clone();
                tasks.spawn(async move {
                    until_closed(client.connect(name(), far).await.unwrap()).await;
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        });
        assert_eq!(watching.most.load(Ordering::SeqCst), 1);
        assert_eq!(watching.threads.lock().unwrap().len(), FLOOD);
    }

    /// One that says nothing, or half of something, keeps nobody from his turn.
    #[test]
    fn no_turn_is_held_while_a_client_is_waited_for() {
        let (_, server, client) = ends(None);
        block_on(async {
            let share = Arc::new(Share::new());
            let shake = |stream| {
                let (server, share) = (Arc::clone(&server), Arc::clone(&share));
                tokio::spawn(async move {
                    let pressure = Pressure::default();
                    let shaken = shake_hands(server, stream, &share, &pressure).await;
                    shaken.map(drop)
                })
            };
            let mut silent = Vec::new();
            for part in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"] {
                let (near, mut far) = duplex(16 << 10);
                far.write_all(part).await.unwrap();
                silent.push((shake(near), far));
            }
            let (near, far) = duplex(16 << 10);
            let shaking = shake(near);
            until_closed(client.connect(name(), far).await.unwrap()).await;
            shaking.await.unwrap().unwrap();
            for (shaking, far) in silent {
                assert!(!shaking.is_finished());
                drop(far);
                assert!(shaking.await.unwrap().is_err());
            }
        });
    }
}
