//! Against an API server in this process, at the speed of a paused clock.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::*;
use crate::names::table::LINGER;
use crate::sys::cgroup::{ContainerId, PodUid, Workload};

/// The API server's side.
#[derive(Default)]
struct Api {
    down: bool,
    /// Answers nothing at all.
    deaf: bool,
    /// Answers this instead.
    status: Option<u16>,
    list: Option<Vec<u8>>,
    version: u64,
    /// Watches from before this have expired.
    oldest: u64,
    pods: BTreeMap<u32, Value>,
    history: Vec<(u64, String)>,
    watches: Vec<UnboundedSender<Bytes>>,
    connections: JoinSet<()>,
    attempts: usize,
    requests: Vec<String>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Api>>);

/// The body of an answer, piece by piece.
struct Feed(UnboundedReceiver<Bytes>);

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

impl Connect for Fake {
    type Io = DuplexStream;

    async fn connect(&self) -> Result<DuplexStream, Error> {
        let mut api = self.api();
        api.attempts += 1;
        if api.down {
            return Err(Error::Connect {
                to: "the fake".to_owned(),
                source: io::ErrorKind::ConnectionRefused.into(),
            });
        }
        let (ours, theirs) = duplex(1 << 16);
        let fake = self.clone();
        api.connections.spawn(async move {
            let answer = service_fn(move |request| fake.clone().answer(request));
            let server = http1::Builder::new().serve_connection(TokioIo::new(theirs), answer);
            let _ = server.await;
        });
        Ok(ours)
    }
}

impl Server for Fake {
    fn host(&self) -> String {
        "fake:443".to_owned()
    }

    fn token(&self) -> Result<String, Error> {
        Ok("secret".to_owned())
    }

    fn node(&self) -> &str {
        "worker-1"
    }
}

impl Fake {
    fn api(&self) -> MutexGuard<'_, Api> {
        self.0.lock().unwrap()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Feed>, Infallible> {
        let path = request.uri().to_string();
        assert_eq!(request.headers()["authorization"], "Bearer secret");
        assert!(path.starts_with("/api/v1/pods?"));
        assert!(path.contains("fieldSelector=spec.nodeName%3Dworker-1"));
        if self.api().deaf {
            std::future::pending::<()>().await;
        }
        let mut api = self.api();
        api.requests.push(path.clone());
        let (send, receive) = unbounded_channel();
        let say = |text: String| send.send(Bytes::from(text)).unwrap();
        if let Some(status) = api.status {
            let answer = Response::builder().status(status).body(Feed(receive));
            return Ok(answer.unwrap());
        }
        if path.contains("watch=1") {
            let from = path.split_once("resourceVersion=").unwrap().1;
            let from: u64 = from.split('&').next().unwrap().parse().unwrap();
            if from < api.oldest {
                say(format!(
                    "{}\n",
                    json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}})
                ));
            } else {
                for (version, line) in &api.history {
                    if *version > from {
                        say(line.clone());
                    }
                }
                api.watches.push(send);
            }
        } else if let Some(list) = &api.list {
            send.send(list.clone().into()).unwrap();
        } else {
            let items: Vec<_> = api.pods.values().collect();
            let version = api.version.to_string();
            say(json!({"metadata": {"resourceVersion": version}, "items": items}).to_string());
        }
        Ok(Response::new(Feed(receive)))
    }

    fn put(&self, number: u32, containers: u32) {
        let mut api = self.api();
        api.version += 1;
        let version = api.version.to_string();
        let statuses: Vec<_> = (1..=containers)
            .map(|at| {
                let id = format!("containerd://{}", container(number, at));
                json!({"name": format!("c{at}"), "containerID": id})
            })
            .collect();
        let pod = json!({
            "metadata": {"name": format!("web-{number}"), "namespace": "shop",
                "uid": uid(number), "resourceVersion": version},
            "status": {"containerStatuses": statuses},
        });
        let kind = match api.pods.insert(number, pod.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        api.tell(kind, &pod);
    }

    fn delete(&self, number: u32) {
        let mut api = self.api();
        api.version += 1;
        let version = api.version.to_string();
        let mut pod = api.pods.remove(&number).unwrap();
        pod["metadata"]["resourceVersion"] = version.into();
        api.tell("DELETED", &pod);
    }

    /// Says something to all who watch that is not remembered.
    fn say(&self, text: impl Into<Bytes>) {
        let text = text.into();
        self.api()
            .watches
            .retain(|watch| watch.send(text.clone()).is_ok());
    }

    /// Ends all watches as a server does whose time is over.
    fn end_watches(&self) {
        self.api().watches.clear();
    }

    /// Cuts all connections.
    fn cut(&self) {
        let mut api = self.api();
        api.connections = JoinSet::new();
        api.watches.clear();
    }

    fn lists(&self) -> usize {
        let api = self.api();
        let lists = api.requests.iter().filter(|path| !path.contains("watch=1"));
        lists.count()
    }

    fn watches(&self) -> usize {
        let mut api = self.api();
        api.watches.retain(|watch| !watch.is_closed());
        api.watches.len()
    }
}

