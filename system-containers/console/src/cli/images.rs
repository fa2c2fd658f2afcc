//! `berth pull` and `berth push`: images from their registries and to them. `list` shows those that are here.

pub mod list;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

use berth_control::images::{PullEvent, PullProgress};
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::{format, table};

/// Which image.
#[derive(Debug, Args)]
pub struct Pull {
    /// Show no progress, which goes to the terminal otherwise
    #[arg(short, long)]
    quiet: bool,
    /// Its name, as in a configuration
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// What to push.
#[derive(Debug, Args)]
pub struct Push {
    /// Show no progress, which goes to the terminal otherwise
    #[arg(short, long)]
    quiet: bool,
    /// Its name, with the registry that it goes to; `berth tag` gives it
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Pulls, and returns the image's name and digest. With `json` every event is printed as it comes.
pub async fn pull(api: &Api, arguments: &Pull, json: bool) -> Result<String, Error> {
    show(api.images.pull(&arguments.image).await?, arguments.quiet, json)
}

/// Pushes, and returns the same.
pub async fn push(api: &Api, arguments: &Push, json: bool) -> Result<String, Error> {
    show(api.images.push(&arguments.image).await?, arguments.quiet, json)
}

/// Shows how it goes on to its end, and returns the image's name and digest.
pub fn show(pipe: zbus::wire::OwnedFd, quiet: bool, json: bool) -> Result<String, Error> {
    let events = BufReader::new(File::from(OwnedFd::from(pipe)));
    if json {
        return follow(events, &mut JsonLines(io::stdout().lock()));
    }
    let terminal = io::stderr();
    if quiet || !terminal.is_terminal() {
        return follow(events, &mut Silent);
    }
    let width = || table::width_of(&io::stderr());
    follow(events, &mut Line { to: terminal.lock(), width, began: Instant::now(), drawn: 0 })
}

/// Who shows what comes.
trait Display {
    fn show(&mut self, event: &PullEvent) -> io::Result<()>;
    /// Whether nothing is to be said at the end.
    fn has_said_all(&self) -> bool {
        false
    }
}

/// Nobody.
struct Silent;

impl Display for Silent {
    fn show(&mut self, _event: &PullEvent) -> io::Result<()> {
        Ok(())
    }
}

/// A program.
struct JsonLines<W>(W);

impl<W: Write> Display for JsonLines<W> {
    fn show(&mut self, event: &PullEvent) -> io::Result<()> {
        writeln!(self.0, "{}", serde_json::to_string(event)?)?;
        self.0.flush()
    }

