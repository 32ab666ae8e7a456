//! What histories and marks are drawn with.

/// Characters, for terminals that show more than ASCII and for those that do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symbols {
    /// Blocks and triangles.
    #[default]
    Unicode,
    /// Signs on every keyboard.
    Ascii,
}

const BLOCKS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
const SIGNS: [char; 8] = ['_', '.', ',', '-', '=', '+', '*', '#'];

impl Symbols {
    /// By the variables that name the language: without UTF-8 among them, ASCII.
    #[must_use]
    pub fn of(locale: Option<&str>) -> Self {
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Self::Unicode
        } else {
            Self::Ascii
        }
    }

    /// The mark of the sorted column.
    pub(super) const fn sorted(self, falls: bool) -> char {
        match (self, falls) {
            (Self::Unicode, true) => '\u{25bc}',
            (Self::Unicode, false) => '\u{25b2}',
            (Self::Ascii, true) => 'v',
            (Self::Ascii, false) => '^',
        }
    }

    /// A history in so many characters, the latest to the right: each stands for the same number of
    /// seconds and shows the worst of them, on a scale of its own. Seconds without anything, and
    /// those before, are blank or a dot.
    pub(super) fn trend(self, trend: &[u32], width: usize, seconds: usize) -> String {
        let width = width.max(1);
        let group = seconds.div_ceil(width).max(1);
        let columns = seconds.div_ceil(group).min(width);
        // Groups are counted from the latest second.
        let mut heights: Vec<Option<u32>> = trend
            .rchunks(group)
            .take(columns)
            .map(|seconds| seconds.iter().copied().max())
            .collect();
        let most = heights.iter().flatten().copied().max().unwrap_or(0).max(1);
        heights.resize(columns, None);
        let levels = match self {
            Self::Unicode => BLOCKS,
            Self::Ascii => SIGNS,
        };
        let symbol = |height: &Option<u32>| match height {
            None => ' ',
            Some(0) => match self {
                Self::Unicode => '\u{b7}',
                Self::Ascii => ' ',
            },
            Some(height) => {
                let level = (u64::from(*height) * 8).div_ceil(u64::from(most));
                let place = usize::try_from(level).unwrap_or(8).saturating_sub(1);
                levels.get(place).copied().unwrap_or(levels[7])
            }
        };
        heights.iter().rev().map(symbol).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_shows_the_worst_of_each_group() {
        let mut trend = vec![0; 118];
        trend.extend([8, 1]);
        let shown = Symbols::Unicode.trend(&trend, 12, 120);
        assert_eq!(shown.chars().count(), 12);
        assert!(shown.ends_with("\u{b7}\u{2588}"), "{shown}");
        assert_eq!(Symbols::Ascii.trend(&[1, 4, 8], 4, 4), " _-#");
        assert_eq!(Symbols::Ascii.trend(&[], 3, 120), "   ");
        assert_eq!(Symbols::Unicode.trend(&[u32::MAX], 1, 1), "\u{2588}");
        // A width that does not divide two minutes is not all used.
        assert_eq!(
            Symbols::Unicode.trend(&[1; 120], 50, 120).chars().count(),
            40
        );
    }

    #[test]
    fn symbols_follow_the_locale() {
        assert_eq!(Symbols::of(Some("de_DE.UTF-8")), Symbols::Unicode);
        assert_eq!(Symbols::of(Some("C.utf8")), Symbols::Unicode);
        assert_eq!(Symbols::of(Some("C")), Symbols::Ascii);
        assert_eq!(Symbols::of(None), Symbols::Ascii);
    }
}
