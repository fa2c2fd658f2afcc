//! `linux.devices`, the default devices, device rules, terminals.

use serde_json::json;

use super::Test;
use crate::bundle::Bundle;
use crate::tool::{Crun, Runc, agree};

pub const CASES: &[Test] = &[
    ("the_default_devices_are_there", the_default_devices_are_there),
    ("the_default_links_are_there", the_default_links_are_there),
    ("a_device_is_made_as_configured", a_device_is_made_as_configured),
    ("a_device_outside_of_dev_is_made", a_device_outside_of_dev_is_made),
    ("a_fifo_is_made", a_fifo_is_made),
    ("a_device_of_the_image_is_used", a_device_of_the_image_is_used),
    ("another_file_at_a_devices_place_is_refused", another_file_at_a_devices_place_is_refused),
    ("a_device_of_an_unknown_type_is_refused", a_device_of_an_unknown_type_is_refused),
    ("devices_without_a_rule_cannot_be_used", devices_without_a_rule_cannot_be_used),
    ("device_rules_are_applied_in_their_order", device_rules_are_applied_in_their_order),
    ("a_terminal_is_controlling_and_has_its_size", a_terminal_is_controlling_and_has_its_size),
    ("a_terminal_in_a_user_namespace", a_terminal_in_a_user_namespace),
];

const LIST: &str = "for node in null zero full random urandom tty; do stat -c '%n %F %t:%T %a %u:%g' /dev/$node; done";

