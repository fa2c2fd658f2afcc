//! `--format`: what people type of Go's templates for docker, over the JSON of this command.
//!
//! `{{.state}}`, `{{json .ports}}`, `{{join .addresses ", "}}`, `{{index .definition.labels "tier"}}`, `{{len .ports}}`,
//! `{{range .ports}}…{{end}}`, `{{if .reason}}…{{else}}…{{end}}`, a function behind `|`, `\t` and `\n`. Names are those of
//! `--json`; `.ExitCode` is `.exit_code` too. What is not there is `<no value>`, but at the top, where it is a mistake.

use std::str::FromStr;

use serde_json::Value;

const NO_END: &str = "a range or if has no {{end}}";

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// Its columns' headings, if it began with `table`.
    pub heading: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Call),
    Range(Call, Vec<Part>),
    If(Call, Vec<Part>, Vec<Part>),
}

/// A function of a value, or the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    function: String,
    path: Vec<String>,
    argument: String,
}

/// Where a path without a beginning of its own looks: the first that has it, of those that have it by its exact name if
/// there are any. The first is the dot itself.
type Views<'a> = &'a [&'a Value];

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text == "json" { "{{json .}}" } else { text };
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let (is_table, text) = text.strip_prefix("table ").map_or((false, text.as_str()), |rest| (true, rest));
        let mut rest = text;
        let (parts, end) = parse(&mut rest)?;
        if let Some(end) = end {
            return Err(format!("{{{{{end}}}}} ends nothing that was begun"));
        }
        let title = |column: &str| match Template::from_str(column).map(|column| column.parts) {
            Ok(parts) => parts.iter().find_map(|part| match part {
                Part::Value(call) => call.path.last().map(|name| name.to_uppercase()),
                _ => None,
            }),
            Err(_) => None,
        };
        let heading = is_table.then(|| text.split('\t').map(|column| title(column).unwrap_or_default()).collect());
        Ok(Self { parts, heading })
    }
}

impl Template {
    /// The text for one value, which may have several views.
    pub fn render(&self, views: Views<'_>) -> Result<String, String> {
        let mut text = String::new();
        write(&self.parts, views, &mut text)?;
        Ok(text)
    }

    /// Whether it names this anywhere, whatever its case: what costs something is asked for only then.
    pub fn names(&self, name: &str) -> bool {
        names(&self.parts, name)
    }

    /// A line for each, or a table of this width. Each has docker's view and ours.
    pub fn list(&self, all: impl IntoIterator<Item = [Value; 2]>, width: Option<usize>) -> Result<String, String> {
        let line = |[dockers, ours]: [Value; 2]| self.render(&[&dockers, &ours]);
        let lines = all.into_iter().map(line).collect::<Result<Vec<String>, String>>()?;
        let Some(heading) = &self.heading else { return Ok(lines.iter().map(|line| format!("{line}\n")).collect()) };
        let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
        let rows: Vec<Vec<String>> = lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
        Ok(super::table::render(&heading, &rows, width))
    }
}

fn names(parts: &[Part], name: &str) -> bool {
    let calls = |call: &Call| call.path.iter().any(|part| part.eq_ignore_ascii_case(name));
    parts.iter().any(|part| match part {
        Part::Text(_) => false,
        Part::Value(call) => calls(call),
        Part::Range(call, parts) => calls(call) || names(parts, name),
        Part::If(call, then, otherwise) => calls(call) || names(then, name) || names(otherwise, name),
    })
}

