//! Basic authentication that cannot be used to burn the host's CPU.
//!
//! A bcrypt hash is made to be slow. So: one is computed at a time, on a thread of its own; after
//! each, four times as long nothing is computed, which leaves a flood of guesses a fifth of one CPU;
//! and results are kept, as keyed hashes of what was tried, so that a client that comes again costs
//! nothing and the memory of the agent holds no password.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, header};
use ring::{digest, hmac, rand::SystemRandom};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::settings::Hash;

/// Requests that wait for a hash to be computed; more are turned away at once.
const WAITING: usize = 8;
/// Refused guesses that are remembered.
const REFUSED: usize = 128;
/// Rest after a computation, in multiples of its time.
const REST: u32 = 4;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The user and the password are right.
    Granted,
    /// They are not, or none were given.
    Denied,
    /// Too many are waiting for an answer.
    Busy,
}

/// Users of one configuration.
#[derive(Debug)]
pub(super) struct Users {
    hashes: BTreeMap<String, Hash>,
    /// Checked in place of an unknown user's, so that he takes as long as a known one.
    stand_in: Hash,
}

impl Users {
    /// `None` when there are none: everybody is let in.
    pub(super) fn new(hashes: BTreeMap<String, Hash>) -> Option<Self> {
        let costliest = hashes.values().map(|hash| hash.cost).max()?;
        // A salt and a made-up digest; nobody knows a password that fits.
        let digest = "x".repeat(30);
        let text = format!("$2b${costliest:02}$netobs.netobs.netobs..{digest}.");
        Some(Self {
            hashes,
            stand_in: Hash {
                text,
                cost: costliest,
            },
        })
    }
}

/// Checks passwords, and remembers what it found. One for the life of the server.
pub(super) struct Checker {
    /// Made at start, and nowhere else.
    key: hmac::Key,
    remembered: Mutex<Remembered>,
    waiting: Arc<Semaphore>,
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

#[derive(Default)]
struct Remembered {
    /// By user: the one that was right.
    granted: HashMap<String, hmac::Tag>,
    /// The last that were wrong, oldest first.
    refused: VecDeque<[u8; digest::SHA256_OUTPUT_LEN]>,
}

/// When the next hash may be computed.
struct Turn {
    not_before: Instant,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checker")
    }
}

impl Checker {
    /// `None` when the system has no random numbers.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?,
            remembered: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            turn: Arc::new(tokio::sync::Mutex::new(Turn {
                not_before: Instant::now(),
            })),
        })
    }

    /// Forgets users that a new configuration no longer has, or whose password it changed.
    pub(super) fn forget(&self) {
        self.remembered().granted.clear();
    }

    /// Whether the request may be answered.
    pub(super) async fn check(&self, users: &Users, headers: &HeaderMap) -> Verdict {
        let Some((user, password)) = credentials(headers) else {
            return Verdict::Denied;
        };
        let (hash, known) = match users.hashes.get(&user) {
            Some(hash) => (hash, true),
            None => (&users.stand_in, false),
        };
        let tried = tried(&user, &hash.text, &password);
        if let Some(verdict) = self.recall(&user, &tried) {
            return verdict;
        }
        let Ok(_place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return Verdict::Busy;
        };
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
        // Whoever had the turn before may have tried the same.
        if let Some(verdict) = self.recall(&user, &tried) {
            return verdict;
        }
        sleep_until(turn.not_before).await;
        let hash = hash.text.clone();
        // The turn goes along: when the client leaves, the computation still counts.
        let computed = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let fits = bcrypt::verify(&password, &hash).unwrap_or(false);
            let now = Instant::now();
            turn.not_before = now + now.saturating_duration_since(begun).saturating_mul(REST);
            fits
        });
        let fits = computed.await.unwrap_or(false);
        if fits && known {
            self.remembered()
                .granted
                .insert(user, hmac::sign(&self.key, &tried));
            return Verdict::Granted;
        }
        self.note_refused(&tried);
        Verdict::Denied
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn recall(&self, user: &str, tried: &[u8]) -> Option<Verdict> {
        let remembered = self.remembered();
        let right = remembered.granted.get(user);
        // `verify` takes the same time wherever the two differ.
        if right.is_some_and(|right| hmac::verify(&self.key, tried, right.as_ref()).is_ok()) {
            return Some(Verdict::Granted);
        }
        // Which bytes these have depends on a key that nobody outside knows.
        let tag = hmac::sign(&self.key, tried);
        remembered
            .refused
            .iter()
            .any(|refused| refused.as_slice() == tag.as_ref())
            .then_some(Verdict::Denied)
    }

    fn note_refused(&self, tried: &[u8]) {
        let tag = hmac::sign(&self.key, tried);
        let Ok(tag) = tag.as_ref().try_into() else {
            return;
        };
        let mut remembered = self.remembered();
        if remembered.refused.len() >= REFUSED {
            remembered.refused.pop_front();
        }
        remembered.refused.push_back(tag);
    }
}

