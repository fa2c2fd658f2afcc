//! The flags of `berth run` and `berth create` about what a container may, as docker has them.

use berth_config::{CapabilityChoice, Seccomp, Security, UserNamespace};
use clap::Args;

/// What it may.
#[derive(Debug, Args)]
#[group(skip)] // it has the name of those that it is a part of
pub struct Arguments {
    /// A capability on top of the default ones
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<CapabilityChoice>,
    /// A capability to take away
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<CapabilityChoice>,
    /// Let it do all that the machine's root may: every capability and system call, without a user namespace; devices are
    /// named by --device all the same
    #[arg(long)]
    privileged: bool,
    /// What keeps it apart from the machine: seccomp=unconfined, no-new-privileges=false
    #[arg(long = "security-opt", value_name = "OPTION", value_parser = option)]
    options: Vec<Loosening>,
    /// Whose user IDs it has: host, the machine's; without it a range of its own
    #[arg(long, value_name = "WHOSE", value_parser = user_namespace)]
    userns: Option<UserNamespace>,
}

fn user_namespace(text: &str) -> Result<UserNamespace, String> {
    match text {
        "host" => Ok(UserNamespace::Host),
        "" | "private" | "auto" => Ok(UserNamespace::Auto),
        _ => Err("there is host; without --userns it has a range of user IDs of its own".to_owned()),
    }
}

/// What `--security-opt` takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loosening {
    /// Nothing: it is so already.
    Nothing,
    Seccomp,
    NewPrivileges,
}

fn option(text: &str) -> Result<Loosening, String> {
    match text.replacen(':', "=", 1).as_str() {
        "seccomp=unconfined" => Ok(Loosening::Seccomp),
        "no-new-privileges=false" => Ok(Loosening::NewPrivileges),
        "no-new-privileges" | "no-new-privileges=true" | "apparmor=unconfined" | "label=disable" => {
            Ok(Loosening::Nothing)
        }
        _ => Err(
            "there are seccomp=unconfined and no-new-privileges=false; Berth has one profile of its own, and neither \
                  AppArmor nor SELinux"
                .to_owned(),
        ),
    }
}

impl Arguments {
    /// The capabilities on top, and what keeps it apart.
    pub fn choice(self) -> (Vec<CapabilityChoice>, Security) {
        let (mut added, mut security) = (self.cap_add, Security::default());
        security.user_namespace = self.userns.unwrap_or_default();
        if self.privileged {
            added.push(CapabilityChoice::All);
            security.user_namespace = UserNamespace::Host;
        }
        if self.privileged || self.options.contains(&Loosening::Seccomp) {
            security.seccomp = Seccomp::Unconfined;
        }
        security.no_new_privileges = !(self.privileged || self.options.contains(&Loosening::NewPrivileges));
        (added, security)
    }
}
