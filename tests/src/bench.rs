//! What a case works with: the build's results, a folder of its own, and how to skip.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::{Image, Layer};
use crate::artifacts::Artifacts;
use crate::machine::{Builder, Cable, Nic};
use crate::runner::Tally;

/// How many lines of a console are shown when its case failed.
const SHOWN_LINES: usize = 40;

/// The folder of a case's second machine.
const NEIGHBOUR: &str = "neighbour";

/// The place of one case.
#[derive(Debug)]
pub struct Bench {
    artifacts: Artifacts,
    accelerator: &'static str,
    folder: PathBuf,
    notes: RefCell<Vec<String>>,
    counted: Cell<Tally>,
}

/// The error of a case that cannot be run here; it counts as skipped, not as failed.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Skipped {
    /// What is missing.
    pub reason: String,
}

/// The error that makes a case count as skipped.
#[must_use]
pub fn skip(reason: &str) -> anyhow::Error {
    Skipped { reason: reason.to_owned() }.into()
}

impl Bench {
    /// A place in `folder`, which must be empty.
    #[must_use]
    pub fn new(artifacts: &Artifacts, accelerator: &'static str, folder: &Path) -> Self {
        Self {
            artifacts: artifacts.clone(),
            accelerator,
            folder: folder.to_owned(),
            notes: RefCell::default(),
            counted: Cell::default(),
        }
    }

    /// A machine to describe and start.
    #[must_use]
    pub fn machine(&self) -> Builder {
        Builder::new(&self.artifacts, self.accelerator, &self.folder)
    }

    /// A second machine, to run beside the first.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn neighbour(&self) -> Result<Builder> {
        let folder = self.path(NEIGHBOUR);
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Builder::new(&self.artifacts, self.accelerator, &folder))
    }

    /// The two ends of a cable between two machines; `number` tells it from the case's others.
    #[must_use]
    pub fn wire(&self, number: u8) -> [Nic; 2] {
        let end = |near: u8, far: u8| {
            let [near_path, far_path] = [near, far].map(|end| self.path(&format!("wire{number}.{end}")));
            let cable = Cable::Wire { near: near_path, far: far_path };
            Nic { cable, mac: Some(format!("52:54:00:00:{near:02x}:{number:02x}")), ..Nic::default() }
        };
        [end(1, 2), end(2, 1)]
    }

    /// What the build left.
    #[must_use]
    pub fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// An image of busybox.
    ///
    /// # Errors
    /// If busybox cannot be read.
    pub fn image(&self, name: &str, command: &[&str]) -> Result<Image> {
        self.with_busybox(Image::new(name, command))
    }

    /// The image with busybox in it.
    ///
    /// # Errors
    /// If busybox cannot be read.
    pub fn with_busybox(&self, image: Image) -> Result<Image> {
        let program = &self.artifacts.busybox;
        let program = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
        Ok(image.layer(Layer::busybox(&program)))
    }

    /// An image of busybox whose shell runs `script`.
    ///
    /// # Errors
    /// If busybox cannot be read.
    pub fn shell_image(&self, name: &str, script: &str) -> Result<Image> {
        self.image(name, &["/bin/sh", "-c", script])
    }

    /// An image of busybox that serves `page` on port 80.
    ///
    /// # Errors
    /// If busybox cannot be read.
    pub fn web_image(&self, name: &str, page: &str) -> Result<Image> {
        let image = self.image(name, &["/bin/httpd", "-f", "-p", "80", "-h", "/www"])?;
        Ok(image.layer(Layer::new().folder("www").file("www/index.html", 0o644, page.as_bytes())))
    }

    /// A file of this case.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether processors are emulated, which makes everything some ten times slower.
    #[must_use]
    pub fn is_emulated(&self) -> bool {
        self.accelerator == "tcg"
    }

    /// Has a line shown below the case's own in the report.
    pub fn note(&self, text: &str) {
        self.notes.borrow_mut().push(text.to_owned());
    }

    /// The lines of [`Self::note`].
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    /// Adds cases that were run inside of this one to the sum.
    pub fn count(&self, tally: Tally) {
        let mut sum = self.counted.get();
        sum += tally;
        self.counted.set(sum);
    }

    /// The sum of [`Self::count`].
    #[must_use]
    pub fn counted(&self) -> Tally {
        self.counted.get()
    }

    /// The last lines of the console of this case's machines.
    #[must_use]
    pub fn console_tail(&self) -> String {
        let bytes = std::fs::read(self.path("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
        lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n")
    }

    /// Keeps the logs of a failed case in `to`.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
        let neighbours = ["console.log", "qemu.log"].map(|name| format!("{NEIGHBOUR}/{name}"));
        for name in ["console.log", "qemu.log", "cases.log"].into_iter().chain(neighbours.iter().map(String::as_str)) {
            let from = self.path(name);
            if from.exists() {
                std::fs::copy(&from, to.join(name.replace('/', "-"))).with_context(|| format!("keep {name}"))?;
            }
        }
        Ok(())
    }
}
