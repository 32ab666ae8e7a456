//! Against a container runtime in this process, at the speed of a paused clock. The real one is in
//! `netobs/tests/containers`.

use std::convert::Infallible;
use std::io;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinSet;

use super::proto::{
    Container, ContainerMetadata, ListContainersResponse, ListPodSandboxResponse, PodSandbox,
    PodSandboxMetadata,
};
use super::*;
use crate::names::table::LINGER;
use crate::sys::cgroup::Workload;

#[derive(Default)]
struct Runtime {
    down: bool,
    deaf: bool,
    /// A status of gRPC instead of an answer.
    refuses: Option<&'static str>,
    /// Bytes instead of a message.
    garbage: Option<Vec<u8>>,
    sandboxes: Vec<PodSandbox>,
    containers: Vec<Container>,
    asked: usize,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Runtime>>);

impl Connect for Fake {
    type Io = DuplexStream;

    async fn connect(&self) -> Result<DuplexStream, Error> {
        let mut runtime = self.runtime();
        runtime.asked += 1;
        if runtime.down {
            return Err(Error::Connect {
                to: "the fake".to_owned(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        let (ours, theirs) = duplex(1 << 16);
        let fake = self.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| fake.clone().answer(request));
            let server = http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(theirs), answer).await;
        });
        Ok(ours)
    }
}

type Answer = http_body_util::combinators::BoxBody<Bytes, Infallible>;

impl Fake {
    fn runtime(&self) -> MutexGuard<'_, Runtime> {
        self.0.lock().unwrap()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        if self.runtime().deaf {
            std::future::pending::<()>().await;
        }
        let runtime = self.runtime();
        let message = match (&runtime.garbage, request.uri().path()) {
            (Some(garbage), _) => garbage.clone(),
            (_, "/runtime.v1.RuntimeService/ListPodSandbox") => ListPodSandboxResponse {
                items: runtime.sandboxes.clone(),
            }
            .encode_to_vec(),
            (_, "/runtime.v1.RuntimeService/ListContainers") => ListContainersResponse {
                containers: runtime.containers.clone(),
            }
            .encode_to_vec(),
            (_, path) => panic!("{path}"),
        };
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend(message);
        if runtime.refuses.is_some() {
            frame.clear();
        }
        let mut end = HeaderMap::new();
        end.insert(
            "grpc-status",
            runtime.refuses.unwrap_or("0").parse().unwrap(),
        );
        let body = Full::new(Bytes::from(frame)).with_trailers(async move { Some(Ok(end)) });
        let answer = Response::builder().header("content-type", "application/grpc");
        Ok(answer.body(body.boxed()).unwrap())
    }

    fn put(&self, number: u32) {
        let mut runtime = self.runtime();
        runtime.sandboxes.push(PodSandbox {
            id: id(10 * number),
            metadata: Some(PodSandboxMetadata {
                name: format!("web-{number}"),
                uid: uid(number),
                namespace: "shop".to_owned(),
            }),
        });
        runtime.containers.push(Container {
            id: id(10 * number + 1),
            pod_sandbox_id: id(10 * number),
            metadata: Some(ContainerMetadata {
                name: "nginx".to_owned(),
            }),
        });
    }
}

fn id(number: u32) -> String {
    format!("{number:012x}{:052x}", 0)
}

fn uid(number: u32) -> String {
    format!("{number:08x}-0000-0000-0000-000000000000")
}

fn workload(number: u32) -> Workload {
    Workload::new(
        ContainerId::from_hex(&id(10 * number + 1)),
        PodUid::parse(&uid(number)),
    )
}

