//! The engine: images, snapshots and volumes.
//!
//! - [`archive`] reads image archives, [`tar`] and [`compression`] are what they are made of
//! - [`layer`] unpacks a layer into a directory, [`merged`] looks into a stack of them
//! - `store` keeps images on the state partition
pub mod accounts;
pub mod archive;
pub mod compression;
mod copy;
pub mod digest;
pub mod import;
pub mod layer;
pub mod limits;
pub mod merged;
pub mod oci;
pub mod prepare;
pub mod process;
pub mod reference;
mod removal;
pub mod section;
pub mod snapshot;
pub mod store;
pub mod tar;
pub mod volumes;
