//! The thread that measures: one task a target, few of them at work at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, Id, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{debug, error, info, warn};

use super::{
    ProbeSockets, SharedBook,
    schedule::{Pace, chance},
};
use crate::{
    agent::{LINGER, LOOK_INTERVAL},
    config::{PathProbes, ProbeTarget},
    path::{Environment, ErrorType, KernelStory as _, Measurement, Roots},
};

/// How long after a measurement the kernel's events of it are waited for: they are taken out of the
/// ring at each look.
const SLACK: Duration = LOOK_INTERVAL.saturating_mul(2);
/// And how long where a name server did not answer: lookups are given up at a look of their own, twice
/// a second.
const SLACK_UNANSWERED: Duration = Duration::from_millis(700);
/// What a measurement may take beyond its own limit.
pub(in crate::agent) const SLACK_OF_A_MEASUREMENT: Duration = Duration::from_millis(1500);
/// How often root certificates are read again, and targets that are no more are looked for.
const UPKEEP: Duration = Duration::from_secs(600);
const FORGETTING: Duration = Duration::from_secs(10);

/// What all tasks share.
struct Shared {
    environment: Mutex<Arc<Environment>>,
    book: SharedBook,
    sockets: Arc<ProbeSockets>,
}

impl Shared {
    fn environment(&self) -> Arc<Environment> {
        let environment = self.environment.lock();
        Arc::clone(&environment.unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who may measure at once. Targets whose last measurement failed have a quarter of the slots and
/// no more, and so have those of which nothing is known yet: those that wait for the dead must not
/// keep the living waiting.
struct Slots {
    sound: Arc<Semaphore>,
    new: Arc<Semaphore>,
    suspect: Arc<Semaphore>,
}

impl Slots {
    fn new(most: usize) -> Self {
        let of = |permits| Arc::new(Semaphore::new(permits));
        let quarter = most / 4;
        if quarter == 0 {
            // Too few to be shared out.
            let all = of(most.max(1));
            return Self {
                sound: Arc::clone(&all),
                new: Arc::clone(&all),
                suspect: all,
            };
        }
        Self {
            sound: of(most - 2 * quarter),
            new: of(quarter),
            suspect: of(quarter),
        }
    }

    /// Those for a target of which this is known.
    fn of(&self, measured: bool, suspect: bool) -> &Semaphore {
        match (measured, suspect) {
            (_, true) => &self.suspect,
            (true, false) => &self.sound,
            (false, false) => &self.new,
        }
    }
}

/// All targets that are measured.
pub(super) struct Runner {
    shared: Arc<Shared>,
    slots: Arc<Slots>,
    max_concurrent: usize,
    tasks: JoinSet<()>,
    running: HashMap<String, (ProbeTarget, AbortHandle)>,
}

impl Runner {
    pub(super) fn new(book: SharedBook, sockets: Arc<ProbeSockets>) -> Self {
        let environment = Mutex::new(Arc::new(Environment::of_this_machine()));
        Self {
            shared: Arc::new(Shared {
                environment,
                book,
                sockets,
            }),
            slots: Arc::new(Slots::new(1)),
            max_concurrent: 0,
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    /// Measures what is wanted until nobody wants anything any more.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<PathProbes>) {
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        upkeep.tick().await; // The first is now, and everything is new.
        let mut forgetting = interval(FORGETTING);
        forgetting.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first = wanted.borrow_and_update().clone();
        self.apply(first);
        loop {
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => {
                        let wanted = wanted.borrow_and_update().clone();
                        self.refresh();
                        self.apply(wanted);
                    }
                    Err(_) => break,
                },
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    if let Err(ended) = ended && ended.is_panic() {
                        error!(error = %ended, "measuring a target ended in a panic");
                        self.replace(ended.id());
                    }
                }
                _ = upkeep.tick() => self.refresh(),
                _ = forgetting.tick() => {
                    self.shared.book.lock().forget(LINGER, Instant::now());
                }
            }
        }
        self.tasks.shutdown().await;
    }

    /// Reads the root certificates again.
    fn refresh(&self) {
        let old = self.shared.environment();
        let new = Environment {
            files: old.files.clone(),
            roots: Roots::load(),
        };
        let environment = self.shared.environment.lock();
        *environment.unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    fn apply(&mut self, wanted: PathProbes) {
        let names = wanted.targets.iter();
        let names = names.map(|it| (it.plan.name.as_str(), it.slow));
        self.shared.book.lock().set(names, Instant::now());
        if self.max_concurrent != wanted.max_concurrent {
            self.max_concurrent = wanted.max_concurrent;
            self.slots = Arc::new(Slots::new(wanted.max_concurrent));
            for (_, (_, task)) in self.running.drain() {
                task.abort(); // It begins anew, with the new slots.
            }
        }
        self.running.retain(|_, (running, task)| {
            let stays = wanted.targets.contains(running);
            if !stays {
                task.abort();
            }
            stays
        });
        for target in wanted.targets {
            if !self.running.contains_key(&target.plan.name) {
                self.begin(target);
            }
        }
    }

    fn begin(&mut self, target: ProbeTarget) {
        let name = target.plan.name.clone();
        let following = follow(
            target.clone(),
            Arc::clone(&self.shared),
            Arc::clone(&self.slots),
        );
        let task = self.tasks.spawn(following);
        self.running.insert(name, (target, task));
    }

    /// Begins a target anew whose task is gone.
    fn replace(&mut self, gone: Id) {
        let mut running = self.running.iter();
        let found = running.find_map(|(name, (_, task))| (task.id() == gone).then(|| name.clone()));
        if let Some((target, _)) = found.and_then(|name| self.running.remove(&name)) {
            self.begin(target);
        }
    }
}

/// Measures one target for ever.
async fn follow(target: ProbeTarget, shared: Arc<Shared>, slots: Arc<Slots>) {
    let mut pace = Pace::new(target.interval, target.jitter);
    let mut known = None;
    let mut last: Option<Instant> = None;
    sleep(pace.first(chance())).await;
    loop {
        let slots = slots.of(last.is_some(), pace.is_suspect());
        let Ok(slot) = slots.acquire().await else {
            return; // Never closed; there would be nothing to do without.
        };
        let begin = Instant::now();
        let skipped = last.map_or(0, |last| pace.skipped(begin.duration_since(last)));
        last = Some(begin);
        let measured = {
            let book = shared.book.lock();
            book.get(&target.plan.name).map_or(0, |it| it.measurements)
        };
        let environment = shared.environment();
        let sequence = measured.saturating_add(1);
        let mut measurement = environment
            .measure(&target.plan, sequence, &*shared.sockets)
            .await;
        drop((slot, environment));
        // The events of the last packets are on their way.
        let ends = measurement.ends();
        let slack = if measurement.has_unanswered_question() {
            SLACK_UNANSWERED
        } else {
            SLACK
        };
        sleep(slack).await;
        shared.sockets.ask(&ends);
        sleep(SLACK).await;
        let facts = shared.sockets.of(&ends, measurement.window(slack));
        measurement.join(facts);
        pace.note(measurement.success);
        let cause = measurement.failure.as_ref().map(|it| it.error_type);
        say(&measurement, known, cause);
        known = Some(cause);
        {
            let mut book = shared.book.lock();
            book.record(measurement, skipped, pace.is_open(), Instant::now());
        }
        sleep(pace.wait(chance()).saturating_sub(begin.elapsed())).await;
    }
}

/// Logs what has changed; what stays as it was is for the metrics to show.
fn say(measurement: &Measurement, known: Option<Option<ErrorType>>, cause: Option<ErrorType>) {
    let Measurement {
        target,
        story,
        failure,
        ..
    } = measurement;
    let story = story.join("; ");
    match failure {
        Some(failure) if known != Some(cause) => warn!(
            target_name = target,
            phase = failure.phase.name(),
            error_type = failure.error_type.name(),
            story,
            "a path probe fails"
        ),
        None if known.flatten().is_some() => {
            info!(target_name = target, story, "a path probe is fine again");
        }
        _ => debug!(target_name = target, story, "measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_slots_than_allowed() {
        for most in 1..=256 {
            let slots = Slots::new(most);
            let all = [
                slots.of(true, false),
                slots.of(false, false),
                slots.of(true, true),
            ];
            let free = all.map(Semaphore::available_permits);
            assert!(free.iter().all(|free| *free > 0));
            let shared = std::ptr::eq(all[0], all[1]);
            let sum = if shared { free[0] } else { free.iter().sum() };
            assert_eq!(sum, most);
        }
    }
}
