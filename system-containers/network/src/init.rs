//! The channel to PID 1 in an event loop.
//!
//! Requests are sent in order and their answers are not waited for: an answer is an event like any other.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use berth_config::Networking;
use berth_control::channel::{Channel, ChannelError};
use berth_control::message::{FromInit, Notice, Reply, Request, ToInit};
use tokio::io::unix::AsyncFd;

use crate::{report, sys};

/// What PID 1 says.
#[derive(Debug)]
pub enum Message {
    /// The configuration in force.
    Configuration(Box<Networking>),
    /// Something that was not asked for, with its descriptors.
    Notice(Notice, Vec<OwnedFd>),
}

/// Our end of the channel.
#[derive(Debug)]
pub struct Init {
    channel: AsyncFd<Channel>,
    next: u64,
    asked: BTreeMap<u64, &'static str>,
}

impl Init {
    /// Takes the channel over, within a tokio runtime.
    pub fn new(channel: Channel) -> Result<Self, ChannelError> {
        channel.set_nonblocking()?;
        let channel = sys::watch(channel).map_err(|error| ChannelError::System {
            operation: "epoll_ctl",
            source: error.raw_os_error().map_or(nix::Error::UnknownErrno, nix::Error::from_raw),
        })?;
        Ok(Self { channel, next: 1, asked: BTreeMap::new() })
    }

    /// Sends a request. `purpose` stands in the log should PID 1 refuse it.
    pub async fn send(&mut self, request: Request, purpose: &'static str) -> Result<(), ChannelError> {
        let message = ToInit { id: self.next, request };
        self.next += 1;
        let no_descriptors: [BorrowedFd<'_>; 0] = [];
        loop {
            match self.channel.get_ref().send(&message, &no_descriptors) {
                Ok(()) => break,
                Err(ChannelError::WouldBlock) => {
                    let ready = self.channel.writable().await;
                    ready.map_err(|_| ChannelError::Closed)?.clear_ready();
                }
                Err(error) => return Err(error),
            }
        }
        self.asked.insert(message.id, purpose);
        Ok(())
    }

    /// The next message that means anything. May be dropped while it waits.
    pub async fn receive(&mut self) -> Result<Message, ChannelError> {
        loop {
            match self.channel.get_ref().receive::<FromInit>() {
                Ok((FromInit::Notice(notice), descriptors)) => return Ok(Message::Notice(notice, descriptors)),
                Ok((FromInit::Reply { id, reply }, _)) => {
                    let purpose = self.asked.remove(&id).unwrap_or("an unknown request");
                    match reply {
                        Reply::NetworkConfiguration(network) => return Ok(Message::Configuration(network)),
                        Reply::Refused { reason } => report::say(format_args!("PID 1 refuses {purpose}: {reason}")),
                        _ => {}
                    }
                }
                Err(ChannelError::WouldBlock) => {
                    let ready = self.channel.readable().await;
                    ready.map_err(|_| ChannelError::Closed)?.clear_ready();
                }
                // One message that cannot be read does not end the others.
                Err(error @ (ChannelError::Decode(_) | ChannelError::TooLong { .. })) => report::failure(&error),
                Err(error) => return Err(error),
            }
        }
    }
}
