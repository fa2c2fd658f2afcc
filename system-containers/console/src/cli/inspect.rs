//! `berth inspect`: everything about containers, as JSON or as a template says.

use berth_config::{Container as Definition, NetworkMode, RestartPolicy};
use berth_control::dbus::ApiError;
use berth_control::message::{Container, ContainerState};
use clap::Args;
use serde_json::{Value, json};

use super::api::Api;
use super::containers::Names;
use super::definition::{networks, read};
use super::error::Error;
use super::json_text;
use super::template::Template;

/// Which containers, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print this of each: {{.state}}, {{json .ports}}, {{.definition.restart}}; names are those of the JSON, and those of
    /// docker's that people use most, such as {{.State.ExitCode}} and {{.NetworkSettings.IPAddress}}
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<Template>,
    #[command(flatten)]
    names: Names,
}

/// Everything about each, as a list; or a line for each.
pub async fn run(api: &Api, arguments: &Arguments) -> Result<String, Error> {
    let mut found = Vec::new();
    for name in api.instances(&arguments.names.names).await? {
        found.push(of(api, &name).await?);
    }
    let Some(template) = &arguments.format else {
        return json_text(&found.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
    };
    let line = |(container, value): &(Container, Value)| {
        let text = template.render(&[value, &dockers(container, value)]).map_err(Error::Refused)?;
        Ok(text + "\n")
    };
    found.iter().map(line).collect()
}

/// A container as it is, with what it is to be and what it was prepared from.
async fn of(api: &Api, name: &str) -> Result<(Container, Value), Error> {
    let container = api.inspect(name).await?;
    let mut value = serde_json::to_value(&container).map_err(|error| Error::Output(error.into()))?;
    match api.containers.definition(name).await {
        Ok(text) => {
            if let (Value::Object(value), Value::Object(more)) = (&mut value, read(&text)?) {
                value.extend(more);
            }
            if let Some(definition) = value.get_mut("definition").and_then(Value::as_object_mut)
                && definition.contains_key("image")
            {
                for (key, default) in defaults() {
                    definition.entry(key).or_insert(default);
                }
            }
        }
        // Who may list the containers may not see everybody's secrets.
        Err(ApiError::Refused(reason)) => eprintln!("without its definition: {reason}"),
        Err(error) => return Err(error.into()),
    }
    Ok((container, value))
}

/// What a definition leaves out because it is so by default, and people look for.
fn defaults() -> [(&'static str, Value); 5] {
    [
        ("restart", RestartPolicy::default().to_string().into()),
        ("network_mode", NetworkMode::default().to_string().into()),
        ("stop_grace_period", Definition::STOP_GRACE_PERIOD.to_string().into()),
        ("shm_size", Definition::SHM_SIZE.to_string().into()),
        ("pids_limit", Definition::PIDS_LIMIT.get().into()),
    ]
}

/// The same by docker's names, as far as scripts ask for them.
fn dockers(container: &Container, value: &Value) -> Value {
    use ContainerState::{Backoff, Declared, Failed, Paused, Preparing, Stopped, Waiting};
    let status = match container.state {
        Declared | Waiting | Preparing => "created",
        Paused => "paused",
        Backoff => "restarting",
        Stopped | Failed => "exited",
        _ => "running",
    };
    let (definition, prepared) = (&value["definition"], &value["prepared"]);
    let addresses: Vec<&String> = container.addresses.iter().filter(|address| address.contains('.')).collect();
    let networks: Value = networks(definition)
        .into_iter()
        .zip(&addresses)
        .map(|(name, address)| (name, json!({ "IPAddress": address })))
        .collect();
    json!({
        "Id": container.name,
        "RestartCount": container.restarts,
        "State": {
            "Status": status,
            "Running": matches!(status, "running" | "paused"),
            "Paused": status == "paused",
            "Restarting": status == "restarting",
            "Pid": container.pid,
            "ExitCode": container.exit_code.max(0),
            "Error": container.reason,
            "Health": { "Status": value["health"] },
        },
        "Config": {
            "Image": container.image,
            "Env": prepared["environment"],
            "Cmd": prepared["arguments"],
            "WorkingDir": prepared["working_directory"],
            "User": definition["user"],
            "Labels": definition["labels"],
        },
        "HostConfig": {
            "RestartPolicy": { "Name": definition["restart"] },
            "NetworkMode": definition["network_mode"],
            "Memory": definition["memory"],
        },
        "Mounts": prepared["mounts"],
        "NetworkSettings": {
            "IPAddress": addresses.first(),
            "Networks": networks,
            "Ports": value["ports"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::api::peer::{self, container};
    use super::*;

    async fn inspected(format: Option<&str>) -> String {
        let (api, mut peer) = peer::pair().await;
        let format = format.map(|format| format.parse().unwrap());
        let names = Names { names: vec!["web".into()] };
        let asked = tokio::spawn(async move { run(&api, &Arguments { format, names }).await });
        peer.answer("Instances", &vec!["web-1"]).await;
        let web = Container {
            addresses: vec!["10.0.0.2".into(), "fd00::2".into()],
            ..container("web-1", ContainerState::Running)
        };
        peer.answer("Inspect", &berth_control::dbus::Container::from(web)).await;
        let definition = r#"{"definition":{"image":"a","environment":{"A":"1"},"networks":["back"]},
            "prepared":{"arguments":["sh"],"environment":["A=1"]}}"#;
        peer.answer("Definition", &definition).await;
        asked.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_container_is_shown_with_its_definition_and_what_the_image_adds() {
        let value: Value = serde_json::from_str(&inspected(None).await).unwrap();
        let web = &value[0];
        assert_eq!((&web["name"], &web["definition"]["environment"]["A"]), (&json!("web-1"), &json!("1")));
        assert_eq!((&web["definition"]["restart"], &web["prepared"]["arguments"][0]), (&json!("always"), &json!("sh")));
    }

    #[tokio::test]
    async fn a_template_knows_our_names_and_dockers() {
        for (format, text) in [
            ("{{.state}} {{.State.Status}} {{.State.Running}}", "running running true\n"),
            ("{{.NetworkSettings.IPAddress}}", "10.0.0.2\n"),
            ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.0.2\n"),
            ("{{json .NetworkSettings.Networks.back}} {{.Config.Env}}", "{\"IPAddress\":\"10.0.0.2\"} [A=1]\n"),
            ("{{.HostConfig.RestartPolicy.Name}} {{.definition.image}}", "always a\n"),
        ] {
            assert_eq!(inspected(Some(format)).await, text, "{format}");
        }
    }
}
