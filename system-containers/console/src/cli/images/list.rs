//! `berth images`: the images that are here, all or some of them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use berth_control::images::StoredImage;
use clap::Args;

use super::super::api::Api;
use super::super::error::Error;
use super::super::filter::Label;
use super::super::template::Template;
use super::super::{answers, format, json_text, table};

/// As much of a digest as tells images apart.
const TOLD_APART: usize = 19;

/// Which of them, and how much of each.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only names; the digest of an image that has none
    #[arg(short, long)]
    quiet: bool,
    /// Whole digests
    #[arg(long, visible_alias = "digests")]
    no_trunc: bool,
    /// Only those that fit: reference=PATTERN, label=KEY or KEY=VALUE, from=REGISTRY, used=true or false, dangling=true or false
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,
    /// Only those whose name is or fits this
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,
    /// What to print of each, as a template: '{{.Repository}}:{{.Tag}}', '{{.image}} {{.bytes}}', 'table …' or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<Template>,
    /// Taken for docker's sake: all are shown
    #[arg(short, long, hide = true)]
    all: bool,
}

/// One condition. Those of one kind are alternatives, but labels, of which each must be there, as with docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Reference(String),
    Label(Label),
    From(String),
    Used(bool),
    /// docker's "dangling".
    Nameless(bool),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once('=') {
            Some(("reference", pattern)) => Self::Reference(pattern.to_owned()),
            Some(("label", label)) => Self::Label(Label::new(label)),
            Some(("from", registry)) => Self::From(registry.to_owned()),
            Some(("used", "true" | "1")) => Self::Used(true),
            Some(("used", "false" | "0")) => Self::Used(false),
            Some(("dangling", "true" | "1")) => Self::Nameless(true),
            Some(("dangling", "false" | "0")) => Self::Nameless(false),
            _ => return Err("a filter is reference=…, label=…, from=…, used=… or dangling=…".to_owned()),
        })
    }
}

impl Filter {
    fn takes(&self, image: &StoredImage) -> bool {
        match self {
            Self::Reference(pattern) => is_called(&image.image, pattern),
            Self::Label(label) => label.is_among(&image.labels),
            Self::From(registry) => image.from.as_deref() == Some(registry),
            Self::Used(used) => image.in_use == *used,
            Self::Nameless(nameless) => image.image.is_empty() == *nameless,
        }
    }
}

impl Arguments {
    fn show(&self, image: &StoredImage) -> bool {
        let named = self.pattern.as_ref().is_none_or(|pattern| is_called(&image.image, pattern));
        named
            && self.filters.iter().all(|filter| {
                let kind = std::mem::discriminant(filter);
                if matches!(filter, Filter::Label(_)) {
                    return filter.takes(image);
                }
                self.filters.iter().any(|other| std::mem::discriminant(other) == kind && other.takes(image))
            })
    }
}

/// Whether a complete name fits a pattern, as it is or as people write it: without the registry that docker assumes, and
/// without its tag.
fn is_called(name: &str, pattern: &str) -> bool {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let shorter = short.strip_prefix("library/").unwrap_or(short);
    [name, short, shorter].into_iter().any(|name| {
        let end = name.rfind('/').map_or(0, |slash| slash + 1);
        let tagless = name[end..].find([':', '@']).map_or(name, |tag| &name[..end + tag]);
        fits(name.as_bytes(), pattern.as_bytes()) || fits(tagless.as_bytes(), pattern.as_bytes())
    })
}

/// Whether a text fits a pattern: `*` is any number of bytes and `?` one, but neither is a slash.
fn fits(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    // Where the last star stands, and how much of the text it takes so far.
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (text.get(at), pattern.get(of)) {
            (None, None) => return true,
            (_, Some(b'*')) => {
                star = Some((of, at));
                of += 1;
                continue;
            }
            (Some(byte), Some(wanted)) if byte == wanted || (*wanted == b'?' && *byte != b'/') => {
                (at, of) = (at + 1, of + 1);
                continue;
            }
            _ => {}
        }
        match star {
            Some((place, taken)) if text.get(taken).is_some_and(|byte| *byte != b'/') => {
                star = Some((place, taken + 1));
                (at, of) = (taken + 1, place + 1);
            }
            _ => return false,
        }
    }
}

