//! Uploads to a registry of our own: as the distribution specification has them, and as registries differ from it.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::{HashMap, HashSet};

use berth_engine::digest::Digest;

use super::registry::{Act, Asked, Registry, json};

/// How a request fails that was done all the same, or in part.
pub enum Loss {
    /// The connection ends without an answer, after all was done.
    HangUp,
    /// All was done, and this is said.
    Says(u16),
    /// Only so many bytes arrive.
    Breaks(usize),
}

type Losing = Box<dyn FnMut(&Asked) -> Option<Loss> + Send>;

/// A registry's own way, and what it has.
pub struct Uploads {
    /// What is said to every `PATCH`.
    pub patch: Option<u16>,
    /// The largest chunk, in bytes.
    pub chunk: usize,
    /// The most that is taken at once in a `PUT`, in bytes.
    pub whole: usize,
    /// What goes wrong.
    pub loss: Losing,
    /// What has come of uploads, by their place.
    pub parts: HashMap<String, Vec<u8>>,
    /// The digests of what is whole.
    pub blobs: HashSet<String>,
    /// How many uploads there were.
    pub begun: usize,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            patch: None,
            chunk: usize::MAX,
            whole: usize::MAX,
            loss: Box::new(|_| None),
            parts: HashMap::new(),
            blobs: HashSet::new(),
            begun: 0,
        }
    }
}

impl Uploads {
    pub fn start(mut self) -> Registry {
        Registry::start(move |asked| self.act(asked))
    }

    pub fn act(&mut self, asked: &Asked) -> Act {
        match (self.loss)(asked) {
            None => self.answer(asked, &asked.bytes),
            Some(Loss::Breaks(there)) => {
                let (path, _) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
                self.parts.get_mut(path).unwrap().extend(&asked.bytes[..there]);
                json(503, "", "")
            }
            Some(loss) => {
                self.answer(asked, &asked.bytes);
                if let Loss::Says(status) = loss { json(status, "", "") } else { Act::HangUp }
            }
        }
    }

    fn answer(&mut self, asked: &Asked, body: &[u8]) -> Act {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let location = format!("Location: {path}\r\n");
        match asked.method.as_str() {
            "HEAD" => json(if self.blobs.contains(path.rsplit('/').next().unwrap()) { 200 } else { 404 }, "", ""),
            "POST" => {
                self.begun += 1;
                let place = format!("{path}{}", self.begun);
                self.parts.insert(place.clone(), Vec::new());
                json(202, &format!("Location: {place}\r\n"), "")
            }
            "PUT" if path.contains("/manifests/") => {
                let manifest: serde_json::Value = serde_json::from_slice(body).unwrap();
                let layers = manifest["layers"].as_array().unwrap().iter();
                let mut needed = layers.chain([&manifest["config"]]).map(|blob| blob["digest"].as_str().unwrap());
                json(if needed.all(|blob| self.blobs.contains(blob)) { 201 } else { 400 }, "", "")
            }
            "PATCH" if self.patch.is_some() => json(self.patch.unwrap(), "", ""),
            "PATCH" if body.len() > self.chunk => json(416, "", ""),
            "PUT" if body.len() > self.whole => json(413, "", ""),
            _ => match self.parts.get_mut(path) {
                None => json(404, "", ""),
                Some(there) if asked.method == "GET" => {
                    json(204, &format!("{location}Range: 0-{}\r\n", there.len().saturating_sub(1)), "")
                }
                Some(there) => {
                    let range = asked.header("content-range").split_once('-');
                    if range.map_or(0, |(first, _)| first.parse().unwrap()) != there.len() {
                        return json(416, "", "");
                    }
                    there.extend(body);
                    self.end(path, query, &location)
                }
            },
        }
    }

    /// After a part: with a digest it was the last one.
    fn end(&mut self, path: &str, query: &str, location: &str) -> Act {
        let Some(digest) = query.strip_prefix("digest=") else { return json(202, location, "") };
        if Digest::of(&self.parts.remove(path).unwrap()).to_string() != digest {
            return json(400, "", r#"{"errors":[{"message":"digest invalid"}]}"#);
        }
        self.blobs.insert(digest.to_owned());
        json(201, "", "")
    }
}
