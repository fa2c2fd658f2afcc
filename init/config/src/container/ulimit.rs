//! Limits of a process: prlimit(2).

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which limit; named as ulimit and Compose name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UlimitName {
    /// Address space, bytes.
    As,
    /// Core file, bytes.
    Core,
    /// Processor time, seconds.
    Cpu,
    /// Data segment, bytes.
    Data,
    /// Largest file, bytes.
    Fsize,
    /// File locks.
    Locks,
    /// Locked memory, bytes.
    Memlock,
    /// POSIX message queues, bytes.
    Msgqueue,
    /// Nice ceiling, 20 minus the value.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Resident set, bytes; without effect since Linux 2.4.30.
    Rss,
    /// Real-time priority.
    Rtprio,
    /// Real-time processor time, microseconds.
    Rttime,
    /// Queued signals.
    Sigpending,
    /// Stack, bytes.
    Stack,
}

impl UlimitName {
    /// As in <sys/resource.h> and the OCI runtime specification.
    pub const fn rlimit(self) -> &'static str {
        match self {
            Self::As => "RLIMIT_AS",
            Self::Core => "RLIMIT_CORE",
            Self::Cpu => "RLIMIT_CPU",
            Self::Data => "RLIMIT_DATA",
            Self::Fsize => "RLIMIT_FSIZE",
            Self::Locks => "RLIMIT_LOCKS",
            Self::Memlock => "RLIMIT_MEMLOCK",
            Self::Msgqueue => "RLIMIT_MSGQUEUE",
            Self::Nice => "RLIMIT_NICE",
            Self::Nofile => "RLIMIT_NOFILE",
            Self::Nproc => "RLIMIT_NPROC",
            Self::Rss => "RLIMIT_RSS",
            Self::Rtprio => "RLIMIT_RTPRIO",
            Self::Rttime => "RLIMIT_RTTIME",
            Self::Sigpending => "RLIMIT_SIGPENDING",
            Self::Stack => "RLIMIT_STACK",
        }
    }
}

/// A limit: `1024` for both, or `{ soft = 1024, hard = 4096 }`; -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ulimit {
    /// What is enforced; `None` is no limit. Never above `hard`.
    pub soft: Option<u64>,
    /// What the process may raise it to; `None` is no limit.
    pub hard: Option<u64>,
}

crate::text::described!(Ulimit, {
    "description": "Takes a number for both limits, -1 for none, or a table with both.",
    "anyOf": [
        { "type": "integer", "minimum": -1 },
        {
            "type": "object",
            "properties": {
                "soft": { "type": "integer", "minimum": -1 },
                "hard": { "type": "integer", "minimum": -1 }
            },
            "required": ["soft", "hard"],
            "additionalProperties": false
        }
    ]
});

const WANTED: &str = "a number, -1 for no limit, or { soft = 1024, hard = 4096 }";

impl Serialize for Ulimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The values came in as i64, so they fit.
        let number = |limit: Option<u64>| limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1);
        if self.soft == self.hard {
            return serializer.serialize_i64(number(self.soft));
        }
        Pair { soft: number(self.soft), hard: number(self.hard) }.serialize(serializer)
    }
}

/// The long form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    soft: i64,
    hard: i64,
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UlimitVisitor)
    }
}

struct UlimitVisitor;

impl<'de> Visitor<'de> for UlimitVisitor {
    type Value = Ulimit;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(WANTED)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Ulimit, E> {
        let limit = limit(number)?;
        Ok(Ulimit { soft: limit, hard: limit })
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Ulimit, E> {
        let number = i64::try_from(number).map_err(|_| E::custom("it is out of range"))?;
        self.visit_i64(number)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Ulimit, A::Error> {
        let pair = Pair::deserialize(serde::de::value::MapAccessDeserializer::new(table))?;
        let (soft, hard) = (limit(pair.soft)?, limit(pair.hard)?);
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(A::Error::custom("the soft limit is above the hard one"));
        }
        Ok(Ulimit { soft, hard })
    }
}

fn limit<E: Error>(number: i64) -> Result<Option<u64>, E> {
    match number {
        -1 => Ok(None),
        _ => u64::try_from(number).map(Some).map_err(|_| E::custom("it is below -1, which is no limit")),
    }
}