fn name(source: &Source, workload: Workload) -> Option<String> {
    let name = source.lookup(workload, Instant::now())?;
    Some(format!(
        "{}/{}/{}",
        name.namespace, name.pod, name.container
    ))
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(200);
    while !so() {
        assert!(Instant::now() < patience, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn follow_it(fake: &Fake) -> (Arc<Source>, JoinSet<()>) {
    let source = Arc::new(Source::new("cri"));
    let mut following = JoinSet::new();
    following.spawn(follow(fake.clone(), Arc::clone(&source)));
    (source, following)
}

#[tokio::test(start_paused = true)]
async fn the_runtime_is_asked_again_and_again() {
    let fake = Fake::default();
    fake.put(1);
    let (source, _following) = follow_it(&fake);
    until("named", || name(&source, workload(1)).is_some()).await;
    assert_eq!(name(&source, workload(1)).unwrap(), "shop/web-1/nginx");
    let sandbox = Workload::new(ContainerId::from_hex(&id(10)), None);
    assert_eq!(name(&source, sandbox).unwrap(), "shop/web-1/");

    fake.put(2);
    let begun = Instant::now();
    until("a new pod", || name(&source, workload(2)).is_some()).await;
    assert!(begun.elapsed() > Duration::from_secs(5));
    fake.runtime().sandboxes.clear();
    fake.runtime().containers.clear();
    sleep(INTERVAL + LINGER).await;
    assert_eq!(name(&source, workload(1)), None);
    assert_eq!(source.status().names, 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_name_is_asked_for_at_once_and_but_once() {
    let fake = Fake::default();
    let (source, _following) = follow_it(&fake);
    until("asked", || source.status().up).await;
    fake.put(1);
    let begun = Instant::now();
    source.miss(workload(1));
    until("named", || name(&source, workload(1)).is_some()).await;
    assert!(begun.elapsed() < SPACING * 2);
    // What it does not know, it is not asked for again.
    let before = fake.runtime().asked;
    for _ in 0..600 {
        source.miss(workload(7));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(fake.runtime().asked - before <= 8);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_away_for_an_hour_takes_no_name_away() {
    let fake = Fake::default();
    fake.put(1);
    let (source, _following) = follow_it(&fake);
    until("named", || name(&source, workload(1)).is_some()).await;
    fake.runtime().down = true;
    let before = fake.runtime().asked;
    sleep(Duration::from_secs(3600)).await;
    let asked = fake.runtime().asked - before;
    assert!((60..150).contains(&asked), "{asked} in an hour");
    assert!(name(&source, workload(1)).is_some());
    assert_eq!(
        source.status().reason,
        "failed to connect to the fake: entity not found"
    );
    fake.runtime().down = false;
    fake.put(2);
    until("back", || name(&source, workload(2)).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn odd_answers_are_failures() {
    let fake = Fake::default();
    fake.put(1);
    let (source, _following) = follow_it(&fake);
    until("named", || name(&source, workload(1)).is_some()).await;
    let reason = || source.status().reason;

    fake.runtime().refuses = Some("12");
    until("refused", || reason().contains("refused the call")).await;
    fake.runtime().refuses = None;
    fake.runtime().garbage = Some(vec![0xff; 100]);
    until("unreadable", || reason().to_lowercase().contains("proto")).await;
    fake.runtime().garbage = Some(vec![0; (16 << 20) + 1]);
    until("too large", || reason().contains("16777217")).await;
    fake.runtime().garbage = None;
    fake.runtime().deaf = true;
    until("deaf", || reason() == "no answer in time").await;
    assert!(name(&source, workload(1)).is_some());
    fake.runtime().deaf = false;
    until("back", || source.status().up).await;
}

#[test]
fn containers_without_a_sandbox_and_odd_ids_are_left_out() {
    let sandbox = |id: &str| PodSandbox {
        id: id.to_owned(),
        metadata: Some(PodSandboxMetadata {
            name: "web".to_owned(),
            uid: "of-a-tool".to_owned(),
            namespace: "shop".to_owned(),
        }),
    };
    let container = |id: String, sandbox: &str, named: bool| Container {
        id,
        pod_sandbox_id: sandbox.to_owned(),
        metadata: named.then(|| ContainerMetadata {
            name: "c".to_owned(),
        }),
    };
    let lists = Lists {
        sandboxes: ListPodSandboxResponse {
            items: vec![
                sandbox("odd"),
                PodSandbox {
                    id: id(1),
                    metadata: None,
                },
            ],
        },
        containers: ListContainersResponse {
            containers: vec![
                container(id(2), "odd", true),
                container("short".to_owned(), "odd", true),
                container(id(3), "odd", false),
                container(id(4), "nowhere", true),
            ],
        },
    };
    let found = pods(&lists);
    let [pod] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((pod.uid, pod.sandbox), (None, None));
    assert_eq!(
        pod.containers,
        [(ContainerId::from_hex(&id(2)).unwrap(), "c".to_owned())]
    );
}
