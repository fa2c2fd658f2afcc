//! The names of images against the grammar of the distribution project's `reference` package and of the OCI distribution
//! specification 1.1 ("Pulling manifests"), a production at a time.

use berth_engine::reference::Reference;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A production, and what follows it in a name.
struct Production {
    rule: &'static str,
    /// `_` stands for what the production is tried with.
    place: &'static str,
    taken: &'static [&'static str],
    refused: &'static [&'static str],
}

const GRAMMAR: &[Production] = &[
    Production {
        rule: "name := [domain '/'] remote-name",
        place: "_",
        taken: &["a", "a/b", "a/b/c", "x.y/a", "x:1/a", "localhost/a", "x.y/a/b/c/d", "x.y"],
        refused: &["/", "/a", "a/", "a//b", "x.y/", "x:1/", "//x.y/a", " a", "a ", "a\n"],
    },
    Production {
        rule: "domain-component := [a-zA-Z0-9] | [a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]",
        place: "_.example/a",
        taken: &["x", "X", "0", "x-y", "x--y", "a.b.c", "xn--n3h"],
        refused: &["-x", "x-", "x_y", "", "x..y", ".x", "x.", "é", "x y", "x@y"],
    },
    Production {
        rule: "host := domain-name | IPv4address | '[' IPv6address ']'",
        place: "_:5000/a",
        taken: &["registry", "127.0.0.1", "[::1]", "[2001:db8::1]", "Registry"],
        refused: &["[", "[]", "::1", "[::1", "::1]", "[fe80::1%eth0]", "[x]", "[::1]x", "host:1"],
    },
    Production {
        rule: "port-number := [0-9]+",
        place: "registry:_/a",
        taken: &["1", "80", "5000", "65535"],
        // Nobody listens on the last two.
        refused: &["", "x", "-1", "+1", "1x", "0", "65536"],
    },
    Production {
        rule: "path-component := [a-z0-9]+((.|_|__|-+)[a-z0-9]+)*",
        place: "x.example/a/_/b",
        taken: &["a", "0", "a.b", "a_b", "a__b", "a-b", "a--b", "a-----b", "a.b_c__d-e", "0a1"],
        refused: &["", "A", "a.", ".a", "_a", "a_", "-a", "a-", "a..b", "a___b", "a._b", "a-_b", "a+b", "é", ".", ".."],
    },
    Production {
        rule: "tag := [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}",
        place: "x.example/a:_",
        taken: &["1", "a", "A", "_", "_.-", "v1.2.3-rc.1_x", "latest", "0.0"],
        refused: &["", ".a", "-a", "a/b", "a:b", "a+b", "a b", "é"],
    },
    Production {
        rule: "digest := algorithm ':' hex",
        place: "x.example/a@_",
        taken: &["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
        refused: &[
            "",
            "sha256",
            "sha256:",
            ":e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:e3b0",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855a",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855@sha256:e3b0",
        ],
    },
];

#[test]
fn every_production_takes_and_refuses_what_the_grammar_says() {
    for Production { rule, place, taken, refused } in GRAMMAR {
        let (before, after) = place.split_once('_').unwrap();
        let parsed = |part: &&str| format!("{before}{part}{after}").parse::<Reference>();
        for part in *taken {
            assert!(parsed(part).is_ok(), "{rule}: {part:?} in {place}: {:?}", parsed(part));
        }
        for part in *refused {
            assert!(parsed(part).is_err(), "{rule}: {part:?} in {place} is {:?}", parsed(part));
        }
    }
}

#[test]
fn lengths_are_bounded_as_the_grammar_bounds_them() {
    let tag = |length: usize| format!("a:{}", "x".repeat(length)).parse::<Reference>();
    assert!(tag(128).is_ok() && tag(129).is_err());
    // NameTotalLengthMax is 255, registry included.
    let name = |length: usize| format!("x.example/{}", "a".repeat(length - 10)).parse::<Reference>();
    assert!(name(255).is_ok() && name(256).is_err());
}

#[test]
fn each_part_stands_where_the_grammar_has_it() {
    // Text, registry, path, tag, digest.
    let table: &[(&str, &str, &str, Option<&str>, bool)] = &[
        ("test.com/repo:tag", "test.com", "repo", Some("tag"), false),
        ("test:5000/repo", "test:5000", "repo", Some("latest"), false),
        ("test:5000/repo:tag@DIGEST", "test:5000", "repo", Some("tag"), true),
        ("test:5000/repo@DIGEST", "test:5000", "repo", None, true),
        ("lowercase:Uppercase", "docker.io", "library/lowercase", Some("Uppercase"), false),
        (
            "sub-dom1.foo.com/bar/baz/quux:some-long-tag",
            "sub-dom1.foo.com",
            "bar/baz/quux",
            Some("some-long-tag"),
            false,
        ),
        (
            "b.gcr.io/test.example.com/my-app:test.example.com",
            "b.gcr.io",
            "test.example.com/my-app",
            Some("test.example.com"),
            false,
        ),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", Some("xn--n3h.com"), false),
        ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", Some("8080"), false),
        ("foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", Some("8080"), false),
        ("192.168.1.1:5000/repo:1", "192.168.1.1:5000", "repo", Some("1"), false),
        ("[2001:db8::1]:5000/repo", "[2001:db8::1]:5000", "repo", Some("latest"), false),
        ("docker.io/a/b", "docker.io", "a/b", Some("latest"), false),
    ];
    for (text, registry, path, tag, pinned) in table {
        let reference: Reference = text.replace("DIGEST", &format!("sha256:{HEX}")).parse().unwrap();
        let found = (reference.registry(), reference.path(), reference.tag(), reference.digest().is_some());
        assert_eq!(found, (*registry, *path, *tag, *pinned), "{text}");
    }
    for text in
        ["Uppercase:tag", "test:5000/Uppercase/lowercase:tag", "repo@sha256:ff", "validname@invaliddigest:ffff", HEX]
    {
        assert!(text.parse::<Reference>().is_err(), "{text}");
    }
}
