//! A tree of Debian's packages, unpacked by mmdebstrap from the sources that apt has on this host.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use berth_image_build::digest::Key;

use crate::bench::skip;

/// The release that the packages are of.
const RELEASE: &str = "bookworm";

/// No file is younger, so that the same packages give the same archive: seconds since 1970, November 2023.
const YOUNGEST: &str = "1700000000";

/// What no service needs: documentation, translations, perl (of maintainers' scripts), and PostgreSQL's compiler.
const EXCLUDED: [&str; 19] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/bash-completion/*",
    "/usr/share/perl*",
    "/usr/lib/*/perl*",
    "/usr/lib/*/libperl.so*",
    "/usr/bin/perl*",
    "/usr/lib/*/gconv/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3*",
    "/usr/lib/llvm*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
    "/usr/share/zoneinfo/right/*",
    "/usr/share/zoneinfo/posix/*",
];

/// Packages and all that they depend on.
pub struct Tree {
    /// Their names.
    pub packages: Vec<&'static str>,
}

impl Tree {
    /// Adds everything that the tree is made of.
    pub fn add_to(&self, key: Key) -> Key {
        key.part("packages", self.packages.join(" "))
            .part("release", RELEASE)
            .part("youngest", YOUNGEST)
            .part("excluded", EXCLUDED.join(" "))
    }

    /// The tree as a tar archive; `folder` is for files in between.
    pub fn build(&self, folder: &Path) -> Result<Vec<u8>> {
        let archive = folder.join("tree.tar");
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=extract"]);
        command.arg(format!("--include={}", self.packages.join(",")));
        command.args(EXCLUDED.map(|pattern| format!("--dpkgopt=path-exclude={pattern}")));
        command.arg(RELEASE).arg(&archive).args(sources());
        let made = command.env("SOURCE_DATE_EPOCH", YOUNGEST).stdin(Stdio::null()).output();
        let made = match made {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(skip("mmdebstrap is not installed"));
            }
            made => made.context("start mmdebstrap")?,
        };
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(skip(&format!("mmdebstrap cannot make {}: {last}", self.packages.join(" "))));
        }
        let bytes = std::fs::read(&archive).with_context(|| format!("read {}", archive.display()))?;
        std::fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        Ok(bytes)
    }
}

/// Debian's archives as apt has them here, in the form of sources.list(5), or none: then mmdebstrap takes its own.
fn sources() -> Vec<String> {
    let format = "$(ORIGIN) $(RELEASE) deb $(REPO_URI) $(RELEASE) $(COMPONENT)";
    let listed = Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output();
    let Ok(listed) = listed else { return Vec::new() };
    let wanted = format!("Debian {RELEASE}");
    let text = String::from_utf8_lossy(&listed.stdout);
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with(&wanted))
        .filter_map(|line| Some(format!("deb {}", line.split_once(" deb ")?.1)))
        .collect();
    lines.sort();
    lines.dedup();
    lines
}
