//! The bundles: what `berth-oci spec` writes, for a static `true`, in four variants.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::stage::BUNDLES;

/// A bundle by its name, and what is special about it.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub name: &'static str,
    user_namespace: bool,
    seccomp: bool,
}

/// The plain one first.
pub const VARIANTS: &[Variant] = &[
    Variant { name: "plain", user_namespace: false, seccomp: false },
    Variant { name: "seccomp", user_namespace: false, seccomp: true },
    Variant { name: "user namespace", user_namespace: true, seccomp: false },
    Variant { name: "user namespace, seccomp", user_namespace: true, seccomp: true },
];

/// The first id on the host of the variants with a user namespace.
const FIRST_ID: u32 = 100_000;

impl Variant {
    /// On the stage.
    pub fn path(&self) -> PathBuf {
        Path::new(BUNDLES).join(self.name)
    }
}

/// Writes all variants below `folder`.
pub fn write_all(folder: &Path) -> Result<()> {
    std::fs::create_dir(folder)?;
    let program = folder.join("true");
    let source = folder.join("true.c");
    std::fs::write(&source, "int main(void) { return 0; }\n")?;
    let compiled = Command::new("cc").args(["-static", "-O2", "-o"]).arg(&program).arg(&source).status()?;
    if !compiled.success() {
        return Err(Error::other("cc cannot make a static program"));
    }
    let text = specimen(folder)?;
    for variant in VARIANTS {
        let directory = folder.join(variant.name);
        let bin = directory.join("rootfs/bin");
        std::fs::create_dir_all(&bin)?;
        std::fs::copy(&program, bin.join("true"))?;
        if variant.user_namespace {
            for owned in [&directory.join("rootfs"), &bin] {
                std::os::unix::fs::chown(owned, Some(FIRST_ID), Some(FIRST_ID))?;
            }
        }
        std::fs::write(directory.join("config.json"), configuration(&text, *variant)?.to_string())?;
    }
    Ok(())
}

/// What the command under test offers to begin with.
fn specimen(folder: &Path) -> Result<Vec<u8>> {
    let written = Command::new(env!("CARGO_BIN_EXE_berth-oci")).arg("spec").arg("--bundle").arg(folder).status()?;
    if !written.success() {
        return Err(Error::other("berth-oci spec has failed"));
    }
    std::fs::read(folder.join("config.json"))
}

fn configuration(text: &[u8], variant: Variant) -> Result<Value> {
    let mut value: Value = serde_json::from_slice(text)?;
    value["process"]["args"] = json!(["/bin/true"]);
    value["process"]["terminal"] = json!(false);
    if variant.user_namespace {
        let mapping = json!([{ "containerID": 0, "hostID": FIRST_ID, "size": 65_536 }]);
        value["linux"]["uidMappings"] = mapping.clone();
        value["linux"]["gidMappings"] = mapping;
        if let Some(namespaces) = value["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "user" }));
        }
    }
    if variant.seccomp {
        let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"].map(String::from);
        value["linux"]["seccomp"] = serde_json::to_value(berth_runtime::seccomp::default_profile(&capabilities))?;
    }
    Ok(value)
}
