//! What a container is talked to by: the write end of its standard input, or its terminal. Both are new with every run,
//! and PID 1 keeps them, so that a client can go and another one come.

use std::os::fd::{AsFd, OwnedFd};

use berth_control::message::TerminalSize;
use berth_runtime::handover::Descriptor;
use berth_runtime::spec::{ConsoleSize, Process};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};

/// PID 1's ends.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Interaction {
    /// Closed when nothing more is to come.
    pub input: Option<Descriptor>,
    /// The terminal's master.
    pub terminal: Option<Descriptor>,
    /// Where the master arrives, until it has.
    console: Option<Descriptor>,
    /// Of the terminal, as a client last said.
    pub size: Option<TerminalSize>,
}

/// The container's ends.
#[derive(Debug, Default)]
pub struct Ends {
    /// The read end of its standard input.
    pub input: Option<OwnedFd>,
    /// What the runtime sends the master to.
    pub console: Option<OwnedFd>,
}

impl Interaction {
    /// For a run that begins.
    pub fn begin(&mut self, user: &berth_config::Container) -> Result<Ends, String> {
        self.end();
        let mut ends = Ends::default();
        if user.tty {
            let failed = |error: &dyn std::fmt::Display| format!("make a way for its terminal: {error}");
            let (ours, theirs) = berth_terminal::pair().map_err(|error| failed(&error))?;
            // The other end is the container's: what it does not send is not waited for.
            set_nonblocking(&ours).map_err(|error| failed(&error))?;
            self.console = Some(ours.into());
            ends.console = Some(theirs);
        } else if user.stdin_open {
            let failed = |error| format!("make its standard input: {error}");
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
            set_nonblocking(&writer).map_err(failed)?;
            self.input = Some(writer.into());
            ends.input = Some(reader);
        }
        Ok(ends)
    }

    /// The container is set up: its terminal, if it was to have one, has been sent.
    pub fn receive_terminal(&mut self) -> Result<(), String> {
        let Some(console) = self.console.take() else { return Ok(()) };
        match berth_terminal::receive(&console) {
            Ok(Some(master)) => {
                self.terminal = Some(master.into());
                Ok(())
            }
            Ok(None) => Err("its terminal did not come".to_owned()),
            Err(error) => Err(format!("receive its terminal: {error}")),
        }
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, size: TerminalSize) -> Result<(), String> {
        let terminal = self.terminal.as_ref().ok_or("it has no terminal, or does not run")?;
        berth_terminal::resize(terminal, (size.rows, size.columns))
            .map_err(|error| format!("resize its terminal: {error}"))?;
        self.size = Some(size);
        Ok(())
    }

    /// The run is over. What a client has is the client's.
    pub fn end(&mut self) {
        (self.input, self.terminal, self.console) = (None, None, None);
    }
}

/// Gives a process a terminal of this size.
pub fn with_terminal(process: &mut Process, size: Option<TerminalSize>) {
    process.terminal = true;
    process.console_size = size.map(|size| ConsoleSize { height: size.rows, width: size.columns });
    if !process.env.iter().any(|variable| variable.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
}

fn set_nonblocking(descriptor: impl AsFd) -> nix::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn container(text: &str) -> berth_config::Container {
        let text = format!("[containers.a]\nimage = \"a\"\n{text}");
        crate::supervisor::world::configuration(&text).containers.into_values().next().unwrap()
    }

    #[test]
    fn standard_input_is_open_until_it_is_closed() {
        let mut interaction = Interaction::default();
        let ends = interaction.begin(&container("stdin_open = true")).unwrap();
        let writer = interaction.input.take().unwrap();
        nix::unistd::write(&writer, b"word").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(ends.input.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "word");
        assert!(interaction.resize(TerminalSize::default()).unwrap_err().contains("no terminal"));
    }

    #[test]
    fn a_container_that_wants_nothing_has_nothing() {
        let mut interaction = Interaction::default();
        let ends = interaction.begin(&container("")).unwrap();
        assert!(ends.input.is_none() && ends.console.is_none() && interaction.input.is_none());
        assert_eq!(interaction.receive_terminal(), Ok(()));
    }

    #[test]
    fn a_terminal_that_does_not_come_is_not_waited_for() {
        let mut interaction = Interaction::default();
        let ends = interaction.begin(&container("tty = true")).unwrap();
        assert!(interaction.receive_terminal().unwrap_err().contains("terminal"));
        drop(ends);
    }
}
