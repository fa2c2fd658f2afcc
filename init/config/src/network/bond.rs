//! `[network.links.<name>.bond]`: several links as one. Keys and values are those of the kernel's bonding driver
//! (Documentation/networking/bonding.rst).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::LinkName;
use crate::container::{MacAddress, is_default};
use crate::quantities::TimeSpan;

/// A choice that the kernel numbers from 0 in this order.
macro_rules! choice {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $name:literal $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $name)] $variant),+
        }

        impl $type {
            /// The kernel's number for it.
            pub const fn number(self) -> u8 {
                self as u8
            }
        }
    };
}

choice! {
    /// How the ports share the work.
    BondMode {
        /// Each packet through the next port.
        #[default]
        "balance-rr" BalanceRoundRobin,
        /// One port works, the others wait.
        "active-backup" ActiveBackup,
        /// By a hash of the packet.
        "balance-xor" BalanceXor,
        /// Through all ports.
        "broadcast" Broadcast,
        /// By LACP, with a switch that does the same.
        "802.3ad" Lacp,
        /// What goes out is shared by load.
        "balance-tlb" BalanceTlb,
        /// What comes in too, by answers to ARP.
        "balance-alb" BalanceAlb,
    }
}

choice! {
    /// What of a packet decides by which port it goes.
    TransmitHash {
        /// Hardware addresses.
        #[default]
        "layer2" Layer2,
        /// IP addresses and ports.
        "layer3+4" Layer34,
        /// Hardware and IP addresses.
        "layer2+3" Layer23,
        /// As layer2+3, within tunnels.
        "encap2+3" Encapsulated23,
        /// As layer3+4, within tunnels.
        "encap3+4" Encapsulated34,
        /// VLAN and the sender's hardware address.
        "vlan+srcmac" VlanSource,
    }
}

choice! {
    /// Whose ARP is looked at.
    ArpValidate {
        /// Nobody's.
        #[default]
        "none" None,
        /// The active port's.
        "active" Active,
        /// The waiting ports'.
        "backup" Backup,
        /// That of all.
        "all" All,
        /// Other packets do not count either.
        "filter" Filter,
        /// The same for the active port.
        "filter_active" FilterActive,
        /// The same for the waiting ones.
        "filter_backup" FilterBackup,
    }
}

choice! {
    /// How many of the targets must answer.
    ArpAllTargets {
        /// One.
        #[default]
        "any" Any,
        /// All.
        "all" All,
    }
}

choice! {
    /// When the primary port takes over again.
    PrimaryReselect {
        /// As soon as it works.
        #[default]
        "always" Always,
        /// If it is faster.
        "better" Better,
        /// Only when the active one fails.
        "failure" Failure,
    }
}

choice! {
    /// What becomes of the hardware address when another port takes over.
    FailOverMac {
        /// All ports have the same.
        #[default]
        "none" None,
        /// It is that of the active port.
        "active" Active,
        /// It goes to the port that takes over.
        "follow" Follow,
    }
}

choice! {
    /// How often the partner is to send.
    LacpRate {
        /// Every 30 seconds.
        #[default]
        "slow" Slow,
        /// Every second.
        "fast" Fast,
    }
}

choice! {
    /// Which group of ports is chosen.
    AdSelect {
        /// The first, until it fails.
        #[default]
        "stable" Stable,
        /// The fastest.
        "bandwidth" Bandwidth,
        /// The one with the most ports.
        "count" Count,
    }
}

/// Several links as one. What is absent is the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Bond {
    /// How the ports share the work.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: BondMode,
    /// Names of its links, or of entries with `match`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<LinkName>,
    /// How often carrier is looked at; 100 ms if `arp_interval` is absent too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miimon: Option<TimeSpan>,
    /// How long a port must have carrier before it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updelay: Option<TimeSpan>,
    /// How long a port without carrier is used on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downdelay: Option<TimeSpan>,
    /// How often the targets are asked by ARP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp_interval: Option<TimeSpan>,
    /// Who is asked, at most 16 of each family.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arp_targets: Vec<IpAddr>,
    /// Whose ARP is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp_validate: Option<ArpValidate>,
    /// How many targets must answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arp_all_targets: Option<ArpAllTargets>,
    /// How many questions may stay without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_max: Option<std::num::NonZeroU8>,
    /// The port that is used if it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<LinkName>,
    /// When it takes over again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_reselect: Option<PrimaryReselect>,
    /// What becomes of the hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_over_mac: Option<FailOverMac>,
    /// What of a packet decides by which port it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xmit_hash_policy: Option<TransmitHash>,
    /// IGMP reports after a change of the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resend_igmp: Option<u8>,
    /// ARP and neighbour announcements after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_peer_notif: Option<u8>,
    /// The time between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_notif_delay: Option<TimeSpan>,
    /// Whether what comes in on ports that wait is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_ports_active: Option<bool>,
    /// Ports with carrier for the bond to have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_links: Option<u32>,
    /// Time between packets that teach switches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lp_interval: Option<TimeSpan>,
    /// Packets through a port before the next one's turn; 0 is by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_per_port: Option<u16>,
    /// Whether flows move with the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlb_dynamic_lb: Option<bool>,
    /// Whether LACP packets go out unasked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacp_active: Option<bool>,
    /// How often the partner is to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacp_rate: Option<LacpRate>,
    /// Which group of ports is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_select: Option<AdSelect>,
    /// The system's priority in LACP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_actor_sys_prio: Option<std::num::NonZeroU16>,
    /// The system's address in LACP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_actor_system: Option<MacAddress>,
    /// The upper ten bits of the port's key in LACP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_user_port_key: Option<u16>,
    /// Whether a port begins to send and to take in LACP in one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupled_control: Option<bool>,
}
