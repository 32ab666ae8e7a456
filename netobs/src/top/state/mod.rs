//! What the user has chosen, and what is shown because of it.

use super::{
    Action, Filter, Model, Reading, filter,
    model::Tables,
    sheet::{Row, SHEETS, Sheet},
};

/// What lies over the sheet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The keys.
    Help,
    /// Everything about the selected row; how many lines of it are scrolled away.
    Detail(usize),
}

/// What is to be done besides drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Go on.
    Draw,
    /// Give the terminal back until the user comes back.
    Suspend,
    /// End.
    Quit,
}

/// How one sheet is looked at.
#[derive(Clone, Debug, Default)]
struct Look {
    sorted_by: usize,
    reversed: bool,
    /// Id of the selected row, and its place.
    selected: Option<u64>,
    place: usize,
    /// The first row on the screen.
    offset: usize,
}

/// The view's state.
#[derive(Debug)]
pub struct State {
    model: Model,
    /// What is shown; while paused, what was shown then.
    tables: Tables,
    /// What has been made of the latest reading, while paused.
    latest: Option<Tables>,
    rows: Vec<Row>,
    /// Places in `rows` of those that the filter admits, in order.
    shown: Vec<usize>,
    sheet: usize,
    looks: [Look; SHEETS.len()],
    filter: String,
    typing: bool,
    paused: bool,
    overlay: Overlay,
    /// How many rows fit, and how many lines of an overlay.
    page: usize,
    readings: u64,
    /// Since when nothing could be read, and why.
    fault: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        Self::new("")
    }
}

impl State {
    /// Nothing is shown yet; `filter` is as if it had been typed.
    #[must_use]
    pub fn new(filter: &str) -> Self {
        let looks = SHEETS.map(|sheet| Look {
            sorted_by: sheet.sorted_by,
            ..Look::default()
        });
        Self {
            model: Model::default(),
            tables: Tables::default(),
            latest: None,
            rows: Vec::new(),
            shown: Vec::new(),
            sheet: 0,
            looks,
            filter: clip(filter),
            typing: false,
            paused: false,
            overlay: Overlay::None,
            page: 1,
            readings: 0,
            fault: None,
        }
    }

    /// Takes in a reading. While paused it goes into the histories, and is not shown.
    pub fn take(&mut self, reading: &Reading) {
        let tables = self.model.take(reading);
        self.readings += 1;
        self.fault = None;
        if self.paused {
            self.latest = Some(tables);
        } else {
            self.show(tables);
        }
    }

    /// Says why there is no reading, until there is one.
    pub fn complain(&mut self, fault: String) {
        self.fault = Some(fault);
    }

    /// Does what a key asks for.
    pub fn act(&mut self, action: Action) -> Then {
        match action {
            Action::Quit => return Then::Quit,
            Action::Suspend => return Then::Suspend,
            Action::Back => self.back(),
            Action::Help => {
                self.overlay = match self.overlay {
                    Overlay::Help => Overlay::None,
                    _ => Overlay::Help,
                };
            }
            Action::Detail if self.selected().is_some() => self.overlay = Overlay::Detail(0),
            Action::Detail => {}
            Action::Sheet(sheet) => self.turn_to(sheet),
            Action::NextSheet => self.turn_to((self.sheet + 1) % SHEETS.len()),
            Action::SheetBefore => self.turn_to((self.sheet + SHEETS.len() - 1) % SHEETS.len()),
            Action::Move(by) => self.scroll(by),
            Action::Page(pages) => {
                let page = isize::try_from(self.page).unwrap_or(1);
                self.scroll(pages * page);
            }
            Action::First => self.scroll(isize::MIN),
            Action::Last => self.scroll(isize::MAX),
            Action::SortNext => self.sort_by(1),
            Action::SortBefore => self.sort_by(self.sheet().columns.len() - 1),
            Action::Reverse => {
                self.look_mut(|look| look.reversed = !look.reversed);
                self.arrange();
            }
            Action::Pause => self.pause(),
            Action::Filter => self.typing = true,
            Action::Type(character) => {
                if self.filter.chars().count() < filter::MOST {
                    self.filter.push(character);
                }
                self.arrange();
            }
            Action::Rub => {
                self.filter.pop();
                self.arrange();
            }
            Action::RubAll => {
                self.filter.clear();
                self.arrange();
            }
            Action::Done => self.typing = false,
        }
        Then::Draw
    }

    fn back(&mut self) {
        if self.overlay != Overlay::None {
            self.overlay = Overlay::None;
        } else {
            self.typing = false;
            self.filter.clear();
            self.arrange();
        }
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if let Some(latest) = self.latest.take().filter(|_| !self.paused) {
            self.show(latest);
        }
    }

    fn turn_to(&mut self, sheet: usize) {
        if sheet < SHEETS.len() {
            self.sheet = sheet;
            self.overlay = Overlay::None;
            self.rows = self.sheet().rows(&self.tables);
            self.arrange();
        }
    }

    fn show(&mut self, tables: Tables) {
        self.tables = tables;
        self.rows = self.sheet().rows(&self.tables);
        self.arrange();
    }

