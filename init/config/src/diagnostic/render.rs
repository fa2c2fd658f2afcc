//! Diagnostics for a terminal, in the form that rustc has made familiar.
//!
//! Written here rather than taken from a library: it runs in PID 1, on whatever bytes a user's disk has, and must not
//! panic; and with lines that are cut and cleaned beforehand there is little left to do.

use std::fmt::{self, Display, Formatter, Write};

use super::{Diagnostic, Location};

/// How to show a diagnostic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    #[default]
    Plain,
    /// With the colours of ECMA-48.
    Colour,
}

/// What a part of the output is, so that it can have a colour.
#[derive(Clone, Copy)]
enum Part {
    Mistake,
    Title,
    Frame,
    Help,
}

impl Style {
    fn paint(self, part: Part, text: &str, formatter: &mut Formatter) -> fmt::Result {
        let code = match (self, part) {
            (Self::Plain, _) => return formatter.write_str(text),
            (Self::Colour, Part::Mistake) => "1;31",
            (Self::Colour, Part::Title) => "1",
            (Self::Colour, Part::Frame) => "1;34",
            (Self::Colour, Part::Help) => "1;36",
        };
        write!(formatter, "\x1b[{code}m{text}\x1b[0m")
    }
}

impl Diagnostic {
    /// Several lines, without a newline at the end.
    pub fn render(&self, style: Style) -> String {
        struct Rendered<'a>(&'a Diagnostic, Style);
        impl Display for Rendered<'_> {
            fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
                self.0.write(self.1, formatter)
            }
        }
        Rendered(self, style).to_string()
    }

    /// One line, for a log: `berth.toml:7:10: containers.web.memory: "Q" is not a unit (did …)`.
    pub fn summary(&self) -> String {
        let mut line = format!("{}: {}", self.location, self.title());
        if let Some(help) = &self.help {
            // Writing to a String cannot fail.
            let _ = write!(line, " ({help})");
        }
        line
    }

    fn title(&self) -> String {
        if self.key.is_empty() { self.message.clone() } else { format!("{}: {}", self.key, self.message) }
    }

    fn write(&self, style: Style, formatter: &mut Formatter) -> fmt::Result {
        style.paint(Part::Mistake, "error", formatter)?;
        style.paint(Part::Title, &format!(": {}", self.title()), formatter)?;
        let places = self.related.iter().map(|related| &related.location).chain([&self.location]);
        let width = places.map(|location| location.line.to_string().len()).max().unwrap_or(1);
        write_place(&self.location, "", ('^', Part::Mistake), width, style, formatter)?;
        for related in &self.related {
            write_place(&related.location, &related.message, ('-', Part::Frame), width, style, formatter)?;
        }
        if let Some(help) = &self.help {
            write!(formatter, "\n{:width$} ", "")?;
            style.paint(Part::Frame, "=", formatter)?;
            formatter.write_char(' ')?;
            style.paint(Part::Help, "help", formatter)?;
            write!(formatter, ": {help}")?;
        }
        Ok(())
    }
}

/// The arrow with the place, the line, and the marks below it.
fn write_place(
    location: &Location,
    label: &str,
    (mark, part): (char, Part),
    width: usize,
    style: Style,
    formatter: &mut Formatter,
) -> fmt::Result {
    write!(formatter, "\n{:width$}", "")?;
    style.paint(Part::Frame, "-->", formatter)?;
    write!(formatter, " {location}")?;
    if location.excerpt.is_empty() {
        return Ok(());
    }
    write!(formatter, "\n{:width$} ", "")?;
    style.paint(Part::Frame, "|", formatter)?;
    formatter.write_char('\n')?;
    style.paint(Part::Frame, &format!("{:width$} |", location.line), formatter)?;
    write!(formatter, " {}\n{:width$} ", location.excerpt, "")?;
    style.paint(Part::Frame, "|", formatter)?;
    write!(formatter, " {:indent$}", "", indent = location.start)?;
    let mut marks = String::from(mark).repeat(location.length.max(1));
    if !label.is_empty() {
        marks.push(' ');
        marks.push_str(label);
    }
    style.paint(part, &marks, formatter)
}

/// `berth.toml:7:10`.
impl Display for Location {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// As [`Diagnostic::render`] without colour.
impl Display for Diagnostic {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        self.write(Style::Plain, formatter)
    }
}
