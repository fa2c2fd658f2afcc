//! Tables that fit the terminal: columns as wide as they must be, the widest cut where the line is too short.

use std::borrow::Cow;
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

/// Rows under a heading. The last column is not padded.
pub fn render(heading: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let length = |cell: &String| cell.chars().count();
    let mut widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = rows.iter().chain([&heading]).filter_map(|row| row.get(column));
            cells.map(length).max().unwrap_or(0)
        })
        .collect();
    if let Some(width) = width {
        fit(&mut widths, width);
    }
    let mut text = String::new();
    for row in [&heading].into_iter().chain(rows) {
        let begin = text.len();
        for (cell, width) in row.iter().zip(&widths) {
            let cell = cut(cell, *width);
            text.push_str(&cell);
            text.extend(std::iter::repeat_n(' ', (width + GAP).saturating_sub(cell.chars().count())));
        }
        text.truncate(begin + text[begin..].trim_end().len());
        text.push('\n');
    }
    text
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
