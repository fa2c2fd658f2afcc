//! Which of an index's images is for this machine.

use crate::oci::{self, Descriptor, Platform};

/// The entry of an index that fits this machine best: of several variants of the architecture the highest that the
/// processor has. One without a platform is taken if there is nothing better. The error lists what there is.
pub fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, String> {
    let fits = |descriptor: &&Descriptor| descriptor.platform.as_ref().and_then(fitness);
    // Of equals the first one, as others do it.
    let best = manifests.iter().rev().filter(|descriptor| fits(descriptor).is_some()).max_by_key(fits);
    let unmarked = |descriptor: &&Descriptor| descriptor.platform.is_none();
    best.or_else(|| manifests.iter().find(unmarked)).ok_or_else(|| {
        if manifests.is_empty() {
            return "no machine at all".to_owned();
        }
        let offered: Vec<String> = manifests.iter().map(|one| describe(one.platform.as_ref())).collect();
        offered.join(", ")
    })
}

/// Whether images for that platform run here.
pub fn is_ours(platform: &Platform) -> bool {
    fitness(platform).is_some()
}

/// The higher the better; none if it does not run here.
fn fitness(platform: &Platform) -> Option<u32> {
    if !platform.os.eq_ignore_ascii_case("linux") || !oci::is_our_architecture(&platform.architecture) {
        return None;
    }
    let (least, most) = levels();
    match platform.variant.as_deref().filter(|variant| !variant.is_empty()) {
        None => Some(least),
        Some(variant) => {
            let level: u32 = variant.trim_start_matches(['v', 'V']).split('.').next()?.parse().ok()?;
            (least..=most).contains(&level).then_some(level)
        }
    }
}

/// The variants of the architecture that this processor runs, from the one that goes without saying on.
fn levels() -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    let levels = (1, x86_level());
    #[cfg(not(target_arch = "x86_64"))]
    let levels = (8, 8);
    levels
}

/// The psABI's microarchitecture level of this processor.
#[cfg(target_arch = "x86_64")]
fn x86_level() -> u32 {
    use std::arch::is_x86_feature_detected as has;
    let second = has!("cmpxchg16b") && has!("popcnt") && has!("ssse3") && has!("sse4.1") && has!("sse4.2");
    let third = has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c");
    let third = third && has!("fma") && has!("lzcnt") && has!("movbe");
    let fourth = has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    1 + [second, third, fourth].into_iter().take_while(|level| *level).count() as u32
}

/// For people.
pub fn describe(platform: Option<&Platform>) -> String {
    platform.map_or_else(
        || "an unnamed platform".to_owned(),
        |platform| match &platform.variant {
            Some(variant) => format!("{}/{}/{variant}", platform.os, platform.architecture),
            None => format!("{}/{}", platform.os, platform.architecture),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn entry(number: u64, platform: Option<(&str, &str, Option<&str>)>) -> Descriptor {
        let platform = platform.map(|(os, architecture, variant)| Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            variant: variant.map(str::to_owned),
        });
        Descriptor { media_type: String::new(), digest: Digest::of(b""), size: number, platform, annotations: None }
    }

    #[test]
    fn a_platform_may_be_called_as_linux_calls_it() {
        let (least, _) = levels();
        let linux = std::env::consts::ARCH;
        let (plain, marked) = (least.to_string(), format!("v{least}"));
        for variant in [None, Some(plain.as_str()), Some(marked.as_str())] {
            assert_eq!(choose(&[entry(7, Some(("Linux", linux, variant)))]).unwrap().size, 7, "{variant:?}");
        }
        assert!(choose(&[entry(7, Some(("", "", None)))]).is_err());
    }

    #[test]
    fn the_highest_variant_that_runs_here_is_chosen() {
        let (least, most) = levels();
        let own = |level: u32| format!("v{level}");
        let (lowest, highest, beyond) = (own(least), own(most), own(most + 1));
        let ours = |variant| Some(("linux", oci::ARCHITECTURE, variant));
        let entries = [
            entry(0, Some(("windows", oci::ARCHITECTURE, None))),
            entry(1, Some(("linux", "s390x", None))),
            entry(2, ours(Some(beyond.as_str()))),
            entry(3, ours(None)),
            entry(4, ours(Some(lowest.as_str()))),
            entry(5, ours(Some(highest.as_str()))),
            entry(6, None),
        ];
        let wanted = if most > least { 5 } else { 3 };
        assert_eq!(choose(&entries).unwrap().size, wanted);
        assert_eq!(choose(&entries[..5]).unwrap().size, 3);
        assert_eq!(choose(&[entries[0].clone(), entries[6].clone()]).unwrap().size, 6);
        assert_eq!(choose(&entries[..2]).unwrap_err(), format!("windows/{}, linux/s390x", oci::ARCHITECTURE));
        assert!(choose(&[]).is_err());
    }
}
