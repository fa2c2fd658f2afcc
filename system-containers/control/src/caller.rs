//! PID 1 as a client may ask it: everything, or the parts that a container's configuration names.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use berth_config::ApiPart;
use berth_control::dbus::{ApiError, Change};
use berth_control::listing;
use berth_control::message::{Container, Machine, Notice, Reply, Request, Statistics};
use tokio::sync::broadcast;

use crate::init::{Answer, Init, unavailable, unexpected};
use crate::sheet;

/// What a client may.
#[derive(Debug)]
pub enum Access {
    /// Everything.
    Everything,
    /// What the configuration of its container names.
    Parts {
        /// The container.
        container: String,
        /// Its parts.
        parts: Vec<ApiPart>,
    },
}

impl Access {
    /// An error if this part is not granted.
    pub fn check(&self, part: ApiPart) -> Result<(), ApiError> {
        match self {
            Self::Parts { container, parts } if !parts.contains(&part) => Err(ApiError::Refused(format!(
                "container {container} may not do this: add \"{part}\" to its `api` in the configuration"
            ))),
            _ => Ok(()),
        }
    }
}

/// Asks PID 1 for a client, as far as it may.
#[derive(Clone)]
pub struct Caller {
    init: Arc<Init>,
    access: Arc<Access>,
}

impl Caller {
    /// For a client with this access.
    pub fn new(init: Arc<Init>, access: Arc<Access>) -> Self {
        Self { init, access }
    }

    /// For what is no answer to the client.
    pub fn for_ourselves(&self) -> Self {
        Self::new(Arc::clone(&self.init), Arc::new(Access::Everything))
    }

    /// The container whose client it is; `None` for the machine's own.
    pub fn container(&self) -> Option<String> {
        match &*self.access {
            Access::Everything => None,
            Access::Parts { container, .. } => Some(container.clone()),
        }
    }

    /// An error if the client may not use this part.
    pub fn check(&self, part: ApiPart) -> Result<(), ApiError> {
        self.access.check(part)
    }

    /// PID 1's notices from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.init.notices()
    }

    /// What has happened to containers since a moment, in microseconds since 1970 (UTC).
    pub fn changes_since(&self, since_us: u64) -> Vec<Change> {
        self.init.changes_since(since_us)
    }

    /// Asks for something whose answer is that it is done.
    pub async fn done(&self, request: Request) -> Result<(), ApiError> {
        self.done_with(request, &[]).await
    }

    /// The same for a request that comes with descriptors.
    pub async fn done_with(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ApiError> {
        match self.ask(request, descriptors).await? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Asks for something that comes as a descriptor.
    pub async fn descriptor(&self, request: Request) -> Result<OwnedFd, ApiError> {
        match self.ask(request, &[]).await? {
            (Reply::Done, descriptors) => {
                descriptors.into_iter().next().ok_or_else(|| unavailable("PID 1 answered without a descriptor"))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Asks with configuration files on a sheet of memory, and returns what PID 1 has written in their place.
    pub async fn with_sheet(&self, request: Request, files: &[(String, String)]) -> Result<String, ApiError> {
        let sheet = sheet::write(files)?;
        self.done_with(request, &[sheet.as_fd()]).await?;
        sheet::answer(sheet)
    }

    /// The machine as it is now.
    pub async fn machine(&self) -> Result<Machine, ApiError> {
        match self.call(Request::Machine).await? {
            Reply::Machine(machine) => Ok(*machine),
            other => Err(unexpected(&other)),
        }
    }

    /// Every container as it is now, system containers first, by name, as PID 1 has written them: a [`listing`].
    pub async fn listing(&self) -> Result<Vec<u8>, ApiError> {
        self.sheet(Request::Containers).await
    }

    /// Asks for a text.
    pub async fn text(&self, request: Request) -> Result<String, ApiError> {
        let bytes = self.sheet(request).await?;
        String::from_utf8(bytes).map_err(|_| unavailable("PID 1 answered with what is no text"))
    }

    /// Asks for what comes in a file in memory.
    async fn sheet(&self, request: Request) -> Result<Vec<u8>, ApiError> {
        let sheet = self.descriptor(request).await?;
        let mut bytes = Vec::new();
        let read = File::from(sheet).read_to_end(&mut bytes);
        read.map_err(|error| unavailable(&format!("read PID 1's answer: {error}")))?;
        Ok(bytes)
    }

    /// The same, understood.
    pub async fn containers(&self) -> Result<Vec<Container>, ApiError> {
        let bytes = self.listing().await?;
        listing::read(&bytes).ok_or_else(|| unavailable("PID 1 has listed the containers in another version's form"))
    }

    /// What those that run use.
    pub async fn statistics(&self) -> Result<Vec<Statistics>, ApiError> {
        let mut all = Vec::new();
        let mut after = Some(String::new());
        while let Some(last) = after.take() {
            match self.call(Request::Statistics { after: last }).await? {
                Reply::Statistics { statistics, next } => {
                    all.extend(statistics);
                    after = next;
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(all)
    }

    /// Sends a request and waits for its answer; a refusal is an error.
    pub async fn call(&self, request: Request) -> Result<Reply, ApiError> {
        self.ask(request, &[]).await.map(|(reply, _)| reply)
    }

    async fn ask(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Answer, ApiError> {
        if let Access::Parts { container, .. } = &*self.access {
            let part = part(&request).ok_or_else(|| ApiError::Refused("this is not for containers".to_owned()))?;
            self.access.check(part)?;
            // The part lets PID 1 begin anew as it is. Whoever chooses its program is root on the machine.
            if matches!(request, Request::Reexecute) && !descriptors.is_empty() {
                return Err(ApiError::Refused(format!(
                    "container {container} may not do this: which program PID 1 becomes is not for containers"
                )));
            }
        }
        self.init.call_with(request, descriptors).await
    }
}

/// The part of the API that a request belongs to; `None` for those that no client makes.
fn part(request: &Request) -> Option<ApiPart> {
    Some(match request {
        Request::Machine => ApiPart::MachineDescribe,
        Request::Timeline | Request::Boots => ApiPart::MachineTimeline,
        // Environments have secrets, and a definition is a part of the configuration.
        Request::Configuration | Request::Audit | Request::Definition { .. } => ApiPart::MachineConfiguration,
        Request::Plan | Request::Apply { .. } | Request::Confirm => ApiPart::MachineApply,
        Request::Power(_) => ApiPart::MachinePower,
        Request::Reexecute => ApiPart::MachineReexecute,
        Request::Containers | Request::Instances { .. } => ApiPart::ContainersList,
        Request::Statistics { .. } => ApiPart::ContainersStatistics,
        Request::Why { .. } => ApiPart::ContainersWhy,
        Request::Start { .. } => ApiPart::ContainersStart,
        Request::Stop { .. } => ApiPart::ContainersStop,
        Request::Restart { .. } => ApiPart::ContainersRestart,
        Request::Kill { .. } => ApiPart::ContainersKill,
        Request::Pause { .. } | Request::Unpause { .. } => ApiPart::ContainersPause,
        Request::Resize { .. } => ApiPart::ContainersResize,
        Request::Execute(_) => ApiPart::ContainersExecute,
        Request::Attach { .. } => ApiPart::ContainersAttach,
        Request::Create { .. } => ApiPart::ContainersCreate,
        Request::Remove { .. } => ApiPart::ContainersRemove,
        _ => return None,
    })
}
