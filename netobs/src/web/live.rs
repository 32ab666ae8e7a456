//! The web configuration in force, which follows its file.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use tracing::{info, warn};

use super::{
    SettingsError,
    auth::{Checker, Users},
    rate::Bucket,
    settings::{self, Rate},
    tls,
};

/// How often, at most, the files are looked at for changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What one state of the files asks for.
#[derive(Debug)]
pub(super) struct Active {
    /// How to speak TLS; without it, plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Who may ask; without it, anybody.
    pub(super) users: Option<Users>,
    /// Header fields of every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// How often may be asked; without it, any number of times.
    pub(super) bucket: Option<Arc<Bucket>>,
    rate: Option<Rate>,
}

/// How a file was when it was read.
type Fingerprint = Option<(u64, u64, u64, i64, i64)>;

/// The files that were read, and how they were then.
struct Watched {
    files: Vec<(PathBuf, Fingerprint)>,
    looked: Instant,
}

/// A web configuration file that is read again when it, or a certificate in it, has changed. A new
/// state that cannot be used leaves the old one in force.
pub struct WebFile {
    path: PathBuf,
    active: RwLock<Arc<Active>>,
    watched: Mutex<Watched>,
    /// Outlives each state of the files, so that what it has found out does.
    pub(super) checker: Checker,
}

impl std::fmt::Debug for WebFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebFile").field("path", &self.path).finish()
    }
}

impl WebFile {
    /// Reads the file at `path` and every file that it names.
    ///
    /// # Errors
    /// When anything in them is wrong, with its place.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let (active, files) = read(path)?;
        let checker = Checker::new().ok_or_else(|| SettingsError::Read {
            what: "random numbers for",
            path: path.to_owned(),
            source: std::io::ErrorKind::Other.into(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            active: RwLock::new(Arc::new(active)),
            watched: Mutex::new(Watched {
                files,
                looked: Instant::now(),
            }),
            checker,
        })
    }

    /// Whether clients have to speak TLS now.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.active().tls.is_some()
    }

    /// Every file that is read again, to be readable for the life of the process.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let watched = self.watched();
        watched.files.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Reads everything again now.
    ///
    /// # Errors
    /// When anything is wrong; the old state stays in force.
    pub fn reload(&self) -> Result<(), SettingsError> {
        // Before the files: a change while they are read is seen at the next look.
        let paths = self.files();
        let before: Vec<_> = paths
            .into_iter()
            .map(|path| {
                let fingerprint = fingerprint(&path);
                (path, fingerprint)
            })
            .collect();
        match read(&self.path) {
            Ok((mut active, files)) => {
                let mut current = self.active.write().unwrap_or_else(PoisonError::into_inner);
                if current.rate == active.rate {
                    // A client does not get a new allowance with each new certificate.
                    active.bucket = current.bucket.clone();
                }
                self.checker.keep(active.users.as_ref());
                *current = Arc::new(active);
                drop(current);
                self.watched().files = files;
                Ok(())
            }
            Err(error) => {
                // Complained about once per change.
                self.watched().files = before;
                Err(error)
            }
        }
    }

    /// The state in force, after a look at the files if the last was not just now.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<Active> {
        if self.look_is_due(Instant::now()) {
            let this = Arc::clone(self);
            // Files can hang, on a network for one; requests go on with the old state meanwhile.
            let looked = tokio::task::spawn_blocking(move || this.follow());
            let _ = tokio::time::timeout(LOOK_INTERVAL, looked).await;
        }
        self.active()
    }

    fn look_is_due(&self, now: Instant) -> bool {
        let mut watched = self.watched();
        let due = now.saturating_duration_since(watched.looked) >= LOOK_INTERVAL;
        if due {
            watched.looked = now;
        }
        due
    }

    fn follow(&self) {
        let changed = {
            let files = self.watched().files.clone();
            files
                .iter()
                .any(|(path, known)| fingerprint(path) != *known)
        };
        if !changed {
            return;
        }
        match self.reload() {
            Ok(()) => info!(path = %self.path.display(), "read the web configuration again"),
            Err(error) => warn!(
                path = %self.path.display(),
                error = &error as &dyn std::error::Error,
                "the changed web configuration cannot be used; the old one stays in force"
            ),
        }
    }

    fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<(Active, Vec<(PathBuf, Fingerprint)>), SettingsError> {
    let mut files = vec![(path.to_owned(), fingerprint(path))];
    let settings = settings::read(path)?;
    if let Some(tls) = &settings.tls {
        files.extend(tls::files(tls).map(|path| (path.clone(), fingerprint(path))));
    }
    let tls = settings
        .tls
        .as_ref()
        .map(|tls| tls::server(tls, &settings.path))
        .transpose()?;
    let active = Active {
        tls,
        users: Users::new(settings.users),
        headers: settings.headers,
        bucket: settings
            .rate
            .map(|rate| Arc::new(Bucket::new(rate.interval, rate.burst))),
        rate: settings.rate,
    };
    Ok((active, files))
}

/// Through symbolic links: Kubernetes changes a secret by turning one of them.
fn fingerprint(path: &Path) -> Fingerprint {
    let file = fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
    ))
}
