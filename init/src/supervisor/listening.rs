//! Whether somebody listens on a TCP port in a container's network, as the kernel lists its sockets there (proc_pid_net(5)).
//!
//! Whichever of its addresses it is, and without a connection that the program would have to take.

use std::fs::File;
use std::io::Read;

/// So much of a list is read, in bytes. The kernel begins with the sockets that listen, with 150 bytes for each.
const LIST: u64 = 256 * 1024;

/// What the lists have for a socket that listens (the kernel's TCP_LISTEN).
const LISTENS: &str = "0A";

/// Whether somebody does in the network of the process with this number.
pub(super) fn listens(pid: i32, port: u16) -> bool {
    ["tcp", "tcp6"].into_iter().any(|list| {
        let mut text = String::new();
        // Without IPv6 there is no second list, and without the process none.
        let read =
            File::open(format!("/proc/{pid}/net/{list}")).and_then(|file| file.take(LIST).read_to_string(&mut text));
        read.is_ok() && text.lines().skip(1).any(|line| is_listener(line, port))
    })
}

/// Of a line such as `0: 0100007F:1F90 00000000:0000 0A …`.
fn is_listener(line: &str, port: u16) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next(), words.nth(1));
    let number = local.and_then(|local| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok());
    state == Some(LISTENS) && number == Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens_on_any_address_is_seen() {
        let own = std::process::id().cast_signed();
        for address in ["127.0.0.1:0", "127.3.2.1:0", "0.0.0.0:0", "[::]:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "{address}, without IPv6");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            assert!(listens(own, port), "{address}");
            drop(listener);
            assert!(!listens(own, port), "{address}");
        }
        assert!(!listens(i32::MAX, 80));
    }

    #[test]
    fn who_is_connected_does_not_listen() {
        let line = "   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 7 1";
        assert!(!is_listener(line, 8080));
        assert!(is_listener(&line.replace(" 01 ", " 0A "), 8080));
        assert!(!is_listener(&line.replace(" 01 ", " 0A "), 50000));
        assert!(!is_listener("", 0));
    }
}
