//! Containers that wait for their images, and the way from an image's absence to its presence.

use std::collections::BTreeSet;
use std::time::Instant;

use berth_control::message::Request;

use super::preparer::{Job, Preparation};
use super::{Service, ServiceError};
use crate::digest::Digest;
use crate::import::describe;
use crate::missing;
use crate::pull::puller;
use crate::reference::Reference;
use crate::trust;
use crate::wanted::Step;

impl Service {
    /// Prepares every waiting container whose image is there, and has those of the others pulled.
    pub(super) fn try_waiting(&mut self) -> Result<(), ServiceError> {
        if !self.looked {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for (name, (declaration, told)) in std::mem::take(&mut self.waiting) {
            let reference: Reference = match declaration.container.image.as_str().parse() {
                Ok(reference) => reference,
                Err(error) => {
                    self.ask(failed(name, &describe(&error)))?;
                    continue;
                }
            };
            let searched = !self.busy && !self.may_look_again;
            if let Some(reason) = self.refusal(&reference, searched) {
                self.ask(failed(name, &reason))?;
                continue;
            }
            let found = self.store.resolve_for(&name, &reference);
            if let Some((digest, image)) = found.filter(|(digest, _)| self.is_trusted(&reference, *digest)) {
                self.jobs_open += 1;
                // The preparer ends only with the process.
                let preparation = Preparation { declaration, round: self.round, digest, image };
                let _ = self.jobs.send(Job::Prepare(Box::new(preparation)));
                continue;
            }
            // What is called so was made here, as with podman and buildah.
            if searched && reference.registry() == "localhost" {
                self.ask(failed(name, &missing::explain(&reference, &self.store, None)))?;
                continue;
            }
            wanted.insert(reference.to_string());
            let told = if searched { self.pull(&name, &reference, told)? } else { told };
            self.waiting.insert(name, (declaration, told));
        }
        self.wanted.only(&wanted);
        if !self.waiting.is_empty() && !self.busy && self.may_look_again {
            self.look();
        }
        Ok(())
    }

    /// Why an image is not to be run, whatever it is. None of an archive's is refused, nor one that may still be in an archive
    /// before all are `searched`.
    fn refusal(&self, reference: &Reference, searched: bool) -> Option<String> {
        let error = trust::refuse_unpinned(&self.registries.as_ref()?.trust, reference).err()?;
        let found = self.store.resolve(reference);
        let refused = found.map_or(searched, |(digest, _)| !self.store.is_of_an_archive(reference, digest));
        refused.then(|| describe(&error))
    }

    /// Whether the image was taken by the policy that counts now for its name. Else it is pulled again, which asks the policy.
    fn is_trusted(&self, reference: &Reference, digest: Digest) -> bool {
        let policy = self.registries.as_ref().and_then(|registries| trust::digest(&registries.trust, reference));
        policy.is_none_or(|policy| self.store.is_taken_by(reference, digest, policy))
    }

    /// Takes the next step towards a missing image, and says so if it has not been said.
    fn pull(&mut self, name: &str, reference: &Reference, told: String) -> Result<String, ServiceError> {
        let image = reference.to_string();
        let step = self.wanted.missing(&image, Instant::now());
        if step == Step::Pull {
            // The puller ends only with the process.
            let _ = self.pulls.send(puller::Task::Pull(reference.clone()));
        }
        let (reason, retry_s) = match step {
            Step::Pull | Step::Wait => (format!("{image} is being pulled"), None),
            Step::Later(reason, delay) => (reason, Some(delay.as_secs())),
        };
        let news = format!("{reason} {}", retry_s.unwrap_or_default());
        // A further try is no news as long as the last one's failure is.
        if news != told && (retry_s.is_some() || told.is_empty()) {
            let reason = shortened(&reason).to_owned();
            self.ask(Request::PrepareDelayed { name: name.to_owned(), reason, retry_s })?;
            return Ok(news);
        }
        Ok(told)
    }
}

/// The longest reason that is sent, in bytes.
const REASON_BYTES: usize = 4096;

pub(super) fn failed(name: String, reason: &str) -> Request {
    Request::PrepareFailed { name, reason: shortened(reason).to_owned() }
}

fn shortened(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES)]
}
