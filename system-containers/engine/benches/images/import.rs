//! Importing an archive of 1 GB, beside decompressing its layers into one file, or copying it where nothing is
//! compressed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::job;
use crate::made::{self, Content, Method};
use crate::measure::{Bar, ROUNDS, fresh, median, ratio, run, seconds};

/// Layers, and the bytes of each: 1 GB in all.
const LAYERS: usize = 4;
/// Files of a layer.
const FILES: usize = 8;
/// The bytes of a file, at most; three quarters on average.
const FILE_BYTES: usize = 42_000_000;

/// Prints the table's part.
pub fn measure(folder: &Path) -> Result<()> {
    let mut content = Content::new(3);
    let layers: Vec<Vec<u8>> =
        (0..LAYERS).map(|layer| made::layer(&mut content, &format!("srv{layer}"), FILES, FILE_BYTES)).collect();
    let bytes: usize = layers.iter().map(Vec::len).sum();
    let methods = [(Method::Gzip, "gzip"), (Method::Zstd, "zstd"), (Method::Plain, "nothing")];
    for (method, name) in methods {
        let made = made::image(&fresh(folder, "made")?, method, &layers)?;
        let archive = folder.join("archive.tar");
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&made.folder).arg("."))?;
        let archive = archive.to_str().context("a path")?;
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let target = fresh(folder, "plain")?.join("copy");
            let target = target.to_str().context("a path")?;
            let mut words = vec!["copy", target];
            for layer in &made.layers {
                words.push(layer.to_str().context("a path")?);
            }
            plain.push(run(&mut job::command(&words)?)?.0);
            std::fs::remove_file(target)?;
            let state = fresh(folder, "state")?;
            ours.push(run(&mut job::command(&["import", state.to_str().context("a path")?, archive])?)?.0);
        }
        let (ours, plain) = (median(&ours), median(&plain));
        println!("import of an archive of {:.2} GB, its layers compressed by {name}:", bytes as f64 / 1e9);
        seconds("  import", ours);
        if let (Some(ours), Some(plain)) = (ours, plain) {
            ratio("  rate of plain decompression and copy", Some(plain), Some(ours), Bar::AtLeast(0.8));
        }
    }
    Ok(())
}
