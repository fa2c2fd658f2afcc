//! The flags of `berth run` and `berth create` that make a health check, as docker has them.

use std::num::NonZeroU32;

use berth_config::{Command, Health, TimeSpan};
use clap::Args;

use super::super::error::Error;
use super::refused;

/// A health check.
#[derive(Debug, Args)]
#[group(skip)] // it has the name of those that it is a part of
pub struct Arguments {
    /// A program that finds out whether it does its work, for a shell of the container
    #[arg(long = "health-cmd", value_name = "COMMAND")]
    health_command: Option<String>,
    /// From the end of a check to the next
    #[arg(long = "health-interval", value_name = "TIME")]
    health_interval: Option<TimeSpan>,
    /// How long a check may take
    #[arg(long = "health-timeout", value_name = "TIME")]
    health_timeout: Option<TimeSpan>,
    /// How many failures in a row make it unhealthy
    #[arg(long = "health-retries", value_name = "NUMBER")]
    health_retries: Option<NonZeroU32>,
    /// How long failures do not count after the start
    #[arg(long = "health-start-period", value_name = "TIME")]
    health_start_period: Option<TimeSpan>,
    /// From the end of a check to the next within the start period
    #[arg(long = "health-start-interval", value_name = "TIME")]
    health_start_interval: Option<TimeSpan>,
    /// Check nothing, though the image says how
    #[arg(long, conflicts_with_all = [
        "health_command", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval",
    ])]
    no_healthcheck: bool,
}

impl Arguments {
    /// The check; `None` leaves it to the image, as the check does with all that it does not say.
    pub fn check(self) -> Result<Option<Health>, Error> {
        if self.no_healthcheck {
            return Ok(Some(Health { disable: true, ..Health::default() }));
        }
        let words = |command| ["/bin/sh".to_owned(), "-c".to_owned(), command];
        let exec = self.health_command.map(|command| Command::new(words(command).into()).map_err(refused));
        let check = Health {
            exec: exec.transpose()?,
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            ..Health::default()
        };
        Ok((check != Health::default()).then_some(check))
    }
}