    fn has_said_all(&self) -> bool {
        true
    }
}

/// A person: one line that is written again and again.
struct Line<W, F> {
    to: W,
    /// How wide it may be now, in characters.
    width: F,
    began: Instant,
    drawn: usize,
}

impl<W: Write, F: Fn() -> Option<usize>> Display for Line<W, F> {
    fn show(&mut self, event: &PullEvent) -> io::Result<()> {
        let text = match event {
            PullEvent::Progress(progress) => describe(progress, self.began.elapsed().as_secs_f64()),
            PullEvent::Done(_) | PullEvent::Failed(_) => String::new(),
        };
        // One that goes on in the next line would stay there. A character in the last column makes some terminals begin it.
        let text = match (self.width)() {
            Some(width) => table::cut(&text, width.saturating_sub(1)).into_owned(),
            None => text,
        };
        // Blanks over what is left of the last one.
        let length = text.chars().count();
        write!(self.to, "\r{text}{:1$}\r{text}", "", self.drawn.saturating_sub(length))?;
        self.drawn = length;
        self.to.flush()
    }
}

/// How far it is, in one line.
fn describe(progress: &PullProgress, seconds: f64) -> String {
    if progress.layers.is_empty() {
        return format!("{}: asking", progress.from);
    }
    let done = progress.layers.iter().filter(|layer| layer.done).count();
    // What was there before is not to come.
    let coming = || progress.layers.iter().filter(|layer| !layer.done || layer.received > 0);
    let received: u64 = coming().map(|layer| layer.received).sum();
    let bytes: u64 = coming().map(|layer| layer.bytes).sum();
    // A rate is for people: what a float loses does not matter.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rate")]
    let rate = if seconds > 0.0 { (received as f64 / seconds) as u64 } else { 0 };
    format!(
        "{}: {done} of {} layers, {} of {}, {}/s",
        progress.from,
        progress.layers.len(),
        format::bytes(received),
        format::bytes(bytes),
        format::bytes(rate)
    )
}

fn follow(events: impl BufRead, display: &mut impl Display) -> Result<String, Error> {
    for event in super::answers::each(events) {
        let event: PullEvent = event?;
        display.show(&event).map_err(Error::Output)?;
        match event {
            PullEvent::Progress(_) => {}
            PullEvent::Done(_) if display.has_said_all() => return Ok(String::new()),
            PullEvent::Done(pulled) => return Ok(format!("{} {}\n", pulled.image, pulled.digest)),
            PullEvent::Failed(_) if display.has_said_all() => return Err(Error::Told),
            PullEvent::Failed(reason) => return Err(Error::Refused(reason)),
        }
    }
    Err(super::answers::without_outcome())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_control::images::{LayerProgress, Pulled};

    fn layer(received: u64, done: bool) -> LayerProgress {
        LayerProgress { digest: "sha256:0".into(), bytes: 2048, received, done }
    }

    fn events(last: PullEvent) -> Vec<u8> {
        let progress = PullProgress { from: "r.example".into(), layers: vec![layer(0, true), layer(1024, false)] };
        let events = [PullEvent::Progress(PullProgress::default()), PullEvent::Progress(progress), last];
        events.iter().flat_map(|event| (serde_json::to_string(event).unwrap() + "\n").into_bytes()).collect()
    }

    fn done() -> PullEvent {
        let (image, digest) = ("r.example/a:1".to_owned(), "sha256:0".to_owned());
        PullEvent::Done(Pulled { image, digest, from: "r.example".into(), layers: 1 })
    }

    #[test]
    fn the_end_of_a_pull_is_that_of_the_command() {
        assert_eq!(follow(&*events(done()), &mut Silent).unwrap(), "r.example/a:1 sha256:0\n");
        let failed = follow(&*events(PullEvent::Failed("no such image".into())), &mut Silent).unwrap_err();
        assert_eq!(failed.to_string(), "no such image");
        assert!(follow(&b""[..], &mut Silent).is_err());
    }

    #[test]
    fn programs_get_every_event() {
        let mut output = Vec::new();
        assert_eq!(follow(&*events(done()), &mut JsonLines(&mut output)).unwrap(), "");
        assert_eq!(output, events(done()));
        let failed = follow(&*events(PullEvent::Failed("no".into())), &mut JsonLines(Vec::new())).unwrap_err();
        assert!(matches!(failed, Error::Told));
    }

    #[test]
    fn a_line_is_drawn_over_the_last_one() {
        let mut output = Vec::new();
        follow(&*events(done()), &mut Line { to: &mut output, width: || None, began: Instant::now(), drawn: 0 })
            .unwrap();
        let text = String::from_utf8(output).unwrap();
        assert!(text.contains("\rr.example: 1 of 2 layers, 1.0 KiB of 2.0 KiB, "), "{text:?}");
        assert!(text.ends_with('\r') && !text.contains('\n'), "{text:?}");
    }

    #[test]
    fn a_line_is_narrower_than_its_terminal() {
        let mut output = Vec::new();
        let width = || Some(20);
        follow(&*events(done()), &mut Line { to: &mut output, width, began: Instant::now(), drawn: 0 }).unwrap();
        let text = String::from_utf8(output).unwrap();
        assert!(text.contains("\rr.example: 1 of 2..\r"), "{text:?}");
        assert!(text.split('\r').all(|part| part.chars().count() < 20), "{text:?}");
    }
}
