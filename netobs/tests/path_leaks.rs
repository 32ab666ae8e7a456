//! A path probe leaves nothing behind: no descriptor, no task. In a process of its own, where
//! nobody else opens any.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::{
    fs,
    future::Future,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use netobs::path::{Environment, NoKernel, Plan, Target};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// 500 targets at once, of which some answer, some are silent and some are not there; then half of
/// the measurements are dropped half-way.
#[test]
fn five_hundred_measurements_leave_nothing() {
    // A port that was free a moment ago: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let quiet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // Nobody accepts: connections stand, and stay silent.
    let listener = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )
    .unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(1024).unwrap();
    let waiting = listener.local_addr().unwrap().as_socket().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let environment = Environment::of_this_machine();
    let before = descriptors();
    let tasks = runtime.metrics().num_alive_tasks();
    let plan = |index: usize| {
        let target = match index % 4 {
            0 => format!("http://{waiting}/"),
            1 => format!("https://{waiting}/"),
            2 => closed.to_string(),
            _ => "dns:a.example".to_owned(),
        };
        let mut plan = Plan::new(target.parse::<Target>().unwrap());
        plan.timeouts.total = Duration::from_millis(500);
        plan.dns.servers = vec![quiet.local_addr().unwrap()];
        plan
    };
    let plans: Vec<Plan> = (0..500).map(plan).collect();
    runtime.block_on(async {
        let all = plans
            .iter()
            .map(|plan| environment.measure(plan, 1, &NoKernel));
        let mut all: Vec<_> = all.map(Box::pin).collect();
        let mut results = Vec::new();
        // Polled in one task, so that a task more would be somebody else's.
        std::future::poll_fn(|cx| {
            all.retain_mut(|one| match one.as_mut().poll(cx) {
                std::task::Poll::Ready(result) => {
                    results.push(result);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if all.is_empty() {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        assert_eq!(results.len(), 500);
        for result in &results {
            let failure = result.failure.as_ref().unwrap();
            assert!(!failure.message.is_empty());
            // A measurement ends when it has to, whatever the other side does.
            assert!(result.phases.total < Duration::from_secs(3), "{result:?}");
        }
        assert_eq!(runtime.metrics().num_alive_tasks(), tasks);
    });
    assert_eq!(descriptors(), before);
    runtime.block_on(async {
        for plan in plans.iter().take(100) {
            let cut = Duration::from_millis(5);
            let measured = tokio::time::timeout(cut, environment.measure(plan, 1, &NoKernel));
            let _ = measured.await;
        }
    });
    assert_eq!(descriptors(), before);
    assert_eq!(runtime.metrics().num_alive_tasks(), tasks);
}