/// The images that are here and fit, by their names.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    let pipe = api.images.list().await?;
    let mut images = read(BufReader::new(File::from(OwnedFd::from(pipe))))?;
    images.retain(|image| arguments.show(image));
    if let Some(template) = &arguments.format {
        return by_template(template, &images, arguments.no_trunc);
    }
    match (json, arguments.quiet) {
        (true, _) => json_text(&images),
        (false, true) => Ok(images.iter().map(|image| format!("{}\n", called(image))).collect()),
        (false, false) => Ok(text(&images, arguments.no_trunc, table::terminal_width())),
    }
}

/// What commands take for it.
fn called(image: &StoredImage) -> &str {
    if image.image.is_empty() { &image.digest } else { &image.image }
}

fn read(lines: impl BufRead) -> Result<Vec<StoredImage>, Error> {
    answers::each(lines).collect()
}

/// As the template says, a line each; or a table. Docker's names are those of `docker images`.
fn by_template(template: &Template, images: &[StoredImage], whole: bool) -> Result<String, Error> {
    let views = |image: &StoredImage| {
        let (repository, tag) = docker_name(&image.image);
        let dockers = serde_json::json!({
            "ID": image.digest.chars().take(if whole { usize::MAX } else { TOLD_APART }).collect::<String>(),
            "Repository": repository,
            "Tag": tag,
            "Digest": image.digest,
            "Size": format::bytes(image.bytes),
        });
        Ok([dockers, serde_json::to_value(image).map_err(|error| Error::Output(error.into()))?])
    };
    let views = images.iter().map(views).collect::<Result<Vec<_>, Error>>()?;
    template.list(views, table::terminal_width().filter(|_| !whole)).map_err(Error::Refused)
}

/// A complete name as docker shows it: without the registry that it assumes, and the tag apart.
fn docker_name(name: &str) -> (&str, &str) {
    const NONE: &str = "<none>";
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let end = short.rfind('/').map_or(0, |slash| slash + 1);
    match short[end..].find(['@', ':']) {
        Some(at) if short.as_bytes().get(end + at) == Some(&b':') => (&short[..end + at], &short[end + at + 1..]),
        Some(at) => (&short[..end + at], NONE),
        None if short.is_empty() => (NONE, NONE),
        None => (short, NONE),
    }
}

