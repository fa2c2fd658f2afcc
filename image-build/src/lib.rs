//! From sources to `out/berth.img`: kernel, userland, root file system, disk, and the demo that `make run` boots.
//!
//! Every result is a function of its inputs: no clock, no random number, no order of a directory gets into a file.
//! Nothing here needs root, a loop device or a mount. Steps that take long keep their results in the build cache under a
//! key made of everything that went in.

pub mod cache;
pub mod command;
pub mod demo;
pub mod dependencies;
pub mod digest;
pub mod disk;
mod erofs;
pub mod fat;
pub mod grub;
pub mod image;
pub mod kernel;
pub mod manifest;
pub mod program;
pub mod qemu;
pub mod root;
pub mod source;
pub mod user_data;
pub mod userland;
pub mod workspace;
