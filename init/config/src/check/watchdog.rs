//! `watchdog`: a time that every driver takes.

use crate::configuration::Watchdog;
use crate::load::Report;
use crate::tree::{Node, Path};

pub(super) fn check(watchdog: &Watchdog, root: &Node, report: &mut Report) {
    if !Watchdog::TIMEOUTS.contains(&watchdog.timeout) {
        let (least, most) = (Watchdog::TIMEOUTS.start(), Watchdog::TIMEOUTS.end());
        let path = Path::default().key("watchdog").key("timeout");
        let message = format!("{} is no time-out of a watchdog", watchdog.timeout);
        report.add(report.about(root, &path, message).help(format!("{least} to {most} are possible")));
    }
}
