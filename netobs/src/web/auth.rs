//! Basic authentication that cannot be used to burn the host's CPU.
//!
//! A bcrypt hash is made to be slow. So: one is computed at a time, on a thread of its own, and a
//! flood of guesses gets a fifth of one CPU (see [`Share`]); few may wait for it, and fewer from one
//! address, so that one who guesses does not shut out the others; and results are kept, as keyed
//! hashes of what was tried, so that a client that comes again costs nothing and the memory of the
//! agent holds no password.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, header};
use ring::{digest, hmac, rand::SystemRandom};

use super::{settings::Hash, share::Share};

/// Requests that wait for a hash to be computed; more are turned away at once.
const WAITING: usize = 8;
/// Those of them that may come from one address.
const WAITING_PER_CLIENT: usize = 2;
/// Refused guesses that are remembered.
const REFUSED: usize = 128;

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
    memory: Arc<Memory>,
    waiting: Waiting,
    share: Share,
}

/// What was found out.
struct Memory {
    /// Made at start, and nowhere else.
    key: hmac::Key,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// By user: the one that was right.
    granted: HashMap<String, hmac::Tag>,
    /// The last that were wrong, oldest first.
    refused: VecDeque<[u8; digest::SHA256_OUTPUT_LEN]>,
}

/// Who waits for a hash to be computed, by address.
#[derive(Default)]
struct Waiting(Mutex<HashMap<IpAddr, usize>>);

/// A place among those who wait.
struct Place<'a> {
    waiting: &'a Waiting,
    client: IpAddr,
}

impl Waiting {
    /// A place, if there is one for `client`.
    fn enter(&self, client: IpAddr) -> Option<Place<'_>> {
        let client = household(client);
        let mut waiting = self.places();
        let here = waiting.get(&client).copied().unwrap_or(0);
        if here >= WAITING_PER_CLIENT || waiting.values().sum::<usize>() >= WAITING {
            return None;
        }
        waiting.insert(client, here + 1);
        Some(Place {
            waiting: self,
            client,
        })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.places();
        let left = waiting.get(&self.client).map_or(0, |here| here - 1);
        if left == 0 {
            waiting.remove(&self.client);
        } else {
            waiting.insert(self.client, left);
        }
    }
}

/// What counts as one client: of IPv6, the network that one host is usually given whole.
fn household(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
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
            memory: Arc::new(Memory {
                key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?,
                remembered: Mutex::default(),
            }),
            waiting: Waiting::default(),
            share: Share::new(),
        })
    }

    /// Forgets users that a new configuration no longer has. One whose password it changed has to
    /// give the new one: what is remembered holds for the old hash only.
    pub(super) fn keep(&self, users: Option<&Users>) {
        let mut remembered = self.memory.remembered();
        remembered
            .granted
            .retain(|user, _| users.is_some_and(|users| users.hashes.contains_key(user)));
    }

    /// Whether the request of this client may be answered.
    pub(super) async fn check(
        &self,
        users: &Users,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Verdict {
        let Some((user, password)) = credentials(headers) else {
            return Verdict::Denied;
        };
        let (hash, known) = match users.hashes.get(&user) {
            Some(hash) => (hash, true),
            None => (&users.stand_in, false),
        };
        let tried = tried(&user, &hash.text, &password);
        if let Some(verdict) = self.memory.recall(&user, &tried) {
            return verdict;
        }
        let Some(_place) = self.waiting.enter(client) else {
            return Verdict::Busy;
        };
        let turn = self.share.turn().await;
        // Whoever had the turn before may have tried the same.
        if let Some(verdict) = self.memory.recall(&user, &tried) {
            return verdict;
        }
        let (hash, memory) = (hash.text.clone(), Arc::clone(&self.memory));
        // It goes on, and is remembered, when the client does not wait for it.
        let computed = turn.spend(move || {
            let granted = bcrypt::verify(&password, &hash).unwrap_or(false) && known;
            if granted {
                memory.note_granted(user, &tried);
            } else {
                memory.note_refused(&tried);
            }
            granted
        });
        match computed.await {
            Ok(true) => Verdict::Granted,
            Ok(false) | Err(_) => Verdict::Denied,
        }
    }
}

