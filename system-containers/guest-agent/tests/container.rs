//! The container's description.

use berth_config::{Readiness, SystemContainer};

#[test]
fn the_description_is_what_pid_1_reads() {
    let container: SystemContainer = toml::from_str(include_str!("../container.toml")).unwrap();
    let condition = container.condition.unwrap();
    assert_eq!(condition.virtio_port.as_deref(), Some(berth_guest_agent::port::NAME));
    assert_eq!(container.readiness, Readiness::Started);
}
