//! `depends_on`: every name leads to a container, and none leads back to where it started.

use std::collections::BTreeSet;

use super::cycles::{Step, cycles, shown};
use super::{SYSTEM_CONTAINERS, container_path};
use crate::configuration::Configuration;
use crate::container::{Container, Dependencies, DependencyCondition, RestartPolicy};
use crate::load::Report;
use crate::names::ContainerName;
use crate::suggestion::nearest;
use crate::tree::{Node, Path};

pub(super) fn check(configuration: &Configuration, declared: &BTreeSet<String>, root: &Node, report: &mut Report) {
    for (name, container) in &configuration.containers {
        for (index, (wanted, condition)) in container.depends_on.iter().enumerate() {
            let path = dependency_path((name, index), &container.depends_on);
            if !declared.contains(wanted.as_str()) {
                unknown(wanted, declared, &path, root, report);
            } else if let Some((wrong, help)) =
                configuration.containers.get(wanted).and_then(|it| hopeless(it, condition))
            {
                report.add(report.about(root, &path, format!("\"{wanted}\" {wrong}")).help(help));
            }
        }
    }
    let next = |name, index| configuration.containers.get(name)?.depends_on.name(index);
    for cycle in cycles(configuration.containers.keys(), next) {
        report_cycle(&cycle, configuration, root, report);
    }
}

/// `containers.<name>.depends_on[index]`, or `containers.<name>.depends_on.<name>`.
fn dependency_path((name, index): Step<ContainerName>, dependencies: &Dependencies) -> Path {
    let path = container_path(name).key("depends_on");
    match dependencies {
        Dependencies::List(_) => path.index(index),
        Dependencies::Table(_) => dependencies.name(index).map_or(path.clone(), |name| path.key(name.as_str())),
    }
}

/// Why this container never comes as far as that, and what to do.
fn hopeless(container: &Container, condition: DependencyCondition) -> Option<(&'static str, &'static str)> {
    let for_ever =
        !container.has_timer() && matches!(container.restart, RestartPolicy::Always | RestartPolicy::UnlessStopped);
    match condition {
        DependencyCondition::Ready | DependencyCondition::Started | DependencyCondition::Healthy
            if container.has_timer() =>
        {
            Some(("runs only when its time comes", "wait for \"completed\""))
        }
        // One that says nothing of it may have its image's.
        DependencyCondition::Healthy if container.health.as_ref().is_some_and(|health| health.disable) => {
            Some(("has no health check", "give it one, or wait for \"started\""))
        }
        DependencyCondition::Completed if for_ever => {
            Some(("is started again whenever it ends", "give it restart = \"on-failure\" or \"no\""))
        }
        _ => None,
    }
}

fn unknown(wanted: &ContainerName, declared: &BTreeSet<String>, path: &Path, root: &Node, report: &mut Report) {
    let help = match nearest(wanted.as_str(), declared.iter().map(String::as_str)) {
        _ if SYSTEM_CONTAINERS.contains(&wanted.as_str()) => {
            "system containers are ready before any other starts: leave it out".to_owned()
        }
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("declare it as [containers.{wanted}], or leave it out"),
    };
    report.add(report.about(root, path, format!("there is no container \"{wanted}\"")).help(help));
}

fn report_cycle(cycle: &[Step<ContainerName>], configuration: &Configuration, root: &Node, report: &mut Report) {
    let path = |step: &Step<ContainerName>| {
        let container = configuration.containers.get(step.0);
        container.map_or_else(|| container_path(step.0), |container| dependency_path(*step, &container.depends_on))
    };
    let Some((start, rest)) = cycle.split_first() else {
        return;
    };
    let message = match rest {
        [] => "the container depends on itself".to_owned(),
        _ => format!("the containers wait for each other: {}", shown(cycle)),
    };
    let mistake = report.about(root, &path(start), message);
    let mistake =
        rest.iter().take(7).fold(mistake, |mistake, step| report.relate(mistake, root, &path(step), "and this"));
    report.add(mistake.help("take one of them out of `depends_on`"));
}