impl Memory {
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

    fn note_granted(&self, user: String, tried: &[u8]) {
        let tag = hmac::sign(&self.key, tried);
        self.remembered().granted.insert(user, tag);
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
    use crate::web::tests::block_on;

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

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn only_the_right_password_of_a_known_user_passes() {
        let checker = Checker::new().unwrap();
        let users = users();
        let check =
            |credentials: &str| block_on(checker.check(&users, &request(credentials), address(1)));
        for _ in 0..2 {
            assert_eq!(check("ann:right"), Verdict::Granted);
            assert_eq!(check("ann:wrong"), Verdict::Denied);
            assert_eq!(check("bob:right"), Verdict::Denied);
            assert_eq!(check("ann"), Verdict::Denied);
            assert_eq!(check(":"), Verdict::Denied);
        }
        assert_eq!(
            block_on(checker.check(&users, &HeaderMap::new(), address(1))),
            Verdict::Denied
        );
    }

    #[test]
    fn results_are_kept_without_the_password_and_within_bounds() {
        let checker = Checker::new().unwrap();
        let users = users();
        assert_eq!(
            block_on(checker.check(&users, &request("ann:right"), address(1))),
            Verdict::Granted
        );
        for n in 0..2 * REFUSED {
            let memory = &checker.memory;
            memory.note_refused(&tried("ann", "h", n.to_string().as_bytes()));
        }
        let remembered = checker.memory.remembered();
        assert_eq!(remembered.refused.len(), REFUSED);
        assert_eq!(remembered.granted.len(), 1);
        assert!(
            !remembered.granted["ann"]
                .as_ref()
                .windows(5)
                .any(|bytes| bytes == b"right")
        );
    }

    /// One address cannot take every place, nor can many together take more than there are.
    #[test]
    fn one_who_guesses_leaves_places_to_others() {
        let waiting = Waiting::default();
        let mut places: Vec<_> = (0..20).filter_map(|_| waiting.enter(address(1))).collect();
        assert_eq!(places.len(), WAITING_PER_CLIENT);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(
            waiting.enter(mapped).is_none(),
            "the same, written otherwise"
        );
        places.extend((2..20).filter_map(|last| waiting.enter(address(last))));
        assert_eq!(places.len(), WAITING);
        places.pop();
        assert!(waiting.enter(address(99)).is_some());
        places.clear();
        assert!(
            waiting.places().is_empty(),
            "nothing is kept of who is gone"
        );

        let of = |text: &str| waiting.enter(text.parse().unwrap());
        let _places = [of("2001:db8::1").unwrap(), of("2001:db8::2:0").unwrap()];
        assert!(of("2001:db8::3").is_none());
        assert!(of("2001:db8:0:1::1").is_some());
    }

    /// A certificate that changes in the middle of a flood must not make scrapers wait for a place.
    #[test]
    fn a_reload_asks_nobody_again_whose_password_stays() {
        let checker = Checker::new().unwrap();
        let users = users();
        let check =
            |users: &Users| block_on(checker.check(users, &request("ann:right"), address(1)));
        assert_eq!(check(&users), Verdict::Granted);
        let _flood: Vec<_> = (1..20)
            .map(|last| checker.waiting.enter(address(last)))
            .collect();
        checker.keep(Some(&users));
        assert_eq!(check(&users), Verdict::Granted);
        let text = bcrypt::hash("right", 4).unwrap();
        let changed = Users::new(BTreeMap::from([("ann".to_owned(), Hash { text, cost: 4 })]));
        let changed = changed.unwrap();
        checker.keep(Some(&changed));
        assert_eq!(check(&changed), Verdict::Busy, "it is computed anew");
        checker.keep(None);
        assert!(checker.memory.remembered().granted.is_empty());
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
