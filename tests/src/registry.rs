//! A registry on this host: Debian's docker-registry, filled by skopeo.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::skip;
use crate::wait;

/// Between two looks whether it listens.
const PAUSE: Duration = Duration::from_millis(20);

/// How machines reach this host: the gateway of QEMU's user network.
const HOST: &str = "10.0.2.2";

/// It ends with this value.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts an empty one.
    ///
    /// # Errors
    /// If its programs are not installed, which skips the case, or it does not come up.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Free a moment ago; should another take it meanwhile, the registry ends and says so.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let configuration = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            folder.path().join("content").display()
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, configuration)?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let started =
            Command::new("docker-registry").arg("serve").arg(&path).stdout(log.try_clone()?).stderr(log).spawn();
        let process = match started {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(skip("docker-registry is not installed"));
            }
            started => started.context("start docker-registry")?,
        };
        let mut registry = Self { process, address, folder };
        let deadline = Instant::now() + wait::ANSWER;
        // It tells nobody that it listens.
        while TcpStream::connect(address).is_err() {
            if registry.process.try_wait()?.is_some() || Instant::now() > deadline {
                bail!(
                    "docker-registry does not come up: {}",
                    std::fs::read_to_string(registry.folder.path().join("log"))?
                );
            }
            std::thread::sleep(PAUSE);
        }
        Ok(registry)
    }

    /// Its name in machines: host and port.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{HOST}:{}", self.address.port())
    }

    /// Its name on this host.
    #[must_use]
    pub fn local_name(&self) -> String {
        self.address.to_string()
    }

    /// Its process, by number.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Brings a docker-save archive's image there.
    ///
    /// # Errors
    /// If skopeo is not installed, which skips the case, or fails.
    pub fn push(&self, archive: &[u8], name: &str) -> Result<()> {
        let path = self.folder.path().join("image.tar");
        std::fs::File::create(&path)?.write_all(archive)?;
        copy(&[], &format!("docker-archive:{}", path.display()), &format!("{}/{name}", self.address))
    }

    /// Brings the image of an OCI layout in an archive there.
    ///
    /// # Errors
    /// If skopeo is not installed, which skips the case, or fails.
    pub fn push_layout(&self, archive: &Path, name: &str) -> Result<()> {
        copy(&[], &format!("oci-archive:{}", archive.display()), &format!("{}/{name}", self.address))
    }

    /// Brings the image of an OCI layout in a folder there, its layers as they are.
    ///
    /// # Errors
    /// If skopeo is not installed, which skips the case, or fails.
    pub fn push_folder(&self, folder: &Path, name: &str) -> Result<()> {
        // Else it may put layers in their place that were compressed otherwise, if the registry has had them from this machine.
        copy(&["--preserve-digests"], &format!("oci:{}", folder.display()), &format!("{}/{name}", self.address))
    }
}

fn copy(options: &[&str], source: &str, target: &str) -> Result<()> {
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false", "--insecure-policy"])
        .args(options)
        .args([source, &format!("docker://{target}")])
        .stdin(Stdio::null())
        .output();
    let copied = match copied {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(skip("skopeo is not installed")),
        copied => copied.context("start skopeo")?,
    };
    ensure!(copied.status.success(), "skopeo: {}", String::from_utf8_lossy(&copied.stderr));
    Ok(())
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
