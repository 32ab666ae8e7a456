//! Lines as aligned columns.

use std::fmt::Write as _;

use serde_json::Value;

use super::{kind, line::Line};

/// How columns look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Characters of a line; longer ones are cut. `None`: as long as they are.
    pub width: Option<usize>,
    /// Whether the terminal shows colours.
    pub colour: bool,
    /// Whether the date is shown: of old events.
    pub dates: bool,
}

/// Widths of the columns of process, local and remote end to begin with; a longer value widens its
/// column for the lines that follow.
const LEAST: [usize; 3] = [14, 21, 21];
/// What a column is never wider than: both ends of the longest kind, and a name with its number.
const MOST: [usize; 3] = [24, 47, 47];
/// Width of the column of kinds.
const KIND: usize = 11;

/// Writes lines as columns.
#[derive(Debug)]
pub struct Columns {
    style: Style,
    widths: [usize; 3],
    text: String,
}

impl Columns {
    /// With this look.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self {
            style,
            widths: LEAST,
            text: String::new(),
        }
    }

    /// The names of the columns, with a line break.
    pub fn head(&mut self) -> &str {
        let [process, local, peer] = self.widths;
        let time = if self.style.dates { 26 } else { 15 };
        self.text.clear();
        // Writing to a string cannot fail.
        let _ = write!(
            self.text,
            "{:time$}  {:KIND$}  {:process$}  {:local$}  {:peer$}  {:10}  DETAIL",
            "TIME", "EVENT", "PROCESS", "LOCAL", "PEER", "NETNS"
        );
        self.finish(None)
    }

    /// One event, with a line break.
    pub fn row(&mut self, line: &Line) -> &str {
        let owner = line.owner.as_ref();
        let process = owner.map_or_else(
            || "-".to_owned(),
            |owner| match owner.pid {
                Some(pid) => format!("{}/{pid}", owner.process),
                None => owner.process.clone(),
            },
        );
        let end = |end: Option<super::End>| end.map_or_else(|| "-".to_owned(), |it| it.to_string());
        let cells = [process, end(line.local), end(line.peer)];
        for ((width, most), cell) in self.widths.iter_mut().zip(MOST).zip(&cells) {
            *width = cell.chars().count().clamp(*width, most.max(*width));
        }
        let [process_width, local_width, peer_width] = self.widths;
        let [process, local, peer] = &cells;
        let time = match self.style.dates {
            true => line.time.get(..26).unwrap_or(&line.time),
            false => line.time.get(11..26).unwrap_or(&line.time),
        };
        let netns = line
            .netns
            .map_or_else(|| "-".to_owned(), |netns| netns.to_string());
        self.text.clear();
        let _ = write!(self.text, "{time}  ");
        let begin = self.text.len();
        let _ = write!(self.text, "{:KIND$}", line.event);
        let kind = begin..self.text.len();
        let _ = write!(
            self.text,
            "  {process:process_width$}  {local:local_width$}  {peer:peer_width$}  {netns:10}  "
        );
        self.write_detail(line);
        self.finish(Some((kind, &line.event)))
    }

    fn write_detail(&mut self, line: &Line) {
        if line.method == "poll" {
            self.text.push_str("poll ");
        }
        match kind::by_name(&line.event) {
            Some(kind) => {
                for field in kind::fields(kind) {
                    let value = line.detail.get(field.name);
                    if let (Some(name), Some(value)) = (field.column, value) {
                        self.write_value(name, value);
                    }
                }
            }
            // From an agent that knows more kinds.
            None => {
                for (name, value) in line.detail.iter() {
                    self.write_value(name, value);
                }
            }
        }
        self.text.truncate(self.text.trim_end().len());
    }

    fn write_value(&mut self, name: &str, value: &Value) {
        if value.is_null() {
            return;
        }
        if !name.is_empty() {
            let _ = write!(self.text, "{name}=");
        }
        let _ = match value {
            Value::String(text) => write!(self.text, "{text} "),
            other => write!(self.text, "{other} "),
        };
    }

    /// Cuts the line to the terminal's width, takes out what could command the terminal, colours the
    /// kind, and ends the line.
    fn finish(&mut self, kind: Option<(std::ops::Range<usize>, &str)>) -> &str {
        if let Some(width) = self.style.width
            && let Some((end, _)) = self.text.char_indices().nth(width)
        {
            self.text.truncate(end);
        }
        if self.text.contains(char::is_control) {
            self.text = self.text.replace(char::is_control, "?");
        }
        let colour = kind.and_then(|(place, name)| Some((place, kind::by_name(name)?)));
        if self.style.colour
            && let Some((place, kind)) = colour
            && place.end <= self.text.len()
        {
            self.text.insert_str(place.end, "\u{1b}[0m");
            let begin = format!("\u{1b}[{}m", kind::colour(kind));
            self.text.insert_str(place.start, &begin);
        }
        self.text.push('\n');
        &self.text
    }
}
