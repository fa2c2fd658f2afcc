//! Another program in PID 1's place, without a reboot: `berth reexec --program`.
//!
//! What is executed is a copy in memory, so that no file system stays in use because of it. Before PID 1 gives itself up
//! for a program, that program must have said, as an ordinary process, that it takes over what this one leaves behind.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::alarm;

use super::Machine;
use super::work::Work;
use crate::handover;
use crate::supervisor::Applicant;
use crate::task::Task;

/// Of a program, in bytes: several times Berth's own.
const LARGEST: u64 = 64 << 20;

/// How long all of it may take, in seconds.
const PATIENCE: u32 = 20;

impl Machine {
    /// Looks at a program that is to take PID 1's place.
    pub(super) fn look_at_program(&mut self, applicant: Applicant, program: OwnedFd) {
        let failed = |error: nix::Error| format!("make a file for the program: {error}");
        let copy = match memfd_create("berth", MFdFlags::MFD_CLOEXEC) {
            Ok(copy) => copy,
            Err(error) => return self.supervisor.refuse(applicant, failed(error)),
        };
        let target = match copy.try_clone() {
            Ok(target) => target,
            Err(error) => return self.supervisor.refuse(applicant, format!("make a file for the program: {error}")),
        };
        let look = move || {
            // SIGALRM ends the task, which is an error of its own.
            alarm::set(PATIENCE);
            copy_over(File::from(program), File::from(target)).and_then(|copy| try_out(&copy))
        };
        let started = self.start_task_for_client(|| {
            Task::start(look).map(|task| Work::Program { task, applicant, program: copy.into() })
        });
        if let Err(reason) = started {
            self.supervisor.refuse(applicant, format!("look at the program: {reason}"));
        }
    }

    /// It takes over, or it does not.
    pub(super) fn program_looked_at(&mut self, applicant: Applicant, program: OwnedFd, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.program = Some(program);
                self.facts.reexecution.push(applicant);
            }
            Err(reason) => self.supervisor.refuse(applicant, reason),
        }
    }
}

fn copy_over(program: File, mut copy: File) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("read the program: {error}");
    let mut program = program.take(LARGEST + 1);
    // The client may have read from it already.
    program.get_mut().rewind().map_err(failed)?;
    match std::io::copy(&mut program, &mut copy) {
        Ok(length) if length > LARGEST => Err(format!("the program is longer than {LARGEST} bytes")),
        Ok(_) => copy.flush().map(|()| copy).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Asks the program what it takes over.
fn try_out(program: &File) -> Result<(), String> {
    // Open in the program too: of a script, its interpreter is told this path.
    fcntl(program, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| format!("pass the program on: {error}"))?;
    let path = format!("/proc/self/fd/{}", program.as_fd().as_raw_fd());
    let mut command = Command::new(&path);
    command.arg0("init").arg(handover::ASK).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().map_err(|error| format!("the program cannot be executed: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().strip_prefix(handover::ANSWER).and_then(|format| format.trim().parse::<u32>().ok()) {
        Some(handover::FORMAT) => Ok(()),
        Some(other) => Err(format!(
            "the program takes over format {other}, and PID 1 leaves format {}: start the machine again to change to it",
            handover::FORMAT
        )),
        None => Err("the program is no PID 1 of Berth's".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(program: &[u8]) -> Result<(), String> {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(program).unwrap();
        let copy = memfd_create("berth", MFdFlags::MFD_CLOEXEC).unwrap();
        copy_over(source, File::from(copy)).and_then(|copy| try_out(&copy))
    }

    #[test]
    fn only_a_program_that_takes_over_what_this_one_leaves_is_taken() {
        let script = |format: u32| {
            format!("#!/bin/sh\n[ \"$1\" = {} ] && echo '{} {format}'\n", handover::ASK, handover::ANSWER)
        };
        assert_eq!(tried(script(handover::FORMAT).as_bytes()), Ok(()));
        assert!(tried(script(handover::FORMAT + 1).as_bytes()).unwrap_err().contains("start the machine again"));
        assert!(tried(b"#!/bin/sh\necho hello\n").unwrap_err().contains("no PID 1 of Berth's"));
        assert!(tried(b"no program").unwrap_err().contains("cannot be executed"));
    }
}
