//! What clients want of the power.

use berth_control::message::{PowerAction, Reply};

use super::Machine;
use crate::shutdown::Shutdown;
use crate::supervisor::Applicant;

impl Machine {
    /// A client wants to leave this boot. Who wants it otherwise than it is left already is told so.
    pub(super) fn power(&mut self, applicant: Applicant, action: PowerAction) {
        match self.facts.shutdown.as_ref().map(Shutdown::action).filter(|under_way| *under_way != action) {
            Some(under_way) => {
                let (under_way, wanted) = (under_way.name(), action.name());
                let reason = format!("the machine goes down already, to {under_way}: it is too late to {wanted}");
                self.supervisor.refuse(applicant, reason);
            }
            None => {
                self.supervisor.reply_to(applicant, Reply::Done);
                self.go_down(action, "a client of the control API");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_control::message::{FromInit, Request, ToInit};

    use super::*;
    use crate::supervisor::world::service;

    #[test]
    fn who_wants_the_machine_to_go_down_otherwise_than_it_does_is_told_so() {
        let mut machine = Machine::new().unwrap();
        let (id, channel) = service(&mut machine.supervisor, "control");
        let mut ask = |action| {
            channel.send(&ToInit { id: 7, request: Request::Power(action) }, &[]).unwrap();
            machine.supervisor.message(id).into_iter().for_each(|outcome| machine.carry_out(outcome));
            let replies = std::iter::from_fn(|| channel.receive::<FromInit>().ok());
            let replies = replies.filter_map(|(message, _)| match message {
                FromInit::Reply { reply, .. } => Some(reply),
                FromInit::Notice(_) => None,
            });
            replies.collect::<Vec<_>>()
        };
        assert_eq!(ask(PowerAction::Reboot), [Reply::Done]);
        assert_eq!(ask(PowerAction::Reboot), [Reply::Done]);
        let reason = "the machine goes down already, to reboot: it is too late to power off".to_owned();
        assert_eq!(ask(PowerAction::PowerOff), [Reply::Refused { reason }]);
        assert_eq!(machine.facts.shutdown.as_ref().map(Shutdown::action), Some(PowerAction::Reboot));
    }
}
