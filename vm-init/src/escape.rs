//! Bytes as printable ASCII words.
//!
//! A byte outside `!`..`~`, and `%` itself, becomes `%XX`. The empty string is `-`, and a lone `-`
//! is `%2D`, so that a word is never empty. A trailing field may keep its spaces: it ends with the
//! line.

/// Whether spaces stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spaces {
    /// Escaped: the text is one word among others.
    Escape,
    /// Kept: the text is the last thing on its line.
    Keep,
}

/// `bytes` as text without control characters.
#[must_use]
pub fn encode(bytes: &[u8], spaces: Spaces) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    if bytes.is_empty() {
        return "-".to_owned();
    }
    if bytes == b"-" {
        return "%2D".to_owned();
    }
    let digit = |nibble: u8| HEX.get(usize::from(nibble & 15)).copied().unwrap_or('0');
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 4);
    for &byte in bytes {
        let plain = (b'!'..=b'~').contains(&byte) && byte != b'%';
        if plain || (byte == b' ' && spaces == Spaces::Keep) {
            text.push(char::from(byte));
        } else {
            text.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
    text
}

/// The bytes that [`encode`] turned into `text`; `None` for a broken escape.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = hex(rest.next()?)?;
            let low = hex(rest.next()?)?;
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// [`decode`], for text that has to be UTF-8; what is not is replaced.
#[must_use]
pub fn decode_text(text: &str) -> Option<String> {
    decode(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip() {
        let all: Vec<u8> = (0..=255).collect();
        for spaces in [Spaces::Escape, Spaces::Keep] {
            let text = encode(&all, spaces);
            assert!(text.is_ascii() && !text.contains('\n'));
            assert_eq!(decode(&text), Some(all.clone()));
        }
    }

    #[test]
    fn empty_and_dash_differ() {
        for bytes in [&b""[..], b"-", b"--", b"a-b", b"%", b" "] {
            let word = encode(bytes, Spaces::Escape);
            assert!(!word.is_empty() && !word.contains(' '));
            assert_eq!(decode(&word).as_deref(), Some(bytes));
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%4", "a%zz", "%+1"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
