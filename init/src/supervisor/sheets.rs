//! Answers, and what the engine says, in files of memory: they may be longer than a message.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use berth_control::listing;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Supervisor;
use super::applicant::Applicant;
use super::container::{Container, Definition};
use super::requests::unknown;

impl Supervisor {
    /// Answers with a text, or says no.
    pub fn answer_with(&mut self, applicant: Applicant, text: Result<String, String>) {
        self.hand_over(applicant, text.and_then(|text| sheet(text.as_bytes())).map(Some));
    }

    /// All containers: however many there are, that is one message and one round of the loop, and who asks sees all of
    /// them in the same moment.
    pub(super) fn listing(&self) -> Result<OwnedFd, String> {
        sheet(&listing::write(self.list().into_iter().map(Container::describe)))
    }

    /// What a container is to be and what it was prepared from, as JSON.
    pub(super) fn definition(&self, name: &str) -> Result<String, String> {
        let container = self.find(name).ok_or_else(|| unknown(name))?;
        let definition = match &container.definition {
            Definition::System(system) => serde_json::to_string(system),
            Definition::User(user) => serde_json::to_string(user),
        };
        let prepared = serde_json::to_string(&container.image);
        let both = definition.and_then(|definition| Ok((definition, prepared?)));
        let (definition, prepared) = both.map_err(|error| format!("container {name} has no JSON form: {error}"))?;
        Ok(format!("{{\"definition\":{definition},\"prepared\":{prepared}}}"))
    }
}

fn sheet(bytes: &[u8]) -> Result<OwnedFd, String> {
    let sheet = memfd_create("answer", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from);
    // At a place, so that the reader finds the file's offset at its beginning.
    let written = sheet.map(File::from).and_then(|sheet| sheet.write_all_at(bytes, 0).map(|()| sheet.into()));
    written.map_err(|error| format!("put an answer into memory: {error}"))
}

/// What somebody else has written. Only memory, which never keeps a reader waiting, and at most so many bytes.
pub(super) fn read(sheet: OwnedFd, most: u64) -> Result<Vec<u8>, String> {
    if fcntl(&sheet, FcntlArg::F_GET_SEALS).is_err() {
        return Err("it has to be in a file of memory (memfd_create(2))".to_owned());
    }
    let sheet = File::from(sheet);
    let failed = |error: std::io::Error| format!("read what is in memory: {error}");
    let length = sheet.metadata().map_err(failed)?.len();
    if length > most {
        return Err(format!("it is {length} bytes long; at most {most} are possible"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    // Who changes its length meanwhile gets an error.
    sheet.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use berth_control::message::{LONGEST_SHEET, PreparedImage, Request};

    use super::super::world::World;
    use super::*;

    fn ask(world: &mut World, name: &str) -> serde_json::Value {
        let sheet = world.ask_for(Request::Definition { name: name.into() }).1.remove(0);
        serde_json::from_reader(File::from(sheet)).unwrap()
    }

    #[test]
    fn a_definition_is_as_configured_and_with_what_the_image_adds() {
        let mut world =
            World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\nlabels = { tier = 'front' }\n");
        let before = ask(&mut world, "web");
        assert_eq!((&before["definition"]["labels"]["tier"], &before["prepared"]), (&"front".into(), &().into()));
        world.prepare("web");
        assert!(ask(&mut world, "web")["prepared"]["arguments"].is_array());
        assert!(ask(&mut world, "engine")["definition"].is_object(), "system containers have one too");
        assert!(world.supervisor.definition("nobody").unwrap_err().contains("berth ps"));
    }

    #[test]
    fn an_image_with_more_to_say_than_a_message_holds_is_taken_from_memory() {
        let mut world = World::new("[containers.web]\nimage = 'a'\nnetwork_mode = 'none'\n");
        let image = |length: usize| {
            let labels = [("text".to_owned(), "x".repeat(length))].into();
            serde_json::to_vec(&PreparedImage { labels, ..PreparedImage::default() }).unwrap()
        };
        let mut tell = |sheet: Vec<OwnedFd>| world.supervisor.prepared_on_sheet("web", sheet);
        assert!(tell(Vec::new()).is_err());
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(tell(vec![pipe.into()]).unwrap_err().contains("memory"), "nobody waits for a pipe");
        let beyond = usize::try_from(LONGEST_SHEET).unwrap();
        assert!(tell(vec![sheet(&image(beyond)).unwrap()]).unwrap_err().contains("at most"));
        assert!(tell(vec![sheet(b"{}").unwrap()]).unwrap_err().contains("no image"));
        tell(vec![sheet(&image(500_000)).unwrap()]).unwrap();
        assert_eq!(ask(&mut world, "web")["prepared"]["labels"]["text"].as_str().unwrap().len(), 500_000);
    }
}
