//! `berth save`, `import`, `tag`, `rmi` and `image inspect`: images by hand.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_control::images::End;
use clap::{Args, Subcommand};
use zbus::wire::OwnedFd as Passed;

use super::api::Api;
use super::error::Error;
use super::{answers, containers, json_text, told};

/// What about an image.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Everything about images, as JSON
    Inspect(Inspect),
}

/// Which ones.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Their names
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// What to write, and where to.
#[derive(Debug, Args)]
pub struct Save {
    /// The archive; standard output if absent
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// What to read.
#[derive(Debug, Args)]
pub struct Import {
    /// An archive, compressed or not, or the folder of an OCI layout; standard input if absent or `-`
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Two names.
#[derive(Debug, Args)]
pub struct Tag {
    /// A name that the image has
    #[arg(value_name = "IMAGE")]
    source: String,
    /// The other one
    #[arg(value_name = "NAME")]
    target: String,
}

/// What to remove.
#[derive(Debug, Args)]
pub struct Remove {
    /// Take the names away also from images that containers use; those go when nothing uses them
    #[arg(short, long)]
    force: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Writes an archive that is an OCI layout and what `docker save` writes at once.
pub async fn save(api: &Api, arguments: &Save, json: bool) -> Result<String, Error> {
    let target = match &arguments.output {
        Some(path) => OwnedFd::from(create(path)?),
        None if io::stdout().is_terminal() => {
            return Err(Error::Refused("an archive is nothing for a terminal: name a file with --output".to_owned()));
        }
        None => io::stdout().as_fd().try_clone_to_owned().map_err(Error::Output)?,
    };
    let images: Vec<&str> = arguments.images.iter().map(String::as_str).collect();
    let saved = async { end(api.images.save(&images, target.into()).await?) }.await;
    if let (Err(_), Some(path)) = (&saved, &arguments.output) {
        // Half an archive is worse than none; the error that counts is the first.
        let _ = std::fs::remove_file(path);
    }
    saved?;
    // Without a file the archive is the output.
    let json = json && arguments.output.is_some();
    told(json, serde_json::json!({ "images": arguments.images, "output": arguments.output }), String::new())
}

/// As somebody who had the file before has it; what is inside is not for all.
fn create(path: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    opened.map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Prints the names and digests of what came in.
pub async fn import(api: &Api, arguments: &Import, json: bool) -> Result<String, Error> {
    let file = arguments.file.as_ref().filter(|file| file.as_os_str() != "-");
    let (source, name) = match file {
        Some(path) => {
            let file = File::open(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            (OwnedFd::from(file), path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        }
        None => (io::stdin().as_fd().try_clone_to_owned().map_err(Error::Output)?, String::new()),
    };
    let texts = end(api.images.import(source.into(), &name).await?)?;
    let text = texts.iter().map(|text| format!("{text}\n")).collect();
    told(json, texts.into(), text)
}

/// Gives an image a further name.
pub async fn tag(api: &Api, arguments: &Tag, json: bool) -> Result<String, Error> {
    let Tag { source, target } = arguments;
    end(api.images.tag(source, target).await?)?;
    told(json, serde_json::json!({ "source": source, "target": target }), String::new())
}

/// Prints each name that is gone.
pub async fn remove(api: &Api, arguments: &Remove, json: bool) -> Result<String, Error> {
    let (mut gone, mut failed) = (Vec::new(), false);
    for image in &arguments.images {
        match async { end(api.images.remove(image, arguments.force).await?) }.await {
            Ok(_) => gone.push(image.as_str()),
            Err(error) => {
                failed = true;
                eprintln!("Error: {error}");
            }
        }
    }
    let text = gone.iter().map(|image| format!("{image}\n")).collect();
    containers::end_with(told(json, gone.into(), text)?, failed)
}

/// As JSON, a list.
pub async fn inspect(api: &Api, arguments: &Inspect) -> Result<String, Error> {
    let mut values = Vec::with_capacity(arguments.images.len());
    for image in &arguments.images {
        for text in end(api.images.inspect(image).await?)? {
            values.push(serde_json::from_str::<serde_json::Value>(&text).map_err(|error| answers::strange(&error))?);
        }
    }
    json_text(&values)
}

/// Waits for the end of what was asked for.
pub(super) fn end(pipe: Passed) -> Result<Vec<String>, Error> {
    read_end(BufReader::new(File::from(OwnedFd::from(pipe))))
}

fn read_end(pipe: impl BufRead) -> Result<Vec<String>, Error> {
    match answers::each(pipe).next().ok_or_else(answers::without_outcome)?? {
        End::Done(texts) => Ok(texts),
        End::Failed(reason) => Err(Error::Refused(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::api::peer;

    #[tokio::test]
    async fn a_program_is_told_what_was_named_and_removed() {
        let done = || peer::of_engine(&End::Done(Vec::new()));
        let (api, mut peer) = peer::pair().await;
        let (tagged, removed) = (done(), done());
        let arguments = Tag { source: "a:1".into(), target: "b:1".into() };
        let (told, ()) = tokio::join!(tag(&api, &arguments, true), peer.answer("Tag", &tagged));
        assert_eq!(told.unwrap(), "{\n  \"source\": \"a:1\",\n  \"target\": \"b:1\"\n}\n");
        let arguments = Remove { force: false, images: vec!["b:1".into()] };
        let (told, ()) = tokio::join!(remove(&api, &arguments, true), peer.answer("Remove", &removed));
        assert_eq!(told.unwrap(), "[\n  \"b:1\"\n]\n");
    }

    #[test]
    fn the_end_that_the_engine_tells_is_that_of_the_command() {
        let told = |end: &End| read_end((serde_json::to_string(end).unwrap() + "\n").as_bytes());
        assert_eq!(told(&End::Done(vec!["a".to_owned()])).unwrap(), ["a"]);
        assert_eq!(told(&End::Failed("no such image".to_owned())).unwrap_err().to_string(), "no such image");
        assert!(read_end(&b""[..]).unwrap_err().to_string().contains("try once more"));
        assert!(read_end(&b"{}\n"[..]).is_err());
    }
}
