//! Images of real services (`berth-tests` makes them of Debian's packages), imported and pulled by the engine, unpacked by
//! umoci, and compared entry by entry.

mod support;

use std::path::{Path, PathBuf};

use berth_tests::bench::Skipped;
use berth_tests::services::Service;
use support::client::Client;
use support::peer::{folder, offering, plain};
use support::skip;
use support::tree::{alone, assert_equal, mount, mount_of, run, tree};
use support::umoci::{Tree, bench, import, unpack_by_umoci};

/// The service's image in an archive.
fn archive(service: Service) -> Option<PathBuf> {
    match service.archive() {
        Ok(archive) => Some(archive),
        Err(error) => match error.downcast_ref::<Skipped>() {
            Some(skipped) => {
                skip(&skipped.reason);
                None
            }
            None => panic!("{error:#}"),
        },
    }
}

fn compare(service: Service) {
    let _alone = alone();
    let Some(machine) = bench() else { return };
    let Some(archive) = archive(service) else { return };
    let layout = machine.path("layout").display().to_string();
    run("skopeo", &["copy", "--quiet", &format!("oci-archive:{}", archive.display()), &format!("oci:{layout}:1")]);
    let expected = tree(&unpack_by_umoci(&machine, "1"));
    assert!(expected.len() > 100, "{} entries are no service", expected.len());
    std::fs::copy(&archive, machine.path("user-data/images/made.tar")).unwrap();
    import(&machine, "made.tar");
    let mounted = mount(&machine, "seen", &format!("localhost/{}:1", service.name()));
    assert_equal(&tree(&mounted.0), &expected);
    drop(mounted);
    compare_pulled(&archive, &expected);
}

/// The same image from a registry, compressed.
fn compare_pulled(archive: &Path, expected: &Tree) {
    let Some(folder) = folder(&["docker-registry"]) else { return };
    for method in ["gzip", "zstd"] {
        let (peer, name) = offering(folder.path(), &format!("oci-archive:{}", archive.display()), method, 2);
        let client = Client::new(&[]).unwrap().configured(&plain(&peer.name));
        assert_eq!(client.pull(&name).unwrap().layers, 2, "{method}");
        let mounted = mount_of(&client.store, &client.machine, "seen", &name);
        assert_equal(&tree(&mounted.0), expected);
    }
}

#[test]
fn nginx_unpacks_to_the_same_tree() {
    compare(Service::Nginx);
}

#[test]
fn redis_unpacks_to_the_same_tree() {
    compare(Service::Redis);
}

#[test]
fn postgresql_unpacks_to_the_same_tree() {
    compare(Service::Postgresql);
}
