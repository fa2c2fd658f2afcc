//! The commands by name. Each describes its own options, and only when it is the one that was asked for: describing
//! all of them is a tenth of the time that a whole container takes.

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Error, FromArgMatches, Subcommand};

use crate::arguments::{Create, Delete, Events, Exec, Id, Kill, List, Ps, Run, Spec, Unsupported, Update};

/// `features` has no options.
#[derive(Debug, Args)]
pub struct None {}

/// The enum of all commands, and how clap finds its way to each.
macro_rules! commands {
    ($($(#[doc = $about:literal])+ $name:literal => $variant:ident($options:ty),)+) => {
        /// What is to be done.
        #[derive(Debug)]
        pub enum Command {
            $($(#[doc = $about])+ $variant($options),)+
        }

        impl FromArgMatches for Command {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
                match matches.subcommand() {
                    $(Some(($name, matches)) => <$options>::from_arg_matches(matches).map(Self::$variant),)+
                    _ => Err(Error::new(ErrorKind::MissingSubcommand)),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl Subcommand for Command {
            fn augment_subcommands(command: clap::Command) -> clap::Command {
                command.subcommand_required(true).arg_required_else_help(true)
                    $(.subcommand(clap::Command::new($name).about(concat!($($about),+).trim_ascii_start()).args_override_self(true).defer(<$options>::augment_args)))+
            }

            fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
                Self::augment_subcommands(command)
            }

            fn has_subcommand(name: &str) -> bool {
                [$($name),+].contains(&name)
            }
        }
    };
}

commands! {
    /// Make a container, which waits for its start
    "create" => Create(Create),
    /// Run the program of a container that was created
    "start" => Start(Id),
    /// Create, start, wait and delete
    "run" => Run(Run),
    /// Send a signal to a container
    "kill" => Kill(Kill),
    /// Remove what is left of a container
    "delete" => Delete(Delete),
    /// Run a further program in a container
    "exec" => Exec(Exec),
    /// Print the state of a container as JSON
    "state" => State(Id),
    /// Print all containers
    "list" => List(List),
    /// Print the processes of a container
    "ps" => Ps(Ps),
    /// Stop all processes of a container for the time being
    "pause" => Pause(Id),
    /// Let them go on
    "resume" => Resume(Id),
    /// Change the limits of a container
    "update" => Update(Update),
    /// Print what a container uses
    "events" => Events(Events),
    /// Write a config.json to begin with
    "spec" => Spec(Spec),
    /// Print what this runtime can do as JSON
    "features" => Features(None),
    /// Refused: there is no checkpoint and restore
    "checkpoint" => Checkpoint(Unsupported),
    /// Refused: there is no checkpoint and restore
    "restore" => Restore(Unsupported),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use crate::arguments::Arguments;

    #[test]
    fn every_command_describes_its_options_well() {
        let mut command = Arguments::command();
        // Asks for the descriptions that were put off, and checks all of them.
        command.build();
        assert_eq!(command.get_subcommands().count(), 18, "with help");
        let run = command.find_subcommand("run").unwrap();
        assert!(run.get_arguments().any(|argument| argument.get_long() == Some("bundle")));
        assert_eq!(run.get_about().unwrap().to_string(), "Create, start, wait and delete");
    }
}
