//! Debian's docker-registry for a test.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::client::image;
use super::{oci_archive, skip};

/// Between two looks whether a registry listens: it tells nobody.
const PAUSE: Duration = Duration::from_millis(20);

/// A docker-registry that ends with this value.
pub struct Peer {
    process: Child,
    pub name: String,
}

impl Peer {
    /// Its content lies in `folder`; `more` goes into its configuration, `tls` below `http`.
    pub fn start(folder: &Path, tls: &str, more: &str) -> Self {
        let name = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let content = folder.join("content");
        let configuration = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {name}\n{tls}{more}",
            content.display()
        );
        let path = folder.join(format!("{name}.yml"));
        std::fs::write(&path, configuration).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(&name).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "the registry ended");
            std::thread::sleep(PAUSE);
        }
        Self { process, name }
    }

    /// Brings the test image there, which must be plain.
    pub fn fill(&self, folder: &Path) {
        self.fill_with(folder, &[]);
    }

    /// The same with more options for skopeo.
    pub fn fill_with(&self, folder: &Path, options: &[&str]) {
        let archive = folder.join("image.tar");
        std::fs::write(&archive, oci_archive(&[image()])).unwrap();
        let target = format!("docker://{}/demo/web:1", self.name);
        let source = format!("oci-archive:{}", archive.display());
        let begin = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"];
        run("skopeo", &[&begin[..], options, &[&source, &target]].concat(), folder);
    }
}

/// A registry of its own with an image whose layers, so many, are compressed in this way, and the image's name: skopeo
/// remembers what a registry has had, and puts that in a new layer's place.
pub fn offering(folder: &Path, source: &str, method: &str, layers: usize) -> (Peer, String) {
    let own = folder.join(method);
    std::fs::create_dir(&own).unwrap();
    let peer = Peer::start(&own, "", "");
    let name = format!("{}/demo/{}:1", peer.name, method.replace(':', "-"));
    let target = format!("docker://{name}");
    let options = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-compress-format", method];
    run("skopeo", &[&options[..], &[source, &target]].concat(), folder);
    let sent = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &target], folder);
    let sent = String::from_utf8(sent).unwrap();
    assert_eq!(sent.matches(&format!("tar+{}", &method[..4])).count(), layers, "{sent}");
    (peer, name)
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

pub fn run(program: &str, arguments: &[&str], folder: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A folder, if all programs are there.
pub fn folder(programs: &[&str]) -> Option<tempfile::TempDir> {
    for program in programs {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|path| path.join(program).exists());
        if !found {
            skip(&format!("{program} is not installed"));
            return None;
        }
    }
    Some(tempfile::tempdir().unwrap())
}

pub fn plain(name: &str) -> String {
    format!("[registries.'{name}']\nplain_http = true\n")
}
