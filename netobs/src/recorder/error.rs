//! What can go wrong before anything is recorded or read.

use std::{io, path::PathBuf};

use thiserror::Error;

/// A folder cannot be recorded into.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be made, opened or listed.
    #[error("failed to use the recorder's folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process records there.
    #[error("another netobs records into {}", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
}

/// A recording cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is not there, or may not be read.
    #[error("failed to read the recording {}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are no segments in the folder.
    #[error("no recording in {}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a recording of netobs", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written on a machine of the other byte order.
    #[error("{} was recorded on a machine of the other byte order", path.display())]
    ByteOrder {
        /// The file.
        path: PathBuf,
    },
    /// The file is a recording of another form.
    #[error("{} has form {form} of recordings; this netobs reads form {known}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Its form.
        form: u32,
        /// The one that is known here.
        known: u32,
    },
}
