//! The flags of `berth run` and `berth create` about processors, as docker has them.

use berth_config::{CpuShares, Cpus, Cpuset};
use clap::Args;

use super::super::error::Error;
use super::refused;

/// The scheduler's period in microseconds, docker's default.
const PERIOD: u32 = 100_000;

/// How much of them it may use.
#[derive(Debug, Args)]
#[group(skip)] // it has the name of those that it is a part of
pub struct Arguments {
    /// The most processors it may use
    #[arg(long, conflicts_with = "cpu_quota")]
    cpus: Option<Cpus>,
    /// The same as time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<u32>,
    /// The period of --cpu-quota, in microseconds; 100000 if there is none
    #[arg(long, value_name = "MICROSECONDS", requires = "cpu_quota")]
    cpu_period: Option<u32>,
    /// Its part of the processors' time beside others that want it: 2 to 262144, 1024 unless it is said
    #[arg(short, long, value_name = "NUMBER")]
    pub cpu_shares: Option<CpuShares>,
    /// The processors it runs on, by number
    #[arg(long, value_name = "0-2,4")]
    pub cpuset_cpus: Option<Cpuset>,
}

impl Arguments {
    /// The most it may use.
    pub fn cpus(&self) -> Result<Option<Cpus>, Error> {
        let period = f64::from(self.cpu_period.unwrap_or(PERIOD));
        match self.cpu_quota {
            None => Ok(self.cpus),
            // Docker's for no limit.
            Some(0) => Ok(None),
            Some(quota) => Cpus::try_from(f64::from(quota) / period).map(Some).map_err(refused),
        }
    }
}
