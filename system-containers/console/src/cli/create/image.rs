//! `--pull` and `--platform` of `berth run` and `berth create`.

use std::str::FromStr;

use super::super::api::Api;
use super::super::error::Error;
use super::super::{image, images};

/// When the image is brought from its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// When it is not here, which is what the engine does by itself.
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

impl FromStr for Pull {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "missing" => Ok(Self::Missing),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("there are missing, always and never"),
        }
    }
}

/// `--platform`: this machine's, because nothing else runs here.
pub fn platform(text: &str) -> Result<String, String> {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let architecture = text.strip_prefix("linux/").unwrap_or(text);
    if architecture.split('/').next() == Some(here) {
        return Ok(text.to_owned());
    }
    Err(format!("this machine runs linux/{here}, which is chosen of an image without --platform"))
}

impl Pull {
    /// Before a container is made of it.
    pub async fn carry_out(self, api: &Api, name: &str, quiet: bool) -> Result<(), Error> {
        match self {
            Self::Missing => Ok(()),
            // Its name is for whoever pulls for its own sake.
            Self::Always => images::show(api.images.pull(name).await?, quiet, false).map(drop),
            Self::Never => match image::end(api.images.inspect(name).await?) {
                Err(Error::Refused(reason)) => Err(Error::Refused(format!(
                    "{reason}; `berth pull {name}` brings it here, or leave out --pull=never"
                ))),
                other => other.map(drop),
            },
        }
    }
}
