//! What a person probably meant.

/// The known word that is nearest, if it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nothing that long is a key, and the distance takes time in proportion to the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters have to be added, removed, changed or swapped with their neighbour (Damerau and Levenshtein's
/// distance, each part of the word edited once).
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=two.len()).collect();
    let mut previous = None;
    for (row, letter) in one.chars().enumerate() {
        let mut current = Vec::with_capacity(two.len() + 1);
        let mut left = row + 1;
        current.push(left);
        let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
        for (column, other) in two.iter().enumerate() {
            let changed = at(&last, column) + usize::from(letter != *other);
            let mut best = changed.min(left + 1).min(at(&last, column + 1) + 1);
            let neighbour = column.checked_sub(1).and_then(|column| two.get(column));
            if previous == Some(*other) && neighbour == Some(&letter) {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
            left = best;
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(letter);
    }
    last.last().copied().unwrap_or(0)
}

/// Keys that people bring along from Compose, Docker and other systems, and what Berth has for them. Only keys that
/// the edit distance would not find, or would find wrongly.
const ELSEWHERE: [(&str, &str); 28] = [
    ("blkio_config", "there is no limit for disks yet"),
    ("build", "Berth runs images, it does not build them: name one with `image`"),
    ("cgroup_parent", "Berth chooses the cgroup"),
    ("cmd", "it is `command` here"),
    ("container_name", "the name is part of the table's: [containers.<name>]"),
    ("cpu_limit", "it is `cpus` here"),
    ("deploy", "the limits are `memory`, `cpus` and `pids_limit`"),
    ("dhcp4", "it is `dhcp` here"),
    ("env", "it is `environment` here"),
    ("env_file", "write the variables into `environment`"),
    ("expose", "containers reach each other without it; `ports` publishes to the outside"),
    ("gateway4", "it is `gateways` here, a list"),
    ("gateway", "it is `gateways` here, a list"),
    ("healthcheck", "it is `health` here: [containers.<name>.health]"),
    ("interfaces", "it is `links` here: [network.links.eth0]"),
    ("links", "containers on the bridge reach each other by name without it"),
    ("logging", "Berth keeps the output of every container; `berth logs` shows it"),
    ("mem_limit", "it is `memory` here"),
    ("nameservers", "it is `dns` here"),
    ("platform", "the image's variant for this machine is taken"),
    ("privileged", "name what the container needs: `cap_add`, `devices`, `security`"),
    ("pull_policy", "an image that is there is not fetched again"),
    ("scale", "declare each container"),
    ("secrets", "there are no secrets yet"),
    ("security_opt", "see `security`: `seccomp`, `no_new_privileges`, `user_namespace`"),
    ("services", "it is `containers` here: [containers.web]"),
    ("userns_mode", "it is `security.user_namespace` here"),
    ("volumes_from", "name the same volumes in both containers"),
];

/// What Berth has instead of a key of another system.
pub(crate) fn elsewhere(key: &str) -> Option<&'static str> {
    let wanted = key.to_ascii_lowercase().replace('-', "_");
    ELSEWHERE.iter().find(|(key, _)| *key == wanted).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_understood() {
        let keys = ["memory", "image", "ports", "cpus", "cap_add", "hostname"];
        for (word, wanted) in [
            ("memroy", "memory"),
            ("imge", "image"),
            ("port", "ports"),
            ("Cpus", "cpus"),
            ("cap-add", "cap_add"),
            ("cpu", "cpus"),
        ] {
            assert_eq!(nearest(word, keys), Some(wanted), "{word}");
        }
        for word in ["", "colour", "xyz", &"memory".repeat(1000)] {
            assert_eq!(nearest(word, keys), None, "{word}");
        }
    }

    #[test]
    fn the_distance_counts_edits() {
        for (one, two, wanted) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("ab", "ba", 1), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(distance(one, two), wanted, "{one} {two}");
        }
    }

    #[test]
    fn advice_never_hides_a_key_that_there_is() {
        let known = crate::load(&[crate::Source::new(
            "x",
            "[containers.web]\nnothing = 1\n[network.links.a]\nnothing = 1\nb = 1",
        )]);
        let help: String = known.expect_err("it is wrong").into_iter().filter_map(|mistake| mistake.help).collect();
        assert!(help.contains("depends_on"));
        for (key, _) in ELSEWHERE {
            // `links` is a key of [network], and no container's.
            assert!(key == "links" || !help.contains(&format!(" {key},")), "{key}");
        }
    }
}
