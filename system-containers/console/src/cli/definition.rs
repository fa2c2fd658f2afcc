//! What the API tells of a container's definition beside the list: its labels, networks and volumes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::Error;

/// Where volumes lie on the machine.
const VOLUMES: &str = "/var/lib/berth/volumes/";

/// What the list does not tell of a container.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// The image's, and its own.
    pub labels: BTreeMap<String, String>,
    /// By name; its network mode where that is another than `bridge`.
    pub networks: Vec<String>,
    /// By their names or paths, and where they appear.
    pub volumes: Vec<String>,
}

impl Details {
    /// From the answer to `Definition`.
    pub fn of(answer: &str) -> Result<Self, Error> {
        let told = read(answer)?;
        let (definition, prepared) = (&told["definition"], &told["prepared"]);
        // The container's own after the image's, which they replace.
        let labels = [prepared, definition].into_iter().filter_map(|from| from["labels"].as_object()).flatten();
        let declared = definition["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mounts = prepared["mounts"].as_array().into_iter().flatten();
        let mounted = mounts.flat_map(|mount| [&mount["source"], &mount["destination"]]).filter_map(Value::as_str);
        let volumes = declared.flat_map(|volume| volume.split(':').take(2)).chain(mounted);
        Ok(Self {
            labels: labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
            networks: networks(definition),
            volumes: volumes.map(name).collect(),
        })
    }
}

/// Of a volume, by where it lies; of anything else what it is.
fn name(path: &str) -> String {
    let below = path.strip_prefix(VOLUMES).and_then(|rest| rest.split('/').next());
    below.unwrap_or(path).to_owned()
}

/// The answer to `Definition`.
pub fn read(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|error| Error::Refused(format!("PID 1 tells a definition that is none: {error}")))
}

/// The networks that a definition names; its network mode where that is another than `bridge`.
pub fn networks(definition: &Value) -> Vec<String> {
    if let Some(mode) = definition["network_mode"].as_str().filter(|mode| *mode != "bridge") {
        return vec![mode.to_owned()];
    }
    match &definition["networks"] {
        Value::Object(table) => table.keys().cloned().collect(),
        Value::Array(list) => list.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
        // What Berth's own have is not said there.
        _ if definition["image"].is_null() => Vec::new(),
        _ => vec!["default".to_owned()],
    }
}
