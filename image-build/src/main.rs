//! The command line of the image builder; the Makefile's rules call it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use berth_image_build::workspace::{Workspace, shown};
use berth_image_build::{demo, dependencies, image, kernel, qemu, user_data, userland};
use clap::{Parser, Subcommand};

/// Builds the kernel, the root file system and the disk image of Berth, and runs it.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the kernel, or find it in the cache
    Kernel,
    /// Build busybox and e2fsprogs, or find them in the cache
    Userland,
    /// Build everything into out/berth.img
    Image,
    /// Make the demo's user-data disk, out/demo.img
    Demo,
    /// Make a FAT image labelled BERTH-DATA from a folder
    UserData {
        /// The folder whose content it holds
        folder: PathBuf,
        /// The image to write
        #[arg(long, short)]
        output: PathBuf,
        /// The volume's label
        #[arg(long, default_value = user_data::LABEL)]
        label: String,
    },
    /// Build what is needed and boot the demo in QEMU
    Run,
    /// Build the image again in empty folders and compare the bytes
    Reproducible {
        /// Compile the kernel again as well
        #[arg(long)]
        kernel: bool,
    },
    /// Check the linked crates against deny.toml
    Dependencies,
    /// Say whether this machine's KVM boots the kernel: prints `kvm` or `tcg`
    Accelerator,
}

fn main() -> ExitCode {
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act() -> Result<()> {
    let action = CommandLine::parse().action;
    let workspace = Workspace::find()?;
    match action {
        Action::Kernel => {
            let kernel = kernel::build(&workspace)?;
            kernel.copy_to(&workspace.out()?)?;
            println!("{}", kernel.image.display());
        }
        Action::Userland => {
            let userland = userland::build(&workspace)?;
            println!("{}\n{}", userland.busybox.display(), userland.e2fsprogs.display());
        }
        Action::Image => drop(image::build(&workspace, &workspace.out()?)?),
        Action::Demo => println!("{}", shown(&workspace, &demo::build(&workspace)?)),
        Action::UserData { folder, output, label } => user_data::build(&folder, &label, &output)?,
        Action::Run => qemu::run(&workspace)?,
        Action::Dependencies => dependencies::check(&workspace)?,
        Action::Reproducible { kernel } => image::check_reproducible(&workspace, kernel)?,
        Action::Accelerator => println!("{}", qemu::accelerator(&workspace)?),
    }
    Ok(())
}
