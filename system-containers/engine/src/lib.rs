//! The engine: images, snapshots and volumes.
//!
//! - [`service`] is the loop that serves PID 1; [`importer`] and a second thread do what takes time
//! - [`archive`] reads image archives; [`tar`], [`compression`] and [`section`] are what they are made of
//! - [`layer`] makes an image of a layer, which [`erofs`] writes and reads; [`merged`] looks into a stack of them without
//!   mounting it
//! - [`store`] keeps images on the state partition, [`import`] brings an archive's images into it, [`room`] is what they
//!   leave free
//! - [`registry`] and [`pull`] bring what registries have, as far as [`trust`] takes it
//! - [`prepare`] makes of an image and a container's definition what PID 1 runs: [`process`], [`accounts`],
//!   [`volumes`], [`snapshot`]
//!
//! [`export`] makes archives of what the store has.
//!
//! What comes from outside is believed only after its digest is verified, and never more than [`limits`] allow.

pub mod accounts;
mod answers;
pub mod archive;
mod attended;
mod buffered;
pub mod clients;
pub mod commands;
pub mod compression;
mod copy;
pub mod digest;
pub mod document;
pub mod erofs;
pub mod export;
pub mod import;
pub mod importer;
pub mod intake;
pub mod layer;
pub mod limits;
pub mod memory;
pub mod merged;
mod missing;
pub mod oci;
mod pipeline;
pub mod platform;
pub mod prepare;
pub mod process;
pub mod pull;
pub mod quota;
pub mod reference;
pub mod registry;
mod removal;
pub mod room;
pub mod section;
pub mod service;
pub mod snapshot;
pub mod store;
mod sys;
pub mod tar;
mod tool;
pub mod trust;
pub mod verity;
pub mod volumes;
pub mod wanted;

use std::path::PathBuf;
use std::process::ExitCode;

use berth_control::channel::Channel;

/// The program `berth-engine`: serves PID 1; with arguments, one command of the tool.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.is_empty() {
        return tool::run(&arguments);
    }
    let state = PathBuf::from("/var/lib/berth");
    let user_data = PathBuf::from("/run/berth/user-data");
    // Without /proc every start counts as the same boot, and images without a name stay.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let paths = service::Paths {
        socket: berth_control::images::SOCKET_PATH.into(),
        patience: registry::Patience::default(),
        looks: service::Looks::default(),
        boot: boot.trim().to_owned(),
        images: state.join("images"),
        archives: user_data.join("images"),
        folders: prepare::Folders {
            containers: state.join("containers"),
            places: volumes::Places { volumes: state.join("volumes"), user_data },
        },
    };
    let served =
        Channel::inherited().map_err(service::ServiceError::from).and_then(|channel| service::run(channel, paths));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engine: {}", import::describe(&error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_of_the_container_is_sound() {
        let text = include_str!("../container.toml");
        let definition: berth_config::SystemContainer = toml::from_str(text).unwrap();
        assert_eq!(definition.role, Some(berth_config::Role::Engine));
    }
}