    /// Filters and sorts; the selected row stays selected wherever it goes.
    fn arrange(&mut self) {
        let filter = Filter::parse(&self.filter);
        let sheet = self.sheet();
        let (column, reversed) = self.sorting();
        let rows = &self.rows;
        let mut shown: Vec<(usize, &Row)> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| {
                filter.is_empty() || filter.admits(&sheet.subject(&self.tables, row))
            })
            .collect();
        shown.sort_by(|(_, a), (_, b)| sheet.compare(column, reversed, a, b));
        let selected = self.look().selected;
        let place = selected.and_then(|id| shown.iter().position(|(_, row)| row.id == id));
        self.shown = shown.into_iter().map(|(at, _)| at).collect();
        let last = self.shown.len().saturating_sub(1);
        self.look_mut(|look| look.place = place.unwrap_or(look.place).min(last));
        self.scroll(0);
    }

    /// Moves the selection, or what is in front.
    fn scroll(&mut self, by: isize) {
        if let Overlay::Detail(scrolled) = self.overlay {
            let most = self.detail().len().saturating_sub(1);
            self.overlay = Overlay::Detail(scrolled.saturating_add_signed(by).min(most));
            return;
        }
        let last = self.shown.len().saturating_sub(1);
        let place = self.look().place.saturating_add_signed(by).min(last);
        // Nobody has chosen the first row of a list that changes under him.
        let chosen = by != 0 || self.look().selected.is_some();
        let row = self.shown.get(place).and_then(|at| self.rows.get(*at));
        let id = row.filter(|_| chosen).map(|row| row.id);
        self.look_mut(|look| {
            look.place = place;
            if by != 0 || id.is_some() {
                look.selected = id;
            }
        });
    }

    fn sort_by(&mut self, further: usize) {
        let columns = self.sheet().columns.len();
        self.look_mut(|look| {
            look.sorted_by = (look.sorted_by + further) % columns;
            look.reversed = false;
        });
        self.arrange();
    }

    fn look(&self) -> &Look {
        // `sheet` is the place of one, always.
        self.looks.get(self.sheet).unwrap_or(&self.looks[0])
    }

    fn look_mut(&mut self, change: impl FnOnce(&mut Look)) {
        if let Some(look) = self.looks.get_mut(self.sheet) {
            change(look);
        }
    }

    /// The sheet that is shown.
    #[must_use]
    pub fn sheet(&self) -> &'static Sheet {
        SHEETS.get(self.sheet).unwrap_or(&SHEETS[0])
    }

    /// Its place among the sheets.
    #[must_use]
    pub fn sheet_number(&self) -> usize {
        self.sheet
    }

    /// What is shown.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The column that rows are sorted by, and whether it is the other way round.
    #[must_use]
    pub fn sorting(&self) -> (usize, bool) {
        (self.look().sorted_by, self.look().reversed)
    }

    /// Whether the sorted column falls from top to bottom.
    #[must_use]
    pub fn falls(&self) -> bool {
        let (column, reversed) = self.sorting();
        self.sheet().falls(column, reversed, &self.rows)
    }

    /// The rows that fit on a page of so many, and which of them is selected.
    pub fn page(&mut self, size: usize) -> (Vec<&Row>, usize) {
        self.page = size.max(1);
        let (page, last) = (self.page, self.shown.len());
        self.look_mut(|look| {
            let least = (look.place + 1).saturating_sub(page);
            let most = last.saturating_sub(page).min(look.place);
            look.offset = look.offset.clamp(least.min(most), most.max(least));
        });
        let offset = self.look().offset;
        let rows = self.shown.iter().skip(offset).take(page);
        let rows = rows.filter_map(|at| self.rows.get(*at)).collect();
        (rows, self.look().place.saturating_sub(offset))
    }

    /// The place of the selected row among those that are shown, from 1; 0 for none.
    #[must_use]
    pub fn place(&self) -> usize {
        (self.look().place + 1).min(self.shown.len())
    }

    /// How many rows are shown, and how many there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.shown.len(), self.rows.len())
    }

    /// The selected row.
    #[must_use]
    pub fn selected(&self) -> Option<&Row> {
        let at = self.shown.get(self.look().place)?;
        self.rows.get(*at)
    }

    /// Everything about the selected row.
    #[must_use]
    pub fn detail(&self) -> Vec<String> {
        let row = self.selected();
        row.map_or_else(Vec::new, |row| self.sheet().detail(&self.tables, row))
    }

    /// What has been typed to filter by.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether keys go into the filter.
    #[must_use]
    pub fn is_typing(&self) -> bool {
        self.typing
    }

    /// Whether what is shown stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// What lies over the sheet.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        self.overlay
    }

    /// Whether there was a reading.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.readings > 0
    }

    /// Why there are no readings.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

/// What can be typed is also what a command line may give.
fn clip(filter: &str) -> String {
    let typed = filter.chars().filter(|c| super::text::is_printable(*c));
    typed.take(filter::MOST).collect()
}

#[cfg(test)]
mod tests;
