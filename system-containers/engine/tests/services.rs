//! Images of real services (`berth-tests` makes them of Debian's packages), unpacked by the engine and by umoci, and
//! compared entry by entry.

mod support;

use berth_tests::bench::Skipped;
use berth_tests::services::Service;
use support::tree::{alone, assert_equal, is_installed, mount, run, tree};
use support::{Machine, skip};

fn compare(service: Service) {
    let _alone = alone();
    for program in ["umoci", "skopeo"] {
        if !is_installed(program) {
            return skip(&format!("{program} is not installed"));
        }
    }
    let Some(machine) = Machine::new() else { return };
    let archive = match service.archive() {
        Ok(archive) => archive,
        Err(error) => match error.downcast_ref::<Skipped>() {
            Some(skipped) => return skip(&skipped.reason),
            None => panic!("{error:#}"),
        },
    };
    let store = machine.store();
    assert_eq!(machine.import(&store, &archive), [""; 0]);
    store.commit().unwrap();
    drop(store);
    let (layout, bundle) = (machine.path("layout"), machine.path("bundle"));
    let image = format!("{}:1", layout.display());
    run("skopeo", &["copy", "--quiet", &format!("oci-archive:{}", archive.display()), &format!("oci:{image}")]);
    run("umoci", &["unpack", "--image", &image, &bundle.display().to_string()]);
    let mounted = mount(&machine, "seen", &format!("localhost/{}:1", service.name()));
    let ours = tree(&mounted.0);
    assert!(ours.len() > 100, "{} entries are no service", ours.len());
    assert_equal(&ours, &tree(&bundle.join("rootfs")));
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
