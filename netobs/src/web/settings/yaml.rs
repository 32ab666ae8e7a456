//! The YAML text as texts, lists and mappings, each with its place.
//!
//! The parser is the one that serde-saphyr has. Its readers by type would be less to write here, and
//! are 400 KB of the binary for the dozen types of one small file.

use std::collections::BTreeMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};

/// Mappings and lists in each other: the deepest key is in the third.
const DEPTH: usize = 8;

/// Line and column, counted from 1.
pub(super) type At = (u64, u64);

/// Why a text is not what it should be.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) at: Option<At>,
    /// Without any value of the file: it may be a password.
    pub(super) message: String,
}

fn refused<T>(at: At, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused {
        at: Some(at),
        message: message.into(),
    })
}

/// A value, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) defined: At,
}

/// A part of the text.
#[derive(Debug)]
pub(super) struct Node {
    at: At,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Nothing behind a key, or `null`: as good as not given.
    Empty,
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(Spanned<String>, Node)>),
}

/// Reads a text of one document.
pub(super) fn parse(text: &str) -> Result<Node, Refused> {
    let mut events = Events(Parser::new_from_str(text));
    let mut found = None;
    while let Some((event, span)) = events.next()? {
        match event {
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd => {}
            _ if found.is_some() => return refused(place(span.start), "more than one document"),
            event => found = Some(events.node(event, span, DEPTH)?),
        }
    }
    Ok(found.unwrap_or(Node {
        at: (1, 1),
        content: Content::Empty,
    }))
}

fn place(mark: Marker) -> At {
    (mark.line() as u64, mark.col() as u64 + 1)
}

struct Events<'a>(Parser<'a, granit_parser::StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Refused> {
        self.0.next().transpose().map_err(|error| Refused {
            at: Some(place(*error.marker())),
            message: error.kind().to_string(),
        })
    }

    /// The event after which something has to come.
    fn within(&mut self, at: At) -> Result<(Event<'a>, Span), Refused> {
        match self.next()? {
            Some(next) => Ok(next),
            None => refused(at, "the text ends too early"),
        }
    }

    /// The node that begins with an event.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Refused> {
        let at = place(span.start);
        let Some(depth) = depth.checked_sub(1) else {
            return refused(at, "too many lists or mappings in each other");
        };
        let content = match event {
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(.., Some(_))
            | Event::MappingStart(.., Some(_)) => {
                let at = place(span.tag_start().unwrap_or(span.start));
                return refused(at, "tags are not taken");
            }
            Event::Scalar(text, ScalarStyle::Plain, ..)
                if matches!(&*text, "" | "~" | "null" | "Null" | "NULL") =>
            {
                Content::Empty
            }
            Event::Scalar(text, ..) => Content::Text(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.within(at)? {
                        (Event::SequenceEnd, _) => break Content::List(items),
                        (event, span) => items.push(self.node(event, span, depth)?),
                    }
                }
            }
            Event::MappingStart(..) => self.mapping(at, depth)?,
            Event::Alias(_) => return refused(at, "aliases are not taken: repeat the value"),
            _ => return refused(at, "expected a value"),
        };
        Ok(Node { at, content })
    }

    fn mapping(&mut self, at: At, depth: usize) -> Result<Content, Refused> {
        let mut entries: Vec<(Spanned<String>, Node)> = Vec::new();
        loop {
            let (key, span) = self.within(at)?;
            let defined = place(span.start);
            let value = match key {
                Event::MappingEnd => return Ok(Content::Mapping(entries)),
                Event::Scalar(text, _, _, None) => text.into_owned(),
                _ => return refused(defined, "expected a key"),
            };
            if entries.iter().any(|(earlier, _)| earlier.value == value) {
                let key = value.escape_debug();
                return refused(defined, format!("the key \"{key}\" stands here again"));
            }
            let (event, span) = self.within(at)?;
            let node = self.node(event, span, depth)?;
            entries.push((Spanned { value, defined }, node));
        }
    }
}

