//! A health check is of one kind or its image's, and no busy loop.

use super::ContainerCheck;
use crate::container::{Health, NetworkMode};
use crate::load::Report;
use crate::quantities::TimeSpan;

/// The shortest times, in milliseconds: a check costs a process or a connection.
const SHORTEST: u128 = 100;

pub(super) fn check(container: &ContainerCheck, report: &mut Report) {
    let Some(health) = &container.container.health else { return };
    let path = container.path().key("health");
    let kinds = [health.exec.is_some(), health.http.is_some(), health.tcp.is_some()];
    if kinds.into_iter().filter(|is| *is).count() > 1 {
        let message = "a health check is one of `exec`, `http` and `tcp`".to_owned();
        container.report(report, &path, message, "leave out all but one; without any the image's counts");
    }
    if *health == Health::default() && !report.has_mistake_below(&path) {
        let message = "the health check says nothing".to_owned();
        container.report(report, &path, message, "for example http = \"http://127.0.0.1:80/\"");
    }
    if health.exec.as_ref().is_some_and(|command| command.words().is_empty()) {
        container.report(report, &path.clone().key("exec"), "there is no program".to_owned(), "name one");
    }
    let times = [("interval", health.interval), ("timeout", health.timeout), ("start_interval", health.start_interval)];
    for (key, time) in times {
        if time.is_some_and(|time: TimeSpan| time.duration().as_millis() < SHORTEST) {
            let message = format!("less than {SHORTEST} ms would keep the machine busy with checks");
            container.report(report, &path.clone().key(key), message, "give it more time");
        }
    }
    let by_network = health.http.is_some() || health.tcp.is_some();
    if by_network && container.container.network_mode == NetworkMode::None {
        // Loopback is there, so this can be meant.
        let local = |address: std::net::SocketAddr| address.ip().is_loopback();
        let http = health.http.as_ref().is_none_or(|target| local(target.address()));
        let tcp = health.tcp.is_none_or(|target| local(target.address()));
        if !(http && tcp) {
            let message = "the container has no network but its own loopback".to_owned();
            container.report(report, &path, message, "check 127.0.0.1 or [::1]");
        }
    }
}
