//! The cases, in the order in which they are started.

use crate::runner::Case;

mod apply;
mod archives;
mod boot;
mod clients;
mod clock;
mod commands;
mod configuration;
mod containers;
mod exec;
mod handover;
mod health;
mod init;
mod isolation;
mod layers;
mod links;
mod network;
mod operation;
mod pods;
mod pressure;
mod published;
mod quota;
mod registry;
mod run;
mod runtime;
mod sctp;
mod servers;
mod services;
mod state;
mod storm;
mod supervision;
mod watchdog;

/// All of them.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        boot::CASES,
        containers::CASES,
        exec::CASES,
        commands::CASES,
        health::CASES,
        handover::CASES,
        isolation::CASES,
        layers::CASES,
        links::CASES,
        servers::CASES,
        network::CASES,
        published::CASES,
        sctp::CASES,
        clock::CASES,
        configuration::CASES,
        apply::CASES,
        archives::CASES,
        registry::CASES,
        services::CASES,
        state::CASES,
        storm::CASES,
        supervision::CASES,
        watchdog::CASES,
        operation::CASES,
        pressure::CASES,
        clients::CASES,
        quota::CASES,
        pods::CASES,
        run::CASES,
        init::CASES,
        runtime::CASES,
    ]
    .concat()
}