fn text(images: &[StoredImage], whole: bool, width: Option<usize>) -> String {
    let row = |image: &StoredImage| {
        vec![
            if image.image.is_empty() { "<none>" } else { &image.image }.to_owned(),
            image.digest.chars().take(if whole { usize::MAX } else { TOLD_APART }).collect(),
            format::bytes(image.bytes),
            image.from.as_deref().unwrap_or(if image.image.is_empty() { "-" } else { "archive" }).to_owned(),
            if image.in_use { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = images.iter().map(row).collect();
    // Who wants all of a digest does not want it cut at the terminal's edge.
    table::render(&["IMAGE", "DIGEST", "SIZE", "FROM", "IN USE"], &rows, width.filter(|_| !whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn line(words: &str) -> Arguments {
        Line::parse_from(words.split(' ')).arguments
    }

    fn image(name: &str, from: Option<&str>) -> StoredImage {
        StoredImage {
            image: name.into(),
            digest: format!("sha256:{}", "0".repeat(64)),
            layers: 2,
            bytes: 2048,
            from: from.map(str::to_owned),
            in_use: from.is_some(),
            labels: [("tier".to_owned(), "db".to_owned())].into(),
        }
    }

    #[test]
    fn images_are_listed_with_where_they_came_from() {
        let images = [image("r.example/a:1", Some("r.example")), image("localhost/b:1", None)];
        let lines: String = images.iter().map(|image| serde_json::to_string(image).unwrap() + "\n").collect();
        let images = read(format!("{lines}\n").as_bytes()).unwrap();
        assert_eq!(
            text(&images, false, None),
            "IMAGE          DIGEST               SIZE     FROM       IN USE\n\
             r.example/a:1  sha256:000000000000  2.0 KiB  r.example  yes\n\
             localhost/b:1  sha256:000000000000  2.0 KiB  archive    no\n"
        );
        assert!(text(&images, true, Some(40)).contains(&images[0].digest));
        assert!(read(&b"{}\n"[..]).is_err());
    }

    #[test]
    fn a_template_has_dockers_names_and_ours() {
        let images =
            [image("docker.io/library/nginx:1.27", None), image("r.example:5000/a@sha256:0", None), image("", None)];
        let shown = |template: &str| by_template(&template.parse().unwrap(), &images, false).unwrap();
        assert_eq!(shown("{{.Repository}}:{{.Tag}}"), "nginx:1.27\nr.example:5000/a:<none>\n<none>:<none>\n");
        assert_eq!(shown("{{.ID}} {{.Size}} {{.layers}}").lines().next().unwrap(), "sha256:000000000000 2.0 KiB 2");
        assert!(
            shown("table {{.Repository}}\t{{.in_use}}").starts_with("REPOSITORY"),
            "{}",
            shown("table {{.Repository}}")
        );
        assert!(by_template(&"{{.nothing}}".parse().unwrap(), &images, false).is_err());
    }

    #[test]
    fn filters_of_one_kind_are_alternatives_and_those_of_several_are_not() {
        let (a, b) = (image("r.example/a:1", Some("r.example")), image("localhost/b:1", None));
        let shown = |words: &str| (line(words).show(&a), line(words).show(&b));
        assert_eq!(shown("images"), (true, true));
        assert_eq!(shown("images -f used=true"), (true, false));
        assert_eq!(shown("images -f used=true -f used=false --digests -q"), (true, true));
        assert_eq!(shown("images -f used=false -f from=r.example"), (false, false));
        assert_eq!(shown("images -f label=tier -f reference=*/b"), (false, true));
        assert_eq!(shown("images -f label=tier=web"), (false, false));
        assert_eq!(shown("images -f label=tier=db -f label=tier=web"), (false, false), "a label beside another");
        assert_eq!(shown("images r.example/a"), (true, false));
        assert_eq!(shown("images -f dangling=true"), (false, false));
        assert_eq!(shown("images -f dangling=false"), (true, true));
        let nameless = image("", None);
        assert!(line("images -f dangling=true").show(&nameless) && !line("images a").show(&nameless));
        let shown = text(std::slice::from_ref(&nameless), false, None);
        assert!(shown.contains("\n<none>") && shown.contains("  -  "), "{shown}");
        assert_eq!(called(&nameless), nameless.digest);
        for wrong in ["dangling", "used=maybe", "since=x", "reference"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_found_as_people_write_it() {
        let name = "docker.io/library/nginx:1.27-alpine";
        for pattern in
            ["nginx", "nginx:*", "ngin?", "library/nginx", "docker.io/library/nginx:1.27-alpine", "*:1*alpine"]
        {
            assert!(is_called(name, pattern), "{pattern}");
        }
        for pattern in ["", "ngin", "nginx:1", "*/nginx:2*", "nginx?", "nginx**x", "docker.io/*"] {
            assert!(!is_called(name, pattern), "{pattern}");
        }
        assert!(is_called("localhost:5000/a", "localhost:5000/*") && !is_called("localhost:5000/a", "localhost"));
        assert!(is_called("r.example/a@sha256:0", "r.example/a"));
    }
}
