//! Requests to the API server: HTTP/1.1, one connection each.
//!
//! A watch takes minutes and a list is rare, so connections are not kept: what a request takes, the
//! token and the authorities included, is read when it is made.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::Server;
use crate::names::Error;

/// How long it may take until an answer begins.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// An answer that is coming in.
pub(super) struct Answer {
    body: Incoming,
    deadline: Instant,
    /// The connection, which ends with this.
    _connection: JoinSet<()>,
}

/// Asks for `path`. All of the answer has to come within `most`.
pub(super) async fn get(server: &impl Server, path: &str, most: Duration) -> Result<Answer, Error> {
    let deadline = Instant::now() + most;
    let begin = async {
        let request = Request::get(path)
            .header(header::HOST, server.host())
            .header(header::ACCEPT, "application/json")
            .header(
                header::USER_AGENT,
                concat!("netobs/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::AUTHORIZATION, format!("Bearer {}", server.token()?))
            .body(Empty::<Bytes>::new())
            .map_err(|_| Error::Setting {
                what: "the token",
                value: "(not shown)".to_owned(),
            })?;
        let io = TokioIo::new(server.connect().await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // How it ended is told to those who read the answer.
            let _ = connection.await;
        });
        let answer = sender.send_request(request).await?;
        Ok((answer, task))
    };
    let (answer, connection) = timeout(PATIENCE, begin)
        .await
        .unwrap_or(Err(Error::TimedOut))?;
    match answer.status() {
        StatusCode::OK => Ok(Answer {
            body: answer.into_body(),
            deadline,
            _connection: connection,
        }),
        StatusCode::GONE => Err(Error::Expired),
        status => Err(Error::Status {
            status: status.as_u16(),
        }),
    }
}

impl Answer {
    /// The next piece; nothing at the end.
    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout_at(self.deadline, self.body.frame())
                .await
                .map_err(|_| Error::TimedOut)?;
            let Some(frame) = frame.transpose()? else {
                return Ok(None);
            };
            // Trailers are of no interest.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// All of it, if it is no more than `limit` bytes.
    pub(super) async fn whole(mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if whole.len() + piece.len() > limit {
                return Err(Error::TooLarge { limit });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Its lines, each of at most `limit` bytes.
    pub(super) fn lines(self, limit: usize) -> Lines {
        Lines {
            answer: self,
            buffer: BytesMut::new(),
            searched: 0,
            limit,
        }
    }
}

/// An answer line by line.
pub(super) struct Lines {
    answer: Answer,
    buffer: BytesMut,
    /// So much of the buffer has no end of a line.
    searched: usize,
    limit: usize,
}

impl Lines {
    /// The next line, without its end; nothing at the end. A last line that was cut off is none.
    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>, Error> {
        loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.limit {
                return Err(Error::TooLarge { limit: self.limit });
            }
            let Some(piece) = self.answer.piece().await? else {
                return Ok(None);
            };
            self.buffer.extend_from_slice(&piece);
        }
    }
}
