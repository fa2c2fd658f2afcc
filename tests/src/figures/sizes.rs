//! What has to be downloaded and stored.

use std::fs::File;
use std::io::{self, Write};

use anyhow::{Context, Result};

use super::{Figure, mebibytes};
use crate::artifacts::Artifacts;

/// Kernel, root and compressed disk image.
///
/// # Errors
/// If a file cannot be read.
pub fn measure(artifacts: &Artifacts) -> Result<Vec<Figure>> {
    let length = |path: &std::path::Path| -> Result<u64> {
        Ok(path.metadata().with_context(|| format!("stat {}", path.display()))?.len())
    };
    let root = artifacts.out.join("rootfs.erofs");
    let mut counted = Count(0);
    let mut encoder = zstd::Encoder::new(&mut counted, 19)?;
    io::copy(&mut File::open(&artifacts.disk)?, &mut encoder).context("compress the disk image")?;
    encoder.finish()?;
    let kernel = length(&artifacts.kernel)?;
    Ok(vec![
        Figure::new("kernel", format!("{:.2} MB", kernel as f64 / 1e6)).at_most(7.0),
        Figure::new("root file system", mebibytes(length(&root)?)).at_most(6.0),
        Figure::new("disk image, zstd -19", mebibytes(counted.0)).at_most(12.0),
    ])
}

/// Counts what is written to it.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
