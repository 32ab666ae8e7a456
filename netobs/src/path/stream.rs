//! A connection that notes when the first byte came and how many there were.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// A connection of either kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What has been noted of a connection.
#[derive(Debug, Default)]
pub(super) struct Marks {
    first_byte: OnceLock<Instant>,
    received: AtomicU64,
}

impl Marks {
    /// When the first byte came.
    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.first_byte.get().copied()
    }

    /// Bytes that came so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// A connection with its marks. Boxed, so that HTTP is compiled for one kind of connection only.
pub(super) struct Stream {
    inner: Box<dyn Duplex>,
    marks: Arc<Marks>,
}

impl Stream {
    pub(super) fn new(inner: impl Duplex + 'static) -> (Self, Arc<Marks>) {
        let marks = Arc::new(Marks::default());
        let stream = Self {
            inner: Box::new(inner),
            marks: Arc::clone(&marks),
        };
        (stream, marks)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        let came = buffer.filled().len().saturating_sub(before);
        if came > 0 {
            self.marks.first_byte.get_or_init(Instant::now);
            self.marks
                .received
                .fetch_add(came as u64, Ordering::Relaxed);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