/// Up to the end of the text or a word that ends what it is in, which comes beside.
fn parse<'a>(rest: &mut &'a str) -> Result<(Vec<Part>, Option<&'a str>), String> {
    let mut parts = Vec::new();
    while let Some((before, behind)) = rest.split_once("{{") {
        let (inside, behind) = behind.split_once("}}").ok_or("a {{ has no }}")?;
        *rest = behind;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let inside = inside.trim_matches('-').trim();
        match inside.split_once(' ').unwrap_or((inside, "")) {
            ("end" | "else", _) => return Ok((parts, Some(inside))),
            ("range", of) => parts.push(Part::Range(call(of)?, block(rest)?)),
            ("if", of) => {
                let (then, end) = parse(rest)?;
                let otherwise = match end {
                    Some("end") => Vec::new(),
                    Some("else") => block(rest)?,
                    Some(end) => {
                        return Err(format!(
                            "{{{{{end}}}}} is not understood: write {{{{else}}}}, and behind it an if with an {{{{end}}}} of its own"
                        ));
                    }
                    None => return Err(NO_END.to_owned()),
                };
                parts.push(Part::If(call(of)?, then, otherwise));
            }
            _ => parts.push(Part::Value(call(inside)?)),
        }
    }
    if !rest.is_empty() {
        parts.push(Part::Text((*rest).to_owned()));
    }
    *rest = "";
    Ok((parts, None))
}

fn block(rest: &mut &str) -> Result<Vec<Part>, String> {
    match parse(rest)? {
        (parts, Some("end")) => Ok(parts),
        _ => Err(NO_END.to_owned()),
    }
}

/// `.a.b`, `function .a.b "argument"` or `.a.b | function`.
fn call(text: &str) -> Result<Call, String> {
    let unknown = || {
        format!(
            "{{{{{text}}}}} is not understood: write {{{{.name}}}} or {{{{json .name}}}}; there are json, join, index, len, \
                 upper, lower, range and if"
        )
    };
    let (text, function) = text.rsplit_once('|').map_or((text, None), |(path, function)| (path.trim(), Some(function)));
    let (first, behind) = text.split_once(' ').unwrap_or((text, ""));
    let (word, (path, argument)) = match first.starts_with(['.', '$']) {
        true => ("", (first, behind)),
        false => (first, behind.trim().split_once(' ').unwrap_or((behind.trim(), ""))),
    };
    let word = function.map_or(word, str::trim);
    if !["", "json", "join", "index", "len", "upper", "lower", "println"].contains(&word)
        || !path.starts_with(['.', '$'])
    {
        return Err(unknown());
    }
    let path = path.trim_start_matches('$').split('.').filter(|name| !name.is_empty()).map(str::to_owned);
    let argument = argument.trim().trim_matches('"').to_owned();
    let mut call = Call { function: word.to_owned(), path: path.collect(), argument };
    if word == "index" {
        call.path.push(std::mem::take(&mut call.argument));
        call.function.clear();
    }
    Ok(call)
}

fn write(parts: &[Part], views: Views<'_>, text: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Value(call) => text.push_str(&call.apply(views)?),
            Part::If(call, then, otherwise) => {
                let holds = !matches!(call.find(views)?, None | Some(Value::Null | Value::Bool(false)))
                    && !matches!(call.apply(views)?.as_str(), "" | "0" | "[]" | "{}");
                write(if holds { then } else { otherwise }, views, text)?;
            }
            Part::Range(call, inner) => match call.find(views)? {
                Some(Value::Array(list)) => list.iter().try_for_each(|each| write(inner, &[each], text))?,
                Some(Value::Object(table)) => table.values().try_for_each(|each| write(inner, &[each], text))?,
                _ => {}
            },
        }
    }
    Ok(())
}

impl Call {
    fn find<'a>(&self, views: &[&'a Value]) -> Result<Option<&'a Value>, String> {
        // A name as it was typed is looked for everywhere before another that is like it.
        for field in [exact, field] {
            let in_view = |view: &&'a Value| self.path.iter().try_fold(*view, |value, name| field(value, name));
            if let Some(found) = views.iter().find_map(in_view) {
                return Ok(Some(found));
            }
        }
        match self.path.first() {
            Some(name) if views.len() > 1 && views.iter().all(|view| field(view, name).is_none()) => {
                let names: Vec<&str> = views
                    .iter()
                    .filter_map(|view| view.as_object())
                    .flat_map(|view| view.keys())
                    .map(String::as_str)
                    .collect();
                Err(format!("there is no .{name}; the names are {}", names.join(", ")))
            }
            _ => Ok(None),
        }
    }

    fn apply(&self, views: Views<'_>) -> Result<String, String> {
        let Some(value) = self.find(views)? else { return Ok("<no value>".to_owned()) };
        Ok(match (self.function.as_str(), value) {
            ("json", value) => value.to_string(),
            ("join", Value::Array(list)) => list.iter().map(plain).collect::<Vec<_>>().join(&self.argument),
            ("len", Value::Array(list)) => list.len().to_string(),
            ("len", Value::Object(table)) => table.len().to_string(),
            ("len", value) => plain(value).chars().count().to_string(),
            ("upper", value) => plain(value).to_uppercase(),
            ("lower", value) => plain(value).to_lowercase(),
            ("println", value) => plain(value) + "\n",
            (_, value) => plain(value),
        })
    }
}

