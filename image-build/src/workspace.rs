//! Where things lie: the repository, `out/` in it, and the build cache outside of it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;

/// The repository that the command was called in.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The folder with the workspace's Cargo.toml.
    pub root: PathBuf,
    /// What earlier builds of the same inputs made.
    pub cache: Cache,
    /// Where cargo puts what it builds for the image.
    pub target: PathBuf,
}

impl Workspace {
    /// Finds the repository from the current folder upwards, and the cache from the environment.
    ///
    /// # Errors
    /// If no folder above is the repository, or the home folder is unknown.
    pub fn find() -> Result<Self> {
        let start = env::current_dir().context("current folder")?;
        let root = start.ancestors().find(|folder| folder.join("kernel-config/base.config").is_file());
        let Some(root) = root else { bail!("{} is not inside a checkout of Berth", start.display()) };
        let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        Ok(Self { root: root.to_owned(), cache: Cache::from_environment()?, target })
    }

    /// The folder of results, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn out(&self) -> Result<PathBuf> {
        let out = self.root.join("out");
        fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
        Ok(out)
    }

    /// The version of the workspace's crates, which is the image's.
    pub fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

/// The path relative to the repository if it is inside, for messages.
pub fn shown<'a>(workspace: &Workspace, path: &'a Path) -> std::path::Display<'a> {
    path.strip_prefix(&workspace.root).unwrap_or(path).display()
}
