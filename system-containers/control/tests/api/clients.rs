//! The clients people already have. Each test is skipped, and says so, where its program is not installed.

use std::process::Command;

use crate::machine::Api;

/// Runs a program against the API in a thread of its own; `None` if there is no such program.
async fn run(program: &str, arguments: Vec<String>) -> Option<String> {
    if Command::new(program).arg("--help").output().is_err() {
        berth_tests::skips::skip(&format!("{program} is not installed"));
        return None;
    }
    let program = program.to_owned();
    let output = tokio::task::spawn_blocking(move || Command::new(program).args(arguments).output().unwrap());
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

fn arguments(api: &Api, rest: &str) -> Vec<String> {
    rest.split(' ').map(|word| word.replace("ADDRESS", &api.address())).collect()
}

#[tokio::test]
async fn busctl_introspects_reads_and_calls() {
    let api = Api::start().await;
    let introspect = arguments(&api, "--address=ADDRESS introspect org.berth /org/berth");
    let Some(text) = run("busctl", introspect).await else { return };
    for expected in ["org.berth.Machine1", "org.berth.Containers1", ".ContainerChanged", "\"dock1\"", "\"ready\""] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
    let get = arguments(&api, "--address=ADDRESS get-property org.berth /org/berth org.berth.Machine1 Hostname");
    assert_eq!(run("busctl", get).await.unwrap(), "s \"dock1\"\n");
    let call = arguments(&api, "--address=ADDRESS call org.berth /org/berth org.berth.Containers1 Kill si web 15");
    run("busctl", call).await.unwrap();
    let tree = arguments(&api, "--address=ADDRESS tree org.berth");
    assert!(run("busctl", tree).await.unwrap().contains("/org/berth"));
}

#[tokio::test]
async fn gdbus_introspects_and_calls() {
    let api = Api::start().await;
    let introspect = arguments(&api, "introspect --address ADDRESS --dest org.berth --object-path /org/berth");
    let Some(text) = run("gdbus", introspect).await else { return };
    assert!(text.contains("interface org.berth.Machine1") && text.contains("Hostname = 'dock1'"), "{text}");
    let call = arguments(
        &api,
        "call --address ADDRESS --dest org.berth --object-path /org/berth --method org.berth.Containers1.Inspect web",
    );
    let text = run("gdbus", call).await.unwrap();
    assert!(text.contains("'State': <'running'>"), "{text}");
}

#[tokio::test]
async fn dbus_send_calls() {
    let api = Api::start().await;
    let call =
        arguments(&api, "--bus=ADDRESS --print-reply --dest=org.berth /org/berth org.berth.Machine1.Configuration");
    let Some(text) = run("dbus-send", call).await else { return };
    assert!(text.contains("hostname = \"dock1\""), "{text}");
}

#[tokio::test]
async fn the_program_of_the_documentation_attaches() {
    let text = include_str!("../../../../docs/api.md");
    let program = text.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("there is one");
    let api = Api::start().await;
    let program = program.replace("unix:path=/run/berth/control.sock", &api.address());
    // The first of a machine's may be another one than that of Debian's packages.
    let has_library = |python: &&str| {
        let output = Command::new(python).args(["-c", "import jeepney"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_library) else {
        return berth_tests::skips::skip("python3 with jeepney is not installed");
    };
    let output = run(python, vec!["-c".to_owned(), program]).await.unwrap();
    assert!(output.contains("hello\n") && output.contains("'exit_code': 3"), "{output}");
}