/// By its name as it is; by its number in a list.
fn exact<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(table) => table.get(name),
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The same, or else without regard to case and underscores.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let bare = |name: &str| name.chars().filter(|letter| *letter != '_').collect::<String>().to_lowercase();
    exact(value, name).or_else(|| {
        let name = bare(name);
        value.as_object()?.iter().find(|(key, _)| bare(key) == name).map(|(_, value)| value)
    })
}

/// As Go prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(text: &str) -> Result<String, String> {
        let ours = json!({
            "name": "web", "state": "running", "exit_code": -1, "reason": "", "addresses": ["10.0.0.2", "fd00::2"],
            "ports": [{ "host_port": 80 }, { "host_port": 0 }], "definition": { "labels": { "tier": "front" } },
        });
        let dockers = json!({ "State": { "Status": "running", "ExitCode": 0 } });
        text.parse::<Template>()?.render(&[&ours, &dockers])
    }

    #[test]
    fn what_docker_users_type_is_understood() {
        for (template, text) in [
            ("{{.Name}} {{ .ExitCode }}", "web -1"),
            ("{{.state}} {{.State.Status}} {{.State.ExitCode}}", "running running 0"),
            ("{{json .addresses}}", "[\"10.0.0.2\",\"fd00::2\"]"),
            ("{{.addresses | json}}", "[\"10.0.0.2\",\"fd00::2\"]"),
            ("{{join .addresses \", \"}}{{.addresses}}", "10.0.0.2, fd00::2[10.0.0.2 fd00::2]"),
            ("{{range .ports}}{{.HostPort}};{{end}}", "80;0;"),
            ("{{range .addresses}}{{.}} {{end}}", "10.0.0.2 fd00::2 "),
            ("{{index .definition.labels \"tier\"}}{{index .addresses 1}}", "frontfd00::2"),
            ("{{.definition.labels.tier}}\\t{{.definition.labels.none}}", "front\t<no value>"),
            ("{{if .reason}}why{{else}}well{{end}}{{if .name}}!{{end}}", "well!"),
            ("{{len .ports}}{{upper .name}}", "2WEB"),
            ("plain", "plain"),
        ] {
            assert_eq!(rendered(template).as_deref(), Ok(text), "{template}");
        }
        assert!(rendered("json").unwrap().starts_with("{\"addresses\""));
    }

    #[test]
    fn a_mistake_says_what_there_is() {
        assert!(rendered("{{.nam}}").unwrap_err().contains("the names are addresses, definition"));
        for (template, part) in [
            ("{{.name", "no }}"),
            ("{{range .ports}}", "no {{end}}"),
            ("{{if .name}}a", "no {{end}}"),
            ("{{if .name}}a{{else}}b", "no {{end}}"),
            ("{{if .name}}a{{else if .state}}b{{end}}", "{{else if .state}}"),
            ("{{end}}", "ends nothing"),
            ("{{split .name}}", "json, join"),
            ("{{name}}", "{{.name}}"),
        ] {
            let error = rendered(template).unwrap_err();
            assert!(error.contains(part), "{template}: {error}");
        }
    }

    #[test]
    fn a_table_is_headed_by_its_names() {
        let template: Template = "table {{.Names}}\\t{{.Status}}".parse().unwrap();
        assert_eq!(template.heading.unwrap(), ["NAMES", "STATUS"]);
    }
}
