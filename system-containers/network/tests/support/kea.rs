//! ISC's Kea, a DHCP server of another kind than dnsmasq.

use std::fs;
use std::path::Path;

use super::{Namespace, Program, eventually};

/// Starts `kea-dhcp4` or `kea-dhcp6` on the link `lan0` with further settings. Its files are in `folder`.
pub fn serve(namespace: &Namespace, folder: &Path, family: u8, settings: &str) -> Program {
    let (program, path, place) = (format!("kea-dhcp{family}"), folder.join("kea.json"), folder.display());
    let text = format!(
        r#"{{ "Dhcp{family}": {{
            "interfaces-config": {{ "interfaces": ["lan0"] }},
            "lease-database": {{ "type": "memfile", "persist": false }},
            {settings},
            "loggers": [ {{ "name": "{program}", "severity": "INFO",
                "output_options": [ {{ "output": "{place}/kea.log" }} ] }} ]
        }} }}"#
    );
    fs::write(&path, text).unwrap();
    let running = namespace.start(&[
        "env",
        &format!("KEA_PIDFILE_DIR={place}"),
        &format!("KEA_LOCKFILE_DIR={place}"),
        &program,
        "-c",
        &path.display().to_string(),
    ]);
    eventually("kea is up", || log(folder).contains(&format!("DHCP{family}_STARTED")).then_some(()));
    running
}

/// What it has said.
pub fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("kea.log")).unwrap_or_default()
}
