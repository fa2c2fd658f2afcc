//! Tables that fit the terminal: columns as wide as they must be, the widest cut where the line is too short.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::termios::{Winsize, tcgetwinsize};

/// Between columns.
const GAP: usize = 2;

/// A column is not cut below this many characters.
const NARROWEST: usize = 8;

/// How wide the output may be in characters; `None` where it goes to a file or a program.
pub fn terminal_width() -> Option<usize> {
    width_of(&std::io::stdout())
}

/// The same of another output.
pub fn width_of(output: &(impl AsFd + IsTerminal)) -> Option<usize> {
    // A serial console says 0 columns: it does not know.
    size(output, "COLUMNS", |size| size.ws_col)?.or(Some(80))
}

/// How many lines the output may have; `None` where it is no terminal, or one that does not know.
pub fn terminal_height() -> Option<usize> {
    size(&std::io::stdout(), "LINES", |size| size.ws_row)?
}

/// What the environment says or else the terminal, if they know; `None` where the output is no terminal.
fn size(output: &(impl AsFd + IsTerminal), variable: &str, of: impl Fn(Winsize) -> u16) -> Option<Option<usize>> {
    if !output.is_terminal() {
        return None;
    }
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    let asked = || tcgetwinsize(output).ok().map(|size| usize::from(of(size)));
    Some(given.or_else(asked).filter(|count| *count > 0))
}

/// Rows under a heading, filled one cell after the other: all of their text is in one piece, however many there are.
#[derive(Debug)]
pub struct Table {
    columns: usize,
    text: String,
    /// The heading's, then those of each row.
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    /// Where it ends in the text; it begins where the one before ends.
    end: usize,
    /// In characters.
    width: usize,
}

impl Table {
    /// Without rows.
    pub fn new(heading: &[&str]) -> Self {
        let mut table = Self { columns: heading.len(), text: String::new(), cells: Vec::new() };
        heading.iter().for_each(|cell| table.cell(cell));
        table
    }

    /// The next cell.
    pub fn cell(&mut self, cell: impl Display) {
        self.list([cell]);
    }

    /// The next cell, of several parts with commas between them.
    pub fn list(&mut self, parts: impl IntoIterator<Item: Display>) {
        let begin = self.text.len();
        for (number, part) in parts.into_iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{separator}{part}");
        }
        self.cells.push(Cell { end: self.text.len(), width: self.text[begin..].chars().count() });
    }

    /// The lines. The last column is not padded.
    pub fn render(&self, width: Option<usize>) -> String {
        let rows = || self.cells.chunks(self.columns.max(1));
        let mut widths = vec![0; self.columns];
        for row in rows() {
            widths.iter_mut().zip(row).for_each(|(widest, cell)| *widest = cell.width.max(*widest));
        }
        if let Some(width) = width {
            fit(&mut widths, width);
        }
        let line = widths.iter().map(|width| width + GAP).sum::<usize>();
        let mut text = String::with_capacity(rows().len() * line);
        let mut at = 0;
        for row in rows() {
            let begin = text.len();
            for (cell, width) in row.iter().zip(&widths) {
                let whole = &self.text[at..cell.end];
                if cell.width <= *width {
                    text.push_str(whole);
                    pad(&mut text, width - cell.width + GAP);
                } else {
                    text.push_str(&cut(whole, *width));
                    pad(&mut text, GAP);
                }
                at = cell.end;
            }
            text.truncate(begin + text[begin..].trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// The same of rows that are there already; each has as many cells as the heading.
pub fn render(heading: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let mut table = Table::new(heading);
    for row in rows {
        let cells = row.iter().map(String::as_str).chain(std::iter::repeat("")).take(heading.len());
        cells.for_each(|cell| table.cell(cell));
    }
    table.render(width)
}

/// Many at once.
fn pad(text: &mut String, mut count: usize) {
    const SPACES: &str = "                                ";
    while count > 0 {
        let some = count.min(SPACES.len());
        text.push_str(&SPACES[..some]);
        count -= some;
    }
}

/// Takes from the widest column, one character at a time, until all fit.
fn fit(widths: &mut [usize], available: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > available {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

/// ASCII dots, because a serial console may know nothing else.
pub fn cut(cell: &str, width: usize) -> Cow<'_, str> {
    if cell.chars().count() <= width {
        return cell.into();
    }
    let kept: String = cell.chars().take(width.saturating_sub(2)).collect();
    format!("{kept}..").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        vec![row(["web", "docker.io/library/nginx:1.27", "running 5m"]), row(["database", "postgres", "failed"])]
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let expected = "\
NAME      IMAGE                         STATE
web       docker.io/library/nginx:1.27  running 5m
database  postgres                      failed
";
        assert_eq!(render(&["NAME", "IMAGE", "STATE"], &rows(), None), expected);
    }

    #[test]
    fn the_widest_column_is_cut_on_a_narrow_terminal() {
        let text = render(&["NAME", "IMAGE", "STATE"], &rows(), Some(40));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("web       docker.io/librar..  running 5m"), "{text}");
    }

    #[test]
    fn a_terminal_too_narrow_for_anything_does_not_end_in_a_loop() {
        assert!(render(&["NAME", "IMAGE", "STATE"], &rows(), Some(3)).contains("web"));
    }
}
