//! The calls that a kubelet makes to run pods: just enough of the container runtime's interface
//! (`runtime.v1`).

use std::{collections::HashMap, path::Path};

use hyper::client::conn::http2;
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use testbed::wait_until;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::{Request, client::Grpc};
use tonic_prost::ProstCodec;

use crate::PATIENCE;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
}

/// A pod as the runtime is told of it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

/// Every request and answer that is but an id.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    /// `ImageSpec`, whose first field is the name.
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(bool, tag = "2")]
    verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusResponse {
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// The runtime, seen by a kubelet.
pub(crate) struct Cri<'a> {
    socket: &'a Path,
    runtime: Runtime,
}

/// A sandbox and what it was asked to be.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    config: PodSandboxConfig,
}

impl<'a> Cri<'a> {
    pub(crate) fn new(socket: &'a Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            socket,
            runtime: runtime.unwrap(),
        }
    }

    /// Waits until the plugin takes calls: it starts later than the daemon answers.
    pub(crate) fn await_ready(&self) {
        wait_until(PATIENCE, "the CRI plugin is ready", || {
            let answer: Result<Nothing, _> = self.try_call("ListPodSandbox", Nothing {});
            Ok(answer.is_ok())
        })
        .unwrap();
    }

    fn call<Q, A>(&self, method: &str, question: Q) -> A
    where
        Q: Message + std::fmt::Debug + 'static,
        A: Message + Default + 'static,
    {
        let shown = format!("{method} {question:?}");
        self.try_call(method, question)
            .unwrap_or_else(|status| panic!("{shown}: {status}"))
    }

    fn try_call<Q, A>(&self, method: &str, question: Q) -> Result<A, tonic::Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let path = PathAndQuery::try_from(path).unwrap();
        self.runtime.block_on(async {
            let io = TokioIo::new(UnixStream::connect(self.socket).await.unwrap());
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let connection = tokio::spawn(connection);
            let origin = "http://localhost".parse().unwrap();
            let mut grpc = Grpc::with_origin(Sender(sender), origin);
            grpc.ready().await.unwrap();
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(Request::new(question), path, codec).await;
            connection.abort();
            answer.map(tonic::Response::into_inner)
        })
    }

    /// Runs the sandbox of a pod.
    pub(crate) fn run_pod(&self, metadata: Metadata, cgroup_parent: &str) -> Sandbox {
        let config = PodSandboxConfig {
            hostname: metadata.name.clone(),
            metadata: Some(metadata),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroup_parent.to_owned(),
            }),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let Id { id } = self.call("RunPodSandbox", request);
        Sandbox { id, config }
    }

    /// Starts a container in a pod; returns its id.
    pub(crate) fn run_container(
        &self,
        pod: &Sandbox,
        name: &str,
        attempt: u32,
        image: &str,
        command: &[&str],
    ) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: name.to_owned(),
                    attempt,
                }),
                image: Some(Id {
                    id: image.to_owned(),
                }),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
            }),
            sandbox_config: Some(pod.config.clone()),
        };
        let Id { id } = self.call("CreateContainer", request);
        let _: Nothing = self.call("StartContainer", Id { id: id.clone() });
        id
    }

    /// The first process of a container, in the numbers of the machine.
    pub(crate) fn process(&self, container: &str) -> u32 {
        let request = ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: true,
        };
        let status: ContainerStatusResponse = self.call("ContainerStatus", request);
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
        u32::try_from(info["pid"].as_u64().unwrap()).unwrap()
    }

    /// Ends a container at once, and removes it.
    pub(crate) fn remove_container(&self, id: &str) {
        let _: Nothing = self.call("StopContainer", Id { id: id.to_owned() });
        let _: Nothing = self.call("RemoveContainer", Id { id: id.to_owned() });
    }

    /// Ends a pod with all that is in it, and removes it.
    pub(crate) fn remove_pod(&self, pod: &Sandbox) {
        let id = || Id { id: pod.id.clone() };
        let _: Nothing = self.call("StopPodSandbox", id());
        let _: Nothing = self.call("RemovePodSandbox", id());
    }
}

/// hyper's connection as tonic takes it.
struct Sender(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<hyper::Request<tonic::body::Body>> for Sender {
    type Response = hyper::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
