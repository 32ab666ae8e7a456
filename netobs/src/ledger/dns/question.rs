//! The question of a query: hostile bytes, decoded for people.

use std::fmt;

/// Longest name, with the lengths of its labels and its end (RFC 1035, 2.3.4).
const NAME_BYTES: usize = 255;
/// Longest label.
const LABEL_BYTES: usize = 63;

/// What a query asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name without its last dot, `.` for the root; in it, bytes that are no visible ASCII, dots
    /// and backslashes are written as `\DDD` (RFC 4343, 2.1).
    pub name: String,
    /// The type, such as 1 for A and 28 for AAAA.
    pub kind: u16,
}

/// Bytes that are no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end before it does.
    #[error("the question is cut short")]
    Short,
    /// A label longer than 63 bytes, or a pointer to elsewhere: there is nothing before the first
    /// name that it could point to.
    #[error("the name has a label that is none")]
    Label,
    /// More than 255 bytes.
    #[error("the name is too long")]
    Long,
}

impl Question {
    /// Decodes what follows a query's header. It looks at each byte once and follows no pointers.
    ///
    /// # Errors
    ///
    /// When it is not a name, a type and a class.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut name = String::new();
        let mut rest = bytes;
        loop {
            let (length, after) = rest.split_first().ok_or(Malformed::Short)?;
            let length = usize::from(*length);
            if length > LABEL_BYTES {
                return Err(Malformed::Label);
            }
            if length == 0 {
                rest = after;
                break;
            }
            let (label, after) = after.split_at_checked(length).ok_or(Malformed::Short)?;
            if !name.is_empty() {
                name.push('.');
            }
            escape(label, &mut name);
            rest = after;
            // What is left of the name's room must hold its end.
            if bytes.len() - rest.len() >= NAME_BYTES {
                return Err(Malformed::Long);
            }
        }
        if name.is_empty() {
            name.push('.');
        }
        match rest {
            [high, low, _, _, ..] => Ok(Self {
                name,
                kind: u16::from_be_bytes([*high, *low]),
            }),
            _ => Err(Malformed::Short),
        }
    }

    /// The type's name, or `TYPE` and its number (RFC 3597).
    #[must_use]
    pub fn kind_name(&self) -> String {
        let name = match self.kind {
            1 => "A",
            2 => "NS",
            5 => "CNAME",
            6 => "SOA",
            12 => "PTR",
            15 => "MX",
            16 => "TXT",
            28 => "AAAA",
            33 => "SRV",
            35 => "NAPTR",
            64 => "SVCB",
            65 => "HTTPS",
            255 => "ANY",
            other => return format!("TYPE{other}"),
        };
        name.to_owned()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.kind_name())
    }
}

fn escape(label: &[u8], out: &mut String) {
    for byte in label {
        match byte {
            b'.' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            0x21..=0x7e => out.push(char::from(*byte)),
            other => out.push_str(&format!("\\{other:03}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(labels: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in labels {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend_from_slice(label);
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes
    }

    #[test]
    fn names_are_read() {
        let decoded =
            |labels: &[&[u8]], kind| Question::decode(&wire(labels, kind)).map(|it| it.to_string());
        assert_eq!(
            decoded(&[b"www", b"example", b"org"], 1),
            Ok("www.example.org A".to_owned())
        );
        assert_eq!(decoded(&[], 2), Ok(". NS".to_owned()));
        assert_eq!(
            decoded(&[b"a.b\\c d\x00\xff"], 999),
            Ok("a\\.b\\\\c\\032d\\000\\255 TYPE999".to_owned())
        );
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let pointer_to_itself = [0xc0, 0x0c, 0, 1, 0, 1];
        assert_eq!(Question::decode(&pointer_to_itself), Err(Malformed::Label));
        assert_eq!(Question::decode(&[64; 80]), Err(Malformed::Label));
        assert_eq!(Question::decode(&[]), Err(Malformed::Short));
        let whole = wire(&[b"www"], 1);
        for cut in 0..whole.len() {
            assert_eq!(Question::decode(&whole[..cut]), Err(Malformed::Short));
        }
        let label = [b'x'; 63];
        let (three, short) = (&label[..], &label[..61]);
        assert!(Question::decode(&wire(&[three, three, three, short], 1)).is_ok());
        assert_eq!(
            Question::decode(&wire(&[three, three, three, &label[..62]], 1)),
            Err(Malformed::Long)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_bounded_line(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(question) = Question::decode(&bytes) {
                prop_assert!(question.name.len() <= 4 * NAME_BYTES);
                prop_assert!(question.name.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
            }
        }

        #[test]
        fn any_labels_come_back(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=63), 0..4),
            kind in any::<u16>(),
        ) {
            let slices: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
            let bytes = wire(&slices, kind);
            prop_assume!(bytes.len() <= NAME_BYTES + 4);
            let question = Question::decode(&bytes).unwrap();
            prop_assert_eq!(question.kind, kind);
            prop_assert_eq!(unescape(&question.name), labels);
        }
    }

    /// The labels of a name as it is written.
    fn unescape(name: &str) -> Vec<Vec<u8>> {
        if name == "." {
            return Vec::new();
        }
        let mut labels = vec![Vec::new()];
        let mut bytes = name.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' => labels.push(Vec::new()),
                b'\\' => {
                    let next = bytes.next().unwrap();
                    let value = if next.is_ascii_digit() {
                        let rest = [next, bytes.next().unwrap(), bytes.next().unwrap()];
                        std::str::from_utf8(&rest).unwrap().parse().unwrap()
                    } else {
                        next
                    };
                    labels.last_mut().unwrap().push(value);
                }
                plain => labels.last_mut().unwrap().push(plain),
            }
        }
        labels
    }
}