/// "the runtime MUST also supply" null, zero, full, random, urandom, tty.
fn the_default_devices_are_there() {
    let line = |name, number| format!("/dev/{name} character special file {number} 666 0:0\n");
    let nodes =
        [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")];
    let expected: String = nodes.map(|(name, number)| line(name, number)).concat();
    Bundle::new(LIST).prints(&expected, &[]);
    let line = |name, number| format!("/dev/{name} {number} 666\n");
    let expected = nodes.map(|(name, number)| line(name, number)).concat();
    Bundle::unprivileged("for node in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$node; done")
        .prints(&expected, &[]);
    let use_them = "echo x >/dev/null; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; echo 2>/dev/null x >/dev/full || echo full";
    for bundle in [Bundle::new(use_them), Bundle::unprivileged(use_them)] {
        bundle.prints("2\n2\nfull\n", &[]);
    }
}

/// `/dev/ptmx`: "A bind-mount or symlink of the container's `/dev/pts/ptmx`".
fn the_default_links_are_there() {
    let script =
        "for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done; [ -e /dev/console ] || echo none";
    let expected = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\nnone\n";
    for bundle in [Bundle::new(script), Bundle::unprivileged(script)] {
        bundle.prints(expected, &[]);
    }
}

fn a_device_is_made_as_configured() {
    let device = json!([{ "type": "c", "path": "/dev/deep/zero", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4 }]);
    let bundle = Bundle::new("stat -c '%F %t:%T %a %u:%g' /dev/deep/zero").set("/linux/devices", device);
    bundle.prints("character special file 1:5 640 3:4\n", &[]);
}

/// "The path MAY be anywhere in the container filesystem, notably outside of `/dev`."
fn a_device_outside_of_dev_is_made() {
    let device = json!([{ "type": "c", "path": "/devices/null", "major": 1, "minor": 3 }]);
    let bundle = Bundle::new("stat -c '%F %t:%T' /devices/null").set("/linux/devices", device);
    bundle.prints("character special file 1:3\n", &[]);
}

fn a_fifo_is_made() {
    let device = json!([{ "type": "p", "path": "/dev/fifo", "fileMode": 0o600 }]);
    let script = "stat -c '%F %a' /dev/fifo";
    Bundle::new(script).set("/linux/devices", device.clone()).prints(
        "fifo 600
",
        &[],
    );
    let nowhere = [(Runc, "takes devices from the host in a user namespace, which has no such FIFO")];
    Bundle::unprivileged(script).set("/linux/devices", device).prints(
        "fifo 600
",
        &nowhere,
    );
}

fn a_device_of_the_image_is_used() {
    let bundle = Bundle::new("stat -c '%F %t:%T' /null").prepare("mknod rootfs/null c 1 3");
    let device = json!([{ "type": "c", "path": "/null", "major": 1, "minor": 3 }]);
    bundle.set("/linux/devices", device).prints("character special file 1:3\n", &[]);
}

/// "If a file already exists at `path` that does not match the requested device, the runtime MUST generate an error."
fn another_file_at_a_devices_place_is_refused() {
    let device = json!([{ "type": "c", "path": "/null", "major": 1, "minor": 3 }]);
    for prepare in ["touch rootfs/null", "mknod rootfs/null c 1 5", "mknod rootfs/null b 1 3", "mkdir rootfs/null"] {
        let reason = "takes what is there, or puts the device over it";
        let bundle = Bundle::new("true").prepare(prepare).set("/linux/devices", device.clone());
        bundle.is_refused(&[(Crun, reason), (Runc, reason)]);
    }
}

fn a_device_of_an_unknown_type_is_refused() {
    let device = json!([{ "type": "x", "path": "/dev/x", "major": 1, "minor": 3 }]);
    Bundle::new("true").set("/linux/devices", device).is_refused(&[(Crun, "leaves it out")]);
}

fn all_capabilities(bundle: Bundle) -> Bundle {
    let set = json!(["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    bundle.set("/process/capabilities", json!({ "bounding": set, "effective": set, "permitted": set }))
}

const TRY: &str = "mknod /loop b 7 0 && head -c 1 /loop >/dev/null 2>&1 && echo loop
    mknod /kmsg c 1 11 && head -c 1 /kmsg >/dev/null 2>&1 && echo kmsg
    echo x 2>/dev/null >/dev/null && echo null";

fn devices_without_a_rule_cannot_be_used() {
    let open = [(Crun, "allows every device where there are no rules")];
    all_capabilities(Bundle::new(TRY)).prints("null\n", &open);
    let nothing = json!([{ "allow": false, "access": "rwm" }]);
    // Making any is fine, as none can be opened.
    let script = format!("mknod /any c 200 7 || echo not made; {TRY}");
    all_capabilities(Bundle::new(&script)).set("/linux/resources/devices", nothing).prints("null\n", &[]);
}

/// "The runtime MUST apply entries in the listed order."
fn device_rules_are_applied_in_their_order() {
    let script = "mknod /loop b 7 0; (: </loop) 2>/dev/null && echo read; (: >/loop) 2>/dev/null && echo write; true";
    let deny = json!({ "allow": false, "access": "rwm" });
    let allow = json!({ "allow": true, "type": "b", "major": 7, "minor": 0, "access": "rm" });
    let bundle = all_capabilities(Bundle::new(script));
    bundle.clone().set("/linux/resources/devices", json!([deny, allow])).prints("read\n", &[]);
    bundle
        .set("/linux/resources/devices", json!([deny, allow, { "allow": true, "access": "rwm" }]))
        .prints("read\nwrite\n", &[]);
}

fn terminal(bundle: Bundle, expected: &str) {
    let bundle = bundle.set("/process/terminal", json!(true));
    let bundle = bundle.set("/process/consoleSize", json!({ "height": 33, "width": 77 }));
    let link = [(Crun, "makes /dev/console a link; the specification says a bind mount")];
    // Without a console socket all three stand in with a terminal of their own.
    agree(&bundle, expected, &link, |tool| tool.in_terminal().replace('\r', ""));
}

fn a_terminal_is_controlling_and_has_its_size() {
    terminal(
        Bundle::new("tty; stty size; tty </dev/console; cut -d' ' -f 7 /proc/$$/stat; stat -c '%a %u:%g' /dev/console"),
        "/dev/pts/0\n33 77\n/dev/console\n34816\n620 0:5\n",
    );
}

fn a_terminal_in_a_user_namespace() {
    terminal(Bundle::unprivileged("tty; stty size; tty </dev/console"), "/dev/pts/0\n33 77\n/dev/console\n");
}
