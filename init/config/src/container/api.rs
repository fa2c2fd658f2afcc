//! Parts of the control API, for containers that get its socket.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::text::text_value;

/// A part of the control API, as a configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names in the table say it, and docs/configuration.md what each has")]
pub enum ApiPart {
    MachineDescribe,
    MachineTimeline,
    MachineConfiguration,
    MachineApply,
    MachinePower,
    MachineReexecute,
    ContainersList,
    ContainersStatistics,
    ContainersWhy,
    ContainersLogs,
    ContainersStart,
    ContainersStop,
    ContainersRestart,
    ContainersKill,
    ContainersPause,
    ContainersResize,
    ContainersExecute,
    ContainersAttach,
    ContainersCreate,
    ContainersRemove,
    ImagesExport,
    ImagesImport,
    ImagesList,
    ImagesLogin,
    ImagesPull,
    ImagesPrune,
    ImagesRemove,
    VolumesList,
    VolumesChange,
    Events,
}

const NAMES: [(ApiPart, &str); 30] = [
    (ApiPart::MachineDescribe, "machine.describe"),
    (ApiPart::MachineTimeline, "machine.timeline"),
    (ApiPart::MachineConfiguration, "machine.configuration"),
    (ApiPart::MachineApply, "machine.apply"),
    (ApiPart::MachinePower, "machine.power"),
    (ApiPart::MachineReexecute, "machine.reexecute"),
    (ApiPart::ContainersList, "containers.list"),
    (ApiPart::ContainersStatistics, "containers.statistics"),
    (ApiPart::ContainersWhy, "containers.why"),
    (ApiPart::ContainersLogs, "containers.logs"),
    (ApiPart::ContainersStart, "containers.start"),
    (ApiPart::ContainersStop, "containers.stop"),
    (ApiPart::ContainersRestart, "containers.restart"),
    (ApiPart::ContainersKill, "containers.kill"),
    (ApiPart::ContainersPause, "containers.pause"),
    (ApiPart::ContainersResize, "containers.resize"),
    (ApiPart::ContainersExecute, "containers.execute"),
    (ApiPart::ContainersAttach, "containers.attach"),
    (ApiPart::ContainersCreate, "containers.create"),
    (ApiPart::ContainersRemove, "containers.remove"),
    (ApiPart::ImagesExport, "images.export"),
    (ApiPart::ImagesImport, "images.import"),
    (ApiPart::ImagesList, "images.list"),
    (ApiPart::ImagesLogin, "images.login"),
    (ApiPart::ImagesPull, "images.pull"),
    (ApiPart::ImagesPrune, "images.prune"),
    (ApiPart::ImagesRemove, "images.remove"),
    (ApiPart::VolumesList, "volumes.list"),
    (ApiPart::VolumesChange, "volumes.change"),
    (ApiPart::Events, "events"),
];

text_value!(ApiPart, "a part of the control API, such as \"containers.list\"");

/// No part of the control API.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the control API has no part {name:?}; its parts are {}", list())]
pub struct ApiPartError {
    name: String,
}

fn list() -> String {
    NAMES.map(|(_, name)| name).join(", ")
}

impl FromStr for ApiPart {
    type Err = ApiPartError;

    fn from_str(text: &str) -> Result<Self, ApiPartError> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(part, _)| *part).ok_or_else(|| ApiPartError { name: text.to_owned() })
    }
}

impl fmt::Display for ApiPart {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let found = NAMES.iter().find(|(part, _)| part == self);
        formatter.write_str(found.map_or("", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_read_as_it_is_shown() {
        for (number, (part, name)) in NAMES.iter().enumerate() {
            // The table has each of them, in the order of the type.
            assert_eq!(*part as usize, number);
            assert_eq!((part.to_string().as_str(), name.parse()), (*name, Ok(*part)));
        }
        assert_eq!(ApiPart::Events as usize + 1, NAMES.len());
        let error = "containers".parse::<ApiPart>().unwrap_err().to_string();
        assert!(error.contains("containers.list"), "{error}");
    }
}
