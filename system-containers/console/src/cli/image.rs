//! `berth save`, `import`, `tag`, `rmi` and `image inspect`: images by hand.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use berth_control::images::End;
use clap::{Args, Subcommand};
use zbus::wire::OwnedFd as Passed;

use super::api::Api;
use super::error::Error;
use super::template::Template;
use super::{answers, aside, containers, images, json_text, prune, told};

/// What about images. All but the first are commands of their own too.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Everything about images, as JSON or as a template says
    Inspect(Inspect),
    /// List the images that are here
    #[command(visible_alias = "list")]
    Ls(images::list::Arguments),
    /// Bring an image here from its registry
    Pull(images::Pull),
    /// Take an image to the registry in its name
    Push(images::Push),
    /// Write images to an archive
    Save(Save),
    /// Take images from an archive
    #[command(visible_alias = "load")]
    Import(Import),
    /// Give an image another name
    Tag(Tag),
    /// Remove images, by their names
    #[command(visible_alias = "remove")]
    Rm(Remove),
    /// Remove images that no container needs
    Prune(prune::Arguments),
}

/// Does it.
pub async fn run(api: &Api, command: Image, json: bool) -> Result<String, Error> {
    match command {
        Image::Inspect(arguments) => inspect(api, &arguments).await,
        Image::Ls(arguments) => images::list::run(api, &arguments, json).await,
        Image::Pull(pull) => images::pull(api, &pull, json).await,
        Image::Push(push) => images::push(api, &push, json).await,
        Image::Save(arguments) => save(api, &arguments, json).await,
        Image::Import(arguments) => import(api, &arguments, json).await,
        Image::Tag(arguments) => tag(api, &arguments, json).await,
        Image::Rm(arguments) => remove(api, &arguments, json).await,
        Image::Prune(arguments) => prune::run(api, &arguments, json).await,
    }
}

/// Which ones.
#[derive(Debug, Args)]
pub struct Inspect {
    /// What to print of each, as a template: '{{.digest}}', '{{json .config}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<Template>,
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
    /// The same, as docker has it
    #[arg(short, long, value_name = "FILE", hide = true, conflicts_with = "file")]
    input: Option<PathBuf>,
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
    let images: Vec<&str> = arguments.images.iter().map(String::as_str).collect();
    if let Some(path) = &arguments.output {
        let write = async |target: OwnedFd| end(api.images.save(&images, target.into()).await?);
        aside::write(path, write).await?;
        return told(json, serde_json::json!({ "images": arguments.images, "output": path }), String::new());
    }
    if io::stdout().is_terminal() {
        return Err(Error::Refused("an archive is nothing for a terminal: name a file with --output".to_owned()));
    }
    let target = io::stdout().as_fd().try_clone_to_owned().map_err(Error::Output)?;
    end(api.images.save(&images, target.into()).await?)?;
    // The archive is the output.
    Ok(String::new())
}

/// Prints the names and digests of what came in.
pub async fn import(api: &Api, arguments: &Import, json: bool) -> Result<String, Error> {
    let file = arguments.file.as_ref().or(arguments.input.as_ref()).filter(|file| file.as_os_str() != "-");
    let (source, name) = match file {
        Some(path) => {
            let file = File::open(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            (OwnedFd::from(file), path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        }
        None if io::stdin().is_terminal() => {
            return Err(Error::Refused("no archive comes from a terminal: name a file, or use a pipe".to_owned()));
        }
        None => (io::stdin().as_fd().try_clone_to_owned().map_err(Error::Output)?, String::new()),
    };
    let pipe = BufReader::new(File::from(OwnedFd::from(api.images.import(source.into(), &name).await?)));
    let (done, problems) = match outcome(pipe)? {
        End::Done(done) => (done, Vec::new()),
        End::Partly { done, problems } => (done, problems),
        End::Failed(reason) => return Err(Error::Refused(reason)),
    };
    for problem in &problems {
        eprintln!("Error: not taken: {problem}");
    }
    let text = done.iter().map(|text| format!("{text}\n")).collect();
    let images = done.iter().map(|text| match text.split_once(' ') {
        Some((name, digest)) => serde_json::json!({ "name": name, "digest": digest }),
        None => serde_json::json!({ "name": null, "digest": text }),
    });
    containers::end_with(told(json, images.collect(), text)?, !problems.is_empty())
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
    let mut values: Vec<serde_json::Value> = Vec::with_capacity(arguments.images.len());
    let mut failed = false;
    for image in &arguments.images {
        match async { end(api.images.inspect(image).await?) }.await {
            Ok(texts) => {
                for text in texts {
                    let value = serde_json::from_str(&text).map_err(|error| answers::strange(&error))?;
                    values.push(value);
                }
            }
            Err(error) => {
                failed = true;
                eprintln!("Error: {error}");
            }
        }
    }
    let text = match &arguments.format {
        // Docker's names for what the image specification calls otherwise are few: `.Id` and `.RepoTags`.
        Some(template) => {
            let views = values.iter().map(|value| [docker_view(value), value.clone()]);
            template.list(views, None).map_err(Error::Refused)?
        }
        None => json_text(&values)?,
    };
    containers::end_with(text, failed)
}

fn docker_view(value: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "Id": value["digest"], "RepoTags": value["names"] })
}

/// Waits for the end of what was asked for.
pub(super) fn end(pipe: Passed) -> Result<Vec<String>, Error> {
    read_end(BufReader::new(File::from(OwnedFd::from(pipe))))
}

fn read_end(pipe: impl BufRead) -> Result<Vec<String>, Error> {
    match outcome(pipe)? {
        End::Done(texts) => Ok(texts),
        // Only an import ends so, and asks for itself.
        End::Partly { problems, .. } => Err(Error::Refused(problems.join("; "))),
        End::Failed(reason) => Err(Error::Refused(reason)),
    }
}

fn outcome(pipe: impl BufRead) -> Result<End, Error> {
    answers::each(pipe).next().ok_or_else(answers::without_outcome)?
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

    #[tokio::test]
    async fn an_archive_that_was_taken_in_part_is_an_error_with_what_was_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let arguments = Import { file: None, input: Some(file.path().to_owned()) };
        let (api, mut peer) = peer::pair().await;
        let done = vec!["a:1 sha256:0".to_owned(), "sha256:1".to_owned()];
        let whole = peer::of_engine(&End::Done(done.clone()));
        let (told, ()) = tokio::join!(import(&api, &arguments, true), peer.answer("Import", &whole));
        let told: serde_json::Value = serde_json::from_str(&told.unwrap()).unwrap();
        assert_eq!(
            told,
            serde_json::json!([{ "name": "a:1", "digest": "sha256:0" }, { "name": null, "digest": "sha256:1" }])
        );
        let part = peer::of_engine(&End::Partly { done, problems: vec!["b:1: no".to_owned()] });
        let (told, ()) = tokio::join!(import(&api, &arguments, false), peer.answer("Import", &part));
        assert!(matches!(told, Err(Error::Told)));
    }

    #[tokio::test]
    async fn an_archive_that_fails_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.tar");
        std::fs::write(&path, "yesterday's").unwrap();
        let arguments = Save { output: Some(path.clone()), images: vec!["typo".into()] };
        let (api, mut peer) = peer::pair().await;
        let failed = peer::of_engine(&End::Failed("there is no image typo".to_owned()));
        let (told, ()) = tokio::join!(save(&api, &arguments, false), peer.answer("Save", &failed));
        assert_eq!(told.unwrap_err().to_string(), "there is no image typo");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "yesterday's");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
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
