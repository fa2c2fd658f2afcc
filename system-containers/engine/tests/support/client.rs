//! Pulls in tests.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_config::Configuration;
use berth_control::images::{Pulled, Query};
use berth_control::message::Registries;
use berth_engine::commands::Command;
use berth_engine::digest::Digest;
use berth_engine::export::push::{self, Pushed};
use berth_engine::import::describe;
use berth_engine::pull::Pulling;
use berth_engine::pull::progress::Progress;
use berth_engine::registry::credentials::Credentials;
use berth_engine::registry::{self, Patience, Settings, Shared, endpoint};
use berth_engine::store::Store;

use super::registry::{Act, Asked, Registry};
use super::{Image, Machine, Method, Tar, oci_archive};

/// Long enough for a loaded machine, short enough to wait for.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(20),
    answer: Duration::from_secs(20),
    idle: Duration::from_millis(300),
    rate: 1 << 10,
    retries: 3,
    delay: Duration::from_millis(1),
    longest_delay: Duration::from_millis(20),
};

/// To push, what takes a body may be as busy as what answers.
const PUSHING: Patience = Patience { idle: PATIENCE.answer, ..PATIENCE };

/// A layer with one file of this name.
pub fn layer(name: &str) -> Vec<u8> {
    // Hardly compressible, so that a blob comes in several pieces.
    let mut noise = Vec::new();
    for number in 0..2000 {
        noise.extend_from_slice(Digest::of(format!("{name} {number}").as_bytes()).hex().as_bytes());
    }
    Tar::default().file(name, &noise).finish()
}

/// Pulls an image from a registry with this script; it must be refused for this reason.
pub fn refused(script: impl FnMut(&Asked) -> Act + Send + 'static, reason: &str) {
    let registry = Registry::start(script);
    registry.push("demo", "1", &image());
    let Some(client) = Client::new(&[&registry]) else { return };
    let name = format!("{}/demo:1", registry.name());
    let error = client.pull(&name).unwrap_err();
    assert!(error.contains(reason), "{error}");
    client.has_no_image(&name);
}

/// An image of four layers, compressed in every way.
pub fn image() -> Image {
    let mut image = Image::new("demo", vec![layer("a"), layer("b"), layer("c"), layer("d")]);
    image.layers[1].0 = Method::Gzip;
    image.layers[2].0 = Method::Zstd;
    image
}

/// An image with a layer of 20 MB, also compressed, and a small one.
pub fn large() -> Image {
    // xorshift, which no method compresses.
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let noise: Vec<u8> = (0..2_500_000).flat_map(|_| next().to_le_bytes()).collect();
    Image::new("large:1", vec![Tar::default().file("l", &noise).finish(), Tar::default().file("s", b"small").finish()])
}

pub fn shared() -> Shared {
    Shared { pool: Arc::default(), tokens: Arc::default(), patience: PATIENCE }
}

pub fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Pulls into a store of its own, and pushes from there.
pub struct Client {
    pub machine: Machine,
    pub store: Arc<Store>,
    pub configuration: String,
    pub patience: Patience,
    pub pushing: Patience,
}

impl Client {
    /// Speaks plain HTTP with these registries.
    pub fn new(registries: &[&Registry]) -> Option<Self> {
        let machine = Machine::new()?;
        let store = Arc::new(machine.store());
        let plain = |registry: &&Registry| format!("[registries.'{}']\nplain_http = true\n", registry.name());
        Some(Self {
            machine,
            store,
            configuration: registries.iter().map(plain).collect(),
            patience: PATIENCE,
            pushing: PUSHING,
        })
    }

    pub fn configured(mut self, more: &str) -> Self {
        self.configuration.push_str(more);
        self
    }

    pub fn settings(&self) -> Settings {
        let configuration: Configuration = toml::from_str(&self.configuration).unwrap();
        let Configuration { registries, trust, proxy, images, .. } = configuration;
        let registries = Registries { registries, trust, proxy, images };
        Settings::new(registries, &self.machine.path("user-data"))
    }

    pub fn pull_all(&self, images: &[String]) -> Vec<Result<Pulled, String>> {
        block(async {
            let shared = Shared { patience: self.patience, ..shared() };
            let pulling = Pulling::new(Arc::clone(&self.store), shared);
            let mut tasks = Vec::new();
            for image in images {
                let (pulling, settings, reference) = (pulling.clone(), self.settings(), image.parse().unwrap());
                tasks.push(tokio::spawn(async move { pulling.pull(&reference, settings, &Arc::default()).await }));
            }
            let mut ends = Vec::new();
            for task in tasks {
                ends.push(task.await.unwrap().map_err(|error| describe(&error)));
            }
            ends
        })
    }

    pub fn pull(&self, image: &str) -> Result<Pulled, String> {
        self.pull_all(&[image.to_owned()]).remove(0)
    }

    pub fn import(&self, images: &[Image]) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&oci_archive(images)).unwrap();
        let command = Command::of(Query::Import { name: "x".to_owned() }, Some(OwnedFd::from(file))).unwrap();
        command.run(&self.store).unwrap();
    }

    pub fn tag(&self, source: &str, target: &str) {
        let query = Query::Tag { source: source.to_owned(), target: target.to_owned() };
        Command::of(query, None).unwrap().run(&self.store).unwrap();
    }

    pub fn push(&self, name: &str, login: Option<Credentials>) -> Result<Pushed, String> {
        let (client, reference) = (self.registry(name, login), name.parse().unwrap());
        block(push::push(&self.store, &client, &reference, &Progress::default())).map_err(|error| describe(&error))
    }

    /// The repository of an image.
    pub fn registry(&self, name: &str, login: Option<Credentials>) -> registry::Client {
        let mut settings = self.settings();
        let (registry, path) = name.split_once('/').unwrap();
        if let Some(login) = login {
            settings = settings.with_login(registry, login);
        }
        let repository = path.rsplit_once(':').unwrap().0.to_owned();
        let endpoint = endpoint::endpoint(registry, repository, &settings).unwrap();
        registry::Client::new(&Shared { patience: self.pushing, ..shared() }, Arc::new(settings), endpoint)
    }

    /// That the image is there, with every file of its layers.
    pub fn holds(&self, name: &str, image: &Image) {
        let (_, record) = self.store.resolve(&name.parse().unwrap()).expect("it is there");
        assert_eq!(record.chain.len(), image.layers.len());
        for ((_, tar), id) in image.layers.iter().zip(&record.chain) {
            let name = std::str::from_utf8(&tar[..1]).unwrap();
            let content = super::content(&self.store, *id, name);
            assert_eq!(&tar[512..512 + content.len()], content);
        }
    }

    /// That nothing of a failed pull is visible beyond its first layers.
    pub fn has_no_image(&self, name: &str) {
        assert!(self.store.resolve(&name.parse().unwrap()).is_none());
        assert_eq!(std::fs::read_dir(self.machine.path("images/tmp")).unwrap().count(), 0, "nothing is left behind");
    }
}
