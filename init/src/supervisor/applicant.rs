//! Who waits for an answer, and how it gets there.
//!
//! Some answers come much later than their questions: that of a removal when the engine has removed everything. A system
//! container that was started anew meanwhile counts its requests from the beginning again, so an answer goes only over the
//! channel that its question came over.

use std::os::fd::{AsFd, BorrowedFd};

use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{FromInit, Reply};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::container::Container;
use super::peer::Peer;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applicant {
    /// The system container.
    container: u32,
    /// Which of its channels the request came over: see [`Container::channels`].
    #[serde(default)]
    channel: u32,
    /// The request's number.
    id: u64,
}

impl Supervisor {
    /// Who has sent the request with this number.
    pub fn applicant(&self, container: u32, id: u64) -> Applicant {
        let channel = self.containers.get(container).map_or(0, |container| container.channels);
        Applicant { container, channel, id }
    }

    /// Sends an answer.
    pub fn reply_to(&mut self, applicant: Applicant, reply: Reply) {
        self.answer_over_channel(applicant, reply, None);
    }

    /// Says no.
    pub fn refuse(&mut self, applicant: Applicant, reason: String) {
        self.reply_to(applicant, Reply::Refused { reason });
    }

    /// Answers with a descriptor, if there is one, or says no.
    pub(crate) fn hand_over(&mut self, applicant: Applicant, descriptor: Result<Option<impl AsFd>, String>) {
        match descriptor {
            Ok(descriptor) => {
                self.answer_over_channel(applicant, Reply::Done, descriptor.as_ref().map(AsFd::as_fd));
            }
            Err(reason) => self.refuse(applicant, reason),
        }
    }

    fn answer_over_channel(&mut self, applicant: Applicant, reply: Reply, descriptor: Option<BorrowedFd<'_>>) {
        let Applicant { container, channel, id } = applicant;
        if self.containers.get(container).is_some_and(|container| container.channels == channel) {
            let descriptors: Vec<_> = descriptor.into_iter().collect();
            self.send(container, FromInit::Reply { id, reply }, &descriptors);
        }
    }
}

impl Container {
    /// Gives it a channel in place of the last one; its program's end.
    pub(super) fn open_channel(&mut self) -> Result<Channel, ChannelError> {
        let (ours, theirs) = Channel::pair()?;
        self.peer = Some(Peer::new(ours));
        self.channels = self.channels.wrapping_add(1);
        Ok(theirs)
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::{Interest, Request};

    use super::super::made_tests::{once, run, world};
    use super::*;

    #[test]
    fn an_answer_that_a_program_waited_for_is_not_its_successors() {
        let mut world = world("");
        world.supervisor.find_mut("engine").unwrap().ready = true;
        let _session = run(&mut world, once("job"), Interest::State);
        world.prepare("job");
        world.run("job");
        let removal = Request::Remove { name: "job".into(), force: true, volumes: false };
        world.send(removal.clone());
        world.restart_control();
        world.end("job", 137);
        world.ask_as_engine(Request::Forgotten { name: "job".into() });
        assert_eq!(world.answers(), [], "the next program has asked for nothing yet");
        world.send(removal);
        assert!(matches!(&world.answers()[..], [Reply::Refused { reason }] if reason.contains("no container job")));
    }
}