impl Node {
    /// The values of a mapping that may have these keys only.
    pub(super) fn fields(self, known: &[&'static str]) -> Result<Fields, Refused> {
        let entries = match self.content {
            Content::Empty => Vec::new(),
            Content::Mapping(entries) => entries,
            _ => return refused(self.at, "expected a mapping"),
        };
        let mut fields = BTreeMap::new();
        for (key, node) in entries {
            let Some(name) = known.iter().find(|known| **known == key.value) else {
                let (key, at) = (key.value.escape_debug(), key.defined);
                let known = known.join(", ");
                return refused(
                    at,
                    format!("unknown key \"{key}\", expected one of {known}"),
                );
            };
            fields.insert(*name, node);
        }
        Ok(Fields(fields))
    }

    fn given(self) -> Option<Self> {
        (!matches!(self.content, Content::Empty)).then_some(self)
    }

    fn text(self) -> Result<Spanned<String>, Refused> {
        match self.content {
            Content::Text(value) => Ok(Spanned {
                value,
                defined: self.at,
            }),
            _ => refused(self.at, "expected a text"),
        }
    }
}

/// What stands behind the keys of a mapping; each is taken once.
pub(super) struct Fields(BTreeMap<&'static str, Node>);

impl Fields {
    /// What stands behind a key, unless it is nothing.
    pub(super) fn node(&mut self, key: &str) -> Option<Node> {
        self.0.remove(key).and_then(Node::given)
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<Spanned<String>>, Refused> {
        self.node(key).map(Node::text).transpose()
    }

    pub(super) fn truth(&mut self, key: &str) -> Result<Option<bool>, Refused> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        match &*text.value {
            "true" | "True" | "TRUE" => Ok(Some(true)),
            "false" | "False" | "FALSE" => Ok(Some(false)),
            _ => refused(text.defined, "expected true or false"),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<Spanned<u32>>, Refused> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let defined = text.defined;
        match text.value.parse() {
            Ok(value) => Ok(Some(Spanned { value, defined })),
            Err(_) => refused(defined, "expected a whole number that is not negative"),
        }
    }

    pub(super) fn list(&mut self, key: &str) -> Result<Option<Vec<Spanned<String>>>, Refused> {
        let Some(node) = self.node(key) else {
            return Ok(None);
        };
        match node.content {
            Content::List(items) => items
                .into_iter()
                .map(Node::text)
                .collect::<Result<_, _>>()
                .map(Some),
            _ => refused(node.at, "expected a list"),
        }
    }

    /// A mapping of keys that are anybody's to choose.
    pub(super) fn texts(
        &mut self,
        key: &str,
    ) -> Result<BTreeMap<String, Spanned<String>>, Refused> {
        let Some(node) = self.node(key) else {
            return Ok(BTreeMap::new());
        };
        match node.content {
            Content::Mapping(entries) => entries
                .into_iter()
                .map(|(name, node)| Ok((name.value, node.text()?)))
                .collect(),
            _ => refused(node.at, "expected a mapping"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> (u64, u64, String) {
        let read = parse(text)
            .and_then(|node| node.fields(&["a", "b"]))
            .and_then(|mut fields| {
                fields.texts("a")?;
                fields.list("b")
            });
        let refused = read.map(drop).unwrap_err();
        let (line, column) = refused.at.unwrap();
        (line, column, refused.message)
    }

    #[test]
    fn what_is_not_of_the_form_is_refused_with_its_place() {
        for (text, line, column, message) in [
            ("- a\n", 1, 1, "expected a mapping"),
            (
                "a: {x: 1}\nc: 1\n",
                2,
                1,
                "unknown key \"c\", expected one of a, b",
            ),
            (
                "a: {x: 1}\na: {}\n",
                2,
                1,
                "the key \"a\" stands here again",
            ),
            ("a:\n  x: [1]\n", 2, 6, "expected a text"),
            ("a:\n  x:\n", 2, 4, "expected a text"),
            ("a: text\n", 1, 4, "expected a mapping"),
            ("b: text\n", 1, 4, "expected a list"),
            ("b: [x, {y: 1}]\n", 1, 8, "expected a text"),
            (
                "a: &x {y: 1}\nb: *x\n",
                2,
                4,
                "aliases are not taken: repeat the value",
            ),
            ("a: !!str x\n", 1, 4, "tags are not taken"),
            ("? [a]\n: b\n", 1, 3, "expected a key"),
            ("a: {}\n---\nb: []\n", 3, 1, "more than one document"),
            (
                "b: [[[[[[[[[]]]]]]]]]\n",
                1,
                11,
                "too many lists or mappings in each other",
            ),
        ] {
            assert_eq!(refusal(text), (line, column, message.to_owned()), "{text}");
        }
    }

    #[test]
    fn nothing_is_as_good_as_not_given() {
        for text in [
            "",
            "---\n",
            "# words\n",
            "a:\nb: ~\n",
            "{a: null}\n",
            "a: {}\n",
        ] {
            let mut fields = parse(text).unwrap().fields(&["a", "b"]).unwrap();
            assert!(fields.texts("a").unwrap().is_empty(), "{text:?}");
            assert!(fields.list("b").unwrap().is_none(), "{text:?}");
        }
        let quoted = parse("a: {x: 'null'}\n").unwrap().fields(&["a"]);
        assert_eq!(quoted.unwrap().texts("a").unwrap()["x"].value, "null");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-b:{}\\[\\],&*!|>?#'\" \n-]{0,60}") {
            if let Err(refused) = parse(&text) {
                prop_assert!(!refused.message.is_empty());
            }
        }
    }
}