/// All that the outcome depends on, each part with its length before it.
fn tried(user: &str, hash: &str, password: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(user.len() + hash.len() + password.len() + 24);
    for part in [user.as_bytes(), hash.as_bytes(), password] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

/// User and password of `Authorization: Basic`.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(colon);
    let user = std::str::from_utf8(user).ok()?.to_owned();
    Some((user, password.get(1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn users() -> Users {
        let text = bcrypt::hash("right", 4).unwrap();
        Users::new(BTreeMap::from([("ann".to_owned(), Hash { text, cost: 4 })])).unwrap()
    }

    fn request(credentials: &str) -> HeaderMap {
        let value = format!("Basic {}", STANDARD.encode(credentials));
        HeaderMap::from_iter([(
            header::AUTHORIZATION,
            HeaderValue::from_str(&value).unwrap(),
        )])
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn only_the_right_password_of_a_known_user_passes() {
        let checker = Checker::new().unwrap();
        let users = users();
        let check = |credentials: &str| block_on(checker.check(&users, &request(credentials)));
        for _ in 0..2 {
            assert_eq!(check("ann:right"), Verdict::Granted);
            assert_eq!(check("ann:wrong"), Verdict::Denied);
            assert_eq!(check("bob:right"), Verdict::Denied);
            assert_eq!(check("ann"), Verdict::Denied);
            assert_eq!(check(":"), Verdict::Denied);
        }
        assert_eq!(
            block_on(checker.check(&users, &HeaderMap::new())),
            Verdict::Denied
        );
    }

    #[test]
    fn results_are_kept_without_the_password_and_within_bounds() {
        let checker = Checker::new().unwrap();
        let users = users();
        assert_eq!(
            block_on(checker.check(&users, &request("ann:right"))),
            Verdict::Granted
        );
        for n in 0..2 * REFUSED {
            checker.note_refused(&tried("ann", "h", n.to_string().as_bytes()));
        }
        let remembered = checker.remembered();
        assert_eq!(remembered.refused.len(), REFUSED);
        assert_eq!(remembered.granted.len(), 1);
        assert!(
            !remembered.granted["ann"]
                .as_ref()
                .windows(5)
                .any(|bytes| bytes == b"right")
        );
    }

    #[test]
    fn parts_cannot_be_moved_into_each_other() {
        assert_ne!(tried("a", "bc", b"d"), tried("ab", "c", b"d"));
        assert_ne!(tried("a", "b", b"cd"), tried("a", "bc", b"d"));
    }

    /// A stand-in that bcrypt refuses would be answered at once and give unknown users away.
    #[test]
    fn the_stand_in_is_computed_in_full() {
        let users = users();
        assert_eq!(bcrypt::verify("x", &users.stand_in.text).ok(), Some(false));
        assert_eq!(users.stand_in.cost, 4);
    }
}
