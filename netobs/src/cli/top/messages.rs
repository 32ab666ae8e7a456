//! Messages while the terminal is drawn on: kept, and told at the end.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    config::Log,
    logging::{self, LoggingError},
};

/// Most messages that are kept, and bytes of each; the latest are told.
const MOST: usize = 50;
const MOST_BYTES: usize = 1024;

/// What was said.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages(Arc<Mutex<VecDeque<Vec<u8>>>>);

/// Keeps messages from now on. Where stderr is no terminal, they go there at once.
pub(super) fn begin(log: Log) -> Result<Messages, LoggingError> {
    let messages = Messages::default();
    if io::stderr().is_terminal() {
        let kept = messages.clone();
        logging::init_into(log, move || kept.clone())?;
    } else {
        logging::init(log)?;
    }
    Ok(messages)
}

impl Messages {
    /// Writes what was said to stderr.
    pub(super) fn tell(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for message in kept.drain(..) {
            // That nobody reads it is no error.
            let _ = io::stderr().write_all(&message);
        }
    }
}

impl Write for Messages {
    /// Takes one message, which is formatted as a whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut message = bytes.get(..MOST_BYTES).unwrap_or(bytes).to_vec();
        if message.last() != Some(&b'\n') {
            message.push(b'\n');
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.pop_front();
        }
        kept.push_back(message);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_short_messages_are_kept() {
        let mut messages = Messages::default();
        for number in 0..200 {
            write!(messages, "{number}").unwrap();
        }
        messages.write_all(&[b'x'; 5000]).unwrap();
        let kept = messages.0.lock().unwrap();
        assert_eq!(kept.len(), MOST);
        assert_eq!(kept[0], b"151\n");
        assert_eq!(kept[MOST - 1].len(), MOST_BYTES + 1);
    }
}
