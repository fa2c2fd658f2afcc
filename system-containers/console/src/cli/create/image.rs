//! `--pull` of `berth run` and `berth create`.

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

impl Pull {
    /// Before a container is made of it.
    pub async fn carry_out(self, api: &Api, name: &str) -> Result<(), Error> {
        match self {
            Self::Missing => Ok(()),
            // Its name is for whoever pulls for its own sake.
            Self::Always => images::show(api.images.pull(name).await?, false, false).map(drop),
            Self::Never => match image::end(api.images.inspect(name).await?) {
                Err(Error::Refused(reason)) => Err(Error::Refused(format!(
                    "{reason}; `berth pull {name}` brings it here, or leave out --pull=never"
                ))),
                other => other.map(drop),
            },
        }
    }
}
