//! What a container is that only names its image.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::{
    Bandwidth, Container, Dependencies, EndpointMode, Environment, IpcMode, NetworkMode, Networks, PidMode, ReadyWhen,
    RestartPolicy, Security, Sysctls,
};
use crate::names::ImageName;
use crate::quantities::{Size, TimeSpan};

impl Container {
    /// Docker's and Compose's default for `stop_grace_period`: 10 s.
    pub const STOP_GRACE_PERIOD: TimeSpan = TimeSpan::from_whole_seconds(10);
    /// Docker's default for `shm_size`.
    pub const SHM_SIZE: Size = Size::from_bytes(64 << 20);
    /// Podman's default for `pids_limit`: more than programs need, and a fork bomb stops there.
    pub const PIDS_LIMIT: NonZeroU32 = NonZeroU32::new(2048).unwrap();

    /// This image, everything else as by default.
    pub fn new(image: ImageName) -> Self {
        Self {
            image,
            command: None,
            entrypoint: None,
            environment: Environment::default(),
            user: None,
            group_add: Vec::new(),
            working_dir: None,
            hostname: None,
            tty: false,
            stdin_open: false,
            init: false,
            replicas: None,
            endpoint_mode: EndpointMode::default(),
            depends_on: Dependencies::default(),
            restart: RestartPolicy::default(),
            schedule: None,
            every: None,
            readiness: ReadyWhen::default(),
            health: None,
            stop_signal: None,
            stop_grace_period: None,
            network_mode: NetworkMode::default(),
            networks: Networks::default(),
            extra_hosts: BTreeMap::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_opt: Vec::new(),
            ports: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            allow_out: Vec::new(),
            deny_out: Vec::new(),
            bandwidth: Bandwidth::default(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            shm_size: None,
            read_only: false,
            devices: Vec::new(),
            memory: None,
            mem_reservation: None,
            oom_score_adj: None,
            storage: None,
            cpus: None,
            cpu_shares: None,
            cpuset: None,
            pids_limit: None,
            ulimits: BTreeMap::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            api: Vec::new(),
            ipc: IpcMode::default(),
            pid: PidMode::default(),
            security: Security::default(),
            sysctls: Sysctls::default(),
            labels: BTreeMap::new(),
        }
    }

    /// `stop_grace_period` or its default.
    pub fn stop_grace_period(&self) -> TimeSpan {
        self.stop_grace_period.unwrap_or(Self::STOP_GRACE_PERIOD)
    }

    /// `pids_limit` or its default.
    pub fn pids_limit(&self) -> NonZeroU32 {
        self.pids_limit.unwrap_or(Self::PIDS_LIMIT)
    }

    /// `shm_size` or its default.
    pub fn shm_size(&self) -> Size {
        self.shm_size.unwrap_or(Self::SHM_SIZE)
    }
}
