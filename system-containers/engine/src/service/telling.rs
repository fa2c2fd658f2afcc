//! What PID 1 is told. An image can have more to say than a message holds, and that is nobody's end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use berth_control::channel::ChannelError;
use berth_control::message::{LONGEST_SHEET, PreparedImage, Request, ToInit};
use rustix::fs::MemfdFlags;

use super::waiting::failed;
use super::{Service, ServiceError};

impl Service {
    /// Asks, or tells. What is too long for a message is left out.
    pub(super) fn ask(&mut self, request: Request) -> Result<(), ServiceError> {
        self.next_id += 1;
        match self.channel.send(&ToInit { id: self.next_id, request }, &[]) {
            Err(error @ ChannelError::TooLong { .. }) => {
                eprintln!("engine: PID 1 is not told something: {error}");
                Ok(())
            }
            sent => Ok(sent?),
        }
    }

    /// What a container is to be run with: in a message, or beside one.
    pub(super) fn tell_prepared(&mut self, name: String, image: Box<PreparedImage>) -> Result<(), ServiceError> {
        self.next_id += 1;
        let message = ToInit { id: self.next_id, request: Request::Prepared { name, image } };
        match self.channel.send(&message, &[]) {
            Err(ChannelError::TooLong { .. }) => {}
            sent => return Ok(sent?),
        }
        let Request::Prepared { name, image } = message.request else { return Ok(()) };
        match sheet(&image) {
            Ok(sheet) => {
                self.next_id += 1;
                let request = Request::PreparedOnSheet { name };
                Ok(self.channel.send(&ToInit { id: self.next_id, request }, &[sheet.as_fd()])?)
            }
            Err(reason) => self.ask(failed(name, &reason)),
        }
    }
}

/// A file of memory with it.
fn sheet(image: &PreparedImage) -> Result<OwnedFd, String> {
    let failed = |error: io::Error| format!("put into memory what the container is run with: {error}");
    let text = serde_json::to_vec(image).map_err(|error| failed(error.into()))?;
    if text.len() as u64 > LONGEST_SHEET {
        return Err(format!(
            "the environment, arguments and labels of the container and its image, and its volumes, are {} bytes long; \
             at most {LONGEST_SHEET} are possible",
            text.len()
        ));
    }
    let sheet = rustix::fs::memfd_create("prepared", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let sheet = File::from(sheet);
    sheet.write_all_at(&text, 0).map_err(failed)?;
    Ok(sheet.into())
}
