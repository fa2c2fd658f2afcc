//! state and list.

use std::io::Write as _;

use berth_runtime::spec::Status;
use serde_json::json;

use crate::arguments::{Format, List};
use crate::container::{Failure, status_name};
use crate::store::{Record, Store};

/// What runc prints of a container.
fn described(store: &Store, record: &Record) -> serde_json::Value {
    let status = store.status(record);
    let mut value = json!({
        "ociVersion": record.spec.oci_version,
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status_name(status),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": record.owner,
    });
    if let (Some(object), false) = (value.as_object_mut(), record.spec.annotations.is_empty()) {
        object.insert("annotations".to_owned(), json!(record.spec.annotations));
    }
    value
}

pub fn state(store: &Store, id: &str) -> Result<u8, Failure> {
    let record = store.load(id)?;
    let text = serde_json::to_string_pretty(&described(store, &record));
    println!("{}", text.map_err(|error| Failure::Json { what: "state".to_owned(), error })?);
    Ok(0)
}

pub fn list(store: &Store, options: &List) -> Result<u8, Failure> {
    let records = store.all();
    let mut out = std::io::stdout().lock();
    // A closed output leaves nobody to print for.
    let _ = match (options.quiet, options.format) {
        (true, _) => records.iter().try_for_each(|record| writeln!(out, "{}", record.id)),
        (false, Format::Json) => {
            let all: Vec<_> = records.iter().map(|record| described(store, record)).collect();
            writeln!(out, "{}", serde_json::Value::from(all))
        }
        (false, Format::Table) => write!(out, "{}", table(store, &records)),
    };
    Ok(0)
}

fn table(store: &Store, records: &[Record]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for record in records {
        let status = store.status(record);
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        rows.push([
            record.id.clone(),
            pid.to_string(),
            status_name(status).to_owned(),
            record.bundle.display().to_string(),
            record.created.clone(),
            record.owner.clone(),
        ]);
    }
    // At least twelve columns and three between, as runc has them.
    let width = |column: usize| {
        let longest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        longest.unwrap_or_default().max(9) + 3
    };
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut out = String::new();
    for row in &rows {
        for (position, cell) in row.iter().enumerate() {
            match widths.get(position) {
                Some(width) => out.push_str(&format!("{cell:<width$}")),
                None => out.push_str(cell),
            }
        }
        out.push('\n');
    }
    out
}
