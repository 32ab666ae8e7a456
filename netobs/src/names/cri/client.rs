//! One visit to the container runtime: connect, ask, go.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::proto::{
    ListContainersRequest, ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse,
};
use crate::names::Error;

/// Largest answer: the kubelet's own limit is 16 MiB.
const ANSWER_BYTES: usize = 16 << 20;
/// As gRPC names what has no name, over a socket in the file system.
const ORIGIN: &str = "http://localhost";

/// Everything the runtime knows.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) sandboxes: ListPodSandboxResponse,
    pub(super) containers: ListContainersResponse,
}

/// Asks for all sandboxes and containers over `io`.
pub(super) async fn lists<I>(io: I) -> Result<Lists, Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    let mut runtime = Grpc::with_origin(Connection(sender), Uri::from_static(ORIGIN))
        .max_decoding_message_size(ANSWER_BYTES);
    let ask = async {
        Ok(Lists {
            sandboxes: unary(
                &mut runtime,
                "/runtime.v1.RuntimeService/ListPodSandbox",
                ListPodSandboxRequest {},
            )
            .await?,
            containers: unary(
                &mut runtime,
                "/runtime.v1.RuntimeService/ListContainers",
                ListContainersRequest {},
            )
            .await?,
        })
    };
    tokio::select! {
        lists = ask => lists,
        // It ends by itself only when the other side closes it.
        ended = connection => Err(ended.err().map_or(Error::Closed, Error::from)),
    }
}

async fn unary<Q, A>(
    runtime: &mut Grpc<Connection>,
    method: &'static str,
    question: Q,
) -> Result<A, Error>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    runtime.ready().await?;
    let path = hyper::http::uri::PathAndQuery::from_static(method);
    let codec = ProstCodec::<Q, A>::default();
    let answer = runtime
        .unary(tonic::Request::new(question), path, codec)
        .await
        .map_err(|status| Error::Refused(Box::new(status)))?;
    Ok(answer.into_inner())
}

/// hyper's connection as tonic takes it.
struct Connection(SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