impl Api {
    fn tell(&mut self, kind: &str, pod: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": pod}));
        self.history.push((self.version, line.clone()));
        self.watches
            .retain(|watch| watch.send(line.clone().into()).is_ok());
    }
}

fn container(number: u32, at: u32) -> String {
    format!("{number:06x}{at:06x}{:052x}", 0)
}

fn uid(number: u32) -> String {
    format!("{number:08x}-0000-0000-0000-000000000000")
}

/// What is asked of the books' side.
fn name(source: &Source, number: u32, at: u32) -> Option<String> {
    let workload = Workload::new(
        ContainerId::from_hex(&container(number, at)),
        PodUid::parse(&uid(number)),
    );
    let name = source.lookup(workload, Instant::now())?;
    Some(format!(
        "{}/{}/{}",
        name.namespace, name.pod, name.container
    ))
}

/// Waits, in the clock's own time, until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(200);
    while !so() {
        assert!(Instant::now() < patience, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A server with two pods, followed and listed.
async fn followed() -> (Fake, Arc<Source>, JoinSet<()>) {
    let fake = Fake::default();
    fake.put(1, 2);
    fake.put(2, 1);
    let (source, following) = follow_it(&fake);
    until("listed and watched", || fake.watches() == 1).await;
    (fake, source, following)
}

fn follow_it(fake: &Fake) -> (Arc<Source>, JoinSet<()>) {
    let source = Arc::new(Source::new("kubernetes"));
    let mut following = JoinSet::new();
    let (server, into) = (fake.clone(), Arc::clone(&source));
    following.spawn(async move { follow_server(&server, &into).await });
    (source, following)
}

#[tokio::test(start_paused = true)]
async fn pods_are_listed_and_then_watched() {
    let (fake, source, _following) = followed().await;
    assert_eq!(name(&source, 1, 1).unwrap(), "shop/web-1/c1");
    assert_eq!(name(&source, 1, 2).unwrap(), "shop/web-1/c2");
    assert_eq!(name(&source, 2, 7).unwrap(), "shop/web-2/");
    assert!(source.status().up);

    fake.put(3, 0);
    until("a new pod", || name(&source, 3, 1).is_some()).await;
    assert_eq!(name(&source, 3, 1).unwrap(), "shop/web-3/");
    fake.put(3, 1);
    until("its container", || {
        name(&source, 3, 1).is_some_and(|name| name.ends_with("/c1"))
    })
    .await;

    fake.delete(3);
    fake.put(4, 1);
    until("what came after", || name(&source, 4, 1).is_some()).await;
    let deleted = Instant::now();
    assert!(name(&source, 3, 1).is_some());
    sleep(LINGER).await;
    assert_eq!(name(&source, 3, 1), None);
    assert!(deleted.elapsed() < LINGER + Duration::from_secs(1));
    assert!(name(&source, 4, 1).is_some());
    assert_eq!(fake.lists(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_where_the_last_one_ended() {
    let (fake, source, _following) = followed().await;
    fake.end_watches();
    fake.put(3, 1);
    until("what was missed", || name(&source, 3, 1).is_some()).await;
    until("watched again", || fake.watches() == 1).await;
    fake.cut();
    fake.delete(1);
    fake.put(4, 1);
    until("what was missed", || name(&source, 4, 1).is_some()).await;
    sleep(LINGER).await;
    assert_eq!(name(&source, 1, 1), None);
    assert_eq!(fake.lists(), 1);
    // A bookmark moves it along, too: without it, this would have expired.
    until("watched again", || fake.watches() == 1).await;
    let bookmark = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "900"}}});
    fake.say(format!("{bookmark}\n"));
    sleep(Duration::from_secs(1)).await;
    {
        let mut api = fake.api();
        (api.oldest, api.version) = (900, 900);
    }
    fake.end_watches();
    until("watched again", || fake.watches() == 1).await;
    assert_eq!(fake.lists(), 1);
    assert!(
        fake.api()
            .requests
            .last()
            .unwrap()
            .contains("resourceVersion=900")
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_forgotten_means_a_new_list() {
    let (fake, source, _following) = followed().await;
    fake.put(3, 1);
    until("a new pod", || name(&source, 3, 1).is_some()).await;
    {
        let mut api = fake.api();
        api.version = 50;
        api.oldest = 50;
        api.pods.remove(&1);
    }
    fake.end_watches();
    until("listed again", || fake.lists() == 2).await;
    until("watched again", || fake.watches() == 1).await;
    // What the server had at hand was too old; this one asks for the newest.
    let last = fake
        .api()
        .requests
        .iter()
        .rfind(|path| !path.contains("watch=1"))
        .cloned();
    assert!(!last.unwrap().contains("resourceVersion"));
    sleep(LINGER).await;
    assert_eq!(name(&source, 1, 1), None);
    assert!(name(&source, 3, 1).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_the_server_is_an_hour_with_what_is_known() {
    let (fake, source, _following) = followed().await;
    fake.cut();
    fake.api().down = true;
    fake.api().attempts = 0;
    sleep(Duration::from_secs(3600)).await;
    let attempts = fake.api().attempts;
    assert!((60..150).contains(&attempts), "{attempts} in an hour");
    assert!(name(&source, 1, 1).is_some());
    let status = source.status();
    assert!(!status.up);
    assert_eq!(
        status.reason,
        "failed to connect to the fake: connection refused"
    );
    assert_eq!(usize::try_from(status.failures).unwrap(), attempts + 1);

    fake.delete(1);
    fake.put(3, 1);
    fake.api().down = false;
    until("back within a minute or so", || {
        name(&source, 3, 1).is_some()
    })
    .await;
    assert!(source.status().up);
    assert_eq!(source.status().reason, "");
    sleep(LINGER).await;
    assert_eq!(name(&source, 1, 1), None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_at_start_is_awaited() {
    let fake = Fake::default();
    fake.put(1, 1);
    fake.api().down = true;
    let (source, _following) = follow_it(&fake);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(name(&source, 1, 1), None);
    fake.api().down = false;
    until("listed", || name(&source, 1, 1).is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_said_and_tried_again() {
    let fake = Fake::default();
    fake.put(1, 1);
    fake.api().status = Some(403);
    let (source, _following) = follow_it(&fake);
    sleep(Duration::from_secs(100)).await;
    let status = source.status();
    assert_eq!(status.reason, "the API server answered with status 403");
    assert!(fake.lists() < 20, "{}", fake.lists());
    fake.api().status = None;
    until("listed", || name(&source, 1, 1).is_some()).await;
    // So is a watch that the server no longer takes up.
    fake.api().status = Some(410);
    fake.end_watches();
    sleep(Duration::from_secs(1)).await;
    fake.api().status = None;
    until("listed again", || fake.watches() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    let (fake, source, _following) = followed().await;
    fake.api().deaf = true;
    fake.cut();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(source.status().reason, "no answer in time");
    fake.api().deaf = false;
    until("watched again", || fake.watches() == 1).await;
    // The other side is gone, and nobody said so.
    let before = fake.api().attempts;
    sleep(WATCH_PATIENCE + Duration::from_secs(60)).await;
    assert!(fake.api().attempts > before);
    assert!(name(&source, 1, 1).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_is_not_asked_without_end() {
    let (fake, source, _following) = followed().await;
    let before = fake.api().attempts;
    for _ in 0..6000 {
        fake.end_watches();
        sleep(Duration::from_millis(10)).await;
    }
    let attempts = fake.api().attempts - before;
    assert!(attempts < 20, "{attempts} in a minute");
    assert!(name(&source, 1, 1).is_some());
}

#[tokio::test(start_paused = true)]
async fn hostile_answers_are_bounded() {
    let (fake, source, _following) = followed().await;
    let failed = |reason: &'static str| {
        let source = Arc::clone(&source);
        move || source.status().reason == reason
    };
    // A line without an end.
    fake.say(vec![b'x'; EVENT_BYTES + 2]);
    until("refused", failed("an answer is larger than 4194304 bytes")).await;
    until("listed anew", || fake.lists() == 2 && fake.watches() == 1).await;
    // A line that is nothing.
    fake.say("{]\n");
    until("listed anew", || fake.lists() == 3 && fake.watches() == 1).await;
    // A pod with an odd name is left out, and one with very many containers is taken.
    fake.say("{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\\nb\",\"namespace\":\"x\",\"uid\":\"1\"}}}\n");
    fake.put(5, 3000);
    until("a large pod", || name(&source, 5, 3000).is_some()).await;
    assert_eq!(source.status().refused, 1);
    // A list without an end; what was known stays.
    fake.api().list = Some(vec![b' '; LIST_BYTES + 1]);
    fake.say("{]\n");
    until("refused", failed("an answer is larger than 33554432 bytes")).await;
    fake.api().list = Some(b"[1, 2]".to_vec());
    until("refused", || {
        source
            .status()
            .reason
            .starts_with("failed to read an answer: ")
    })
    .await;
    assert!(name(&source, 1, 1).is_some());
    fake.api().list = None;
    until("listed anew", || fake.watches() == 1).await;
}
