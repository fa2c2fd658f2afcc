//! Whatever the bytes: an answer, no panic, and diagnostics that are fit to be shown. `PROPTEST_CASES=100000` looks
//! longer.

use berth_config::{DIAGNOSTIC_LIMIT, Diagnostic, Source, Style, load, load_system_container};
use proptest::prelude::*;

const GOOD: &str = r#"
hostname = "dock1"
sysctls = { "vm.swappiness" = 10 }
[network]
dns = ["192.0.2.53"]
[network.links.eth0]
match = { mac = "52:54:*" }
addresses = ["192.0.2.7/24"]
gateways = ["192.0.2.1"]
routes = [{ destination = "10.0.0.0/8", gateway = "192.0.2.9", metric = 5 }]
[containers.web]
image = "docker.io/library/nginx:1.27"
command = "nginx -g 'daemon off;'"
ports = ["8080:80", "[::1]:5300:53/udp"]
volumes = ["web-data:/usr/share/nginx/html:ro"]
tmpfs = ["/run:size=1M"]
environment = ["TZ=UTC"]
restart = "on-failure:3"
memory = "256M"
cpus = 1.5
stop_grace_period = "1m30s"
ulimits = { nofile = 1024 }
depends_on = ["db"]
[containers.db]
image = "postgres"
cap_drop = ["ALL"]
"#;

/// Pieces of TOML and of our own grammar, to be thrown together.
const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "'",
    "'''",
    "\"\"\"",
    "\n",
    " ",
    "#",
    "\\",
    "\u{feff}",
    "ä",
    "\u{202e}",
    "\x1b[2J",
    "containers",
    "web",
    "network",
    "links",
    "image",
    "ports",
    "memory",
    "8080:80",
    "1e400",
    "-",
    "1979-05-27",
    "0x",
    "inf",
    "99999999999999999999",
    "1.",
    "true",
    "match",
    "depends_on",
    "ulimits",
    "sysctls",
    "…",
    "\r",
    "\0",
];

fn answers(sources: &[Source]) -> Result<(), TestCaseError> {
    let mistakes = match load(sources) {
        Ok(_) => return Ok(()),
        Err(mistakes) => mistakes,
    };
    prop_assert!(!mistakes.is_empty() && mistakes.len() <= DIAGNOSTIC_LIMIT);
    for mistake in &mistakes {
        let plain = mistake.render(Style::Plain);
        let summary = mistake.summary();
        prop_assert!(plain.chars().all(|character| character == '\n' || !character.is_control()), "{:?}", plain);
        prop_assert!(summary.chars().all(|character| !character.is_control()), "{:?}", summary);
        prop_assert!(plain.lines().all(|line| line.chars().count() < 700), "{}", plain);
        prop_assert!(mistake.location.start + mistake.location.length <= mistake.location.excerpt.chars().count());
        mistake.render(Style::Colour);
        let json = serde_json::to_string(mistake).expect("it can be written");
        prop_assert_eq!(&serde_json::from_str::<Diagnostic>(&json).expect("it can be read"), mistake);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        answers(&[Source::new("a", bytes.clone())])?;
        // It is enough that it returns.
        let _ = load_system_container(&Source::new("b", bytes));
    }

    #[test]
    fn any_text_is_answered(one in any::<String>(), two in any::<String>()) {
        answers(&[Source::new("one", one), Source::new("two", two)])?;
    }

    #[test]
    fn any_pieces_are_answered(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60)) {
        answers(&[Source::new("pieces", pieces.concat())])?;
    }

    #[test]
    fn a_damaged_configuration_is_answered(
        damage in proptest::collection::vec((0..GOOD.len(), 0..12_usize, proptest::sample::select(PIECES)), 1..4),
    ) {
        let mut text = GOOD.as_bytes().to_vec();
        for (start, length, piece) in damage {
            let start = start.min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.bytes());
        }
        answers(&[Source::new("base", GOOD), Source::new("damaged", text)])?;
    }
}

#[test]
fn the_undamaged_configuration_is_good() {
    let mistakes = load(&[Source::new("base", GOOD)]).err();
    assert!(mistakes.is_none(), "{mistakes:#?}");
}
