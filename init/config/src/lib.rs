//! The configuration: its types, merging, validation and diagnostics.
//!
//! Every value is checked once, on its way in, and kept in a type that proves it: a [`Container`] whose `memory` is
//! a [`Size`] needs no second look. The same types serialize to TOML (`berth config show`) and to JSON (the messages
//! between PID 1 and the system containers), and what they write they read back as equal values.
//!
//! This crate is part of PID 1: it never panics, whatever the bytes, and it touches neither files nor the system.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::unreachable)
)]

mod accounts;
mod audit;
mod check;
mod configuration;
mod container;
mod diagnostic;
mod load;
mod locations;
mod names;
mod network;
mod networks;
mod peers;
mod plan;
mod quantities;
mod registries;
mod source;
mod spelling;
mod suggestion;
mod system_container;
mod text;
mod tree;
mod trust;

pub use accounts::{Account, AccountError};
pub use audit::{Audit, Loosening, Policy};
pub use check::{SYSTEM_CONTAINERS, pod_obstacle};
pub use configuration::{Configuration, Console, Images, Logs, Networking, ShowError, Watchdog, WatchdogDevice};
pub use container::{
    ApiPart, ApiPartError, Bandwidth, BitRate, Capability, CapabilityChoice, Command, Container, CpuShares, Cpuset,
    CpusetError, Date, Dependencies, Dependency, DependencyCondition, Device, EndpointMode, Environment, Group, Health,
    HttpTarget, IpcMode, MacAddress, Membership, NetworkMode, Networks, OomScore, PidMode, PortMapping, PriorityError,
    Protocol, PublishedPorts, ReadyWhen, ReadyWhenError, Resolution, ResolverOption, RestartPolicy, Schedule,
    ScheduleError, SearchDomain, Seccomp, Security, Signal, Sysctls, TargetError, TcpTarget, TemporaryMount, Ulimit,
    UlimitName, User, UserNamespace, Volume, utc,
};
pub use diagnostic::{Diagnostic, Location, Related, Style};
pub use load::{DIAGNOSTIC_LIMIT, Loaded, load, load_definition, load_system_container};
pub use locations::Locations;
pub use names::{AbsolutePath, ContainerName, HostName, ImageName, NameError, TimeServer, VolumeName};
pub use network::{
    AdSelect, ArpAllTargets, ArpValidate, Bond, BondMode, Bridge, Endpoint, FailOverMac, Hardware, Ipv6, LacpRate,
    LinkIdentity, LinkMatch, LinkName, LinkSettings, Made, Mtu, Network, OpenPorts, Pattern, Prefix, PrimaryReselect,
    Route, Rule, RuleAction, TransmitHash, Vlan, VlanProtocol, Vrf, WireGuard, WireGuardKey, WireGuardPeer,
};
pub use networks::{ContainerNetwork, NetworkDriver, NetworkName, ParentMode};
pub use peers::{Access, Peers};
pub use plan::{Action, Change, ContainerPlan, Ended, Instances, Plan, Present};
pub use quantities::{Cpus, QuantityError, Size, TimeSpan};
pub use registries::{DataFile, MirrorName, Proxy, ProxyAddress, Registry, RegistryName, Unproxied, UnproxiedError};
pub use source::{SIZE_LIMIT, Source};
pub use spelling::registry_spelling;
pub use system_container::{Condition, HostNamespace, Mount, Readiness, Role, SystemContainer, SystemMemory, View};
pub use trust::{KeyError, PublicKey, Requirement, Trust, TrustScope, trust_of};

#[cfg(feature = "schema")]
mod schema;
#[cfg(feature = "schema")]
pub use schema::schema;
