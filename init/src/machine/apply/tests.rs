use super::*;

/// One whose configuration is in force; it has the host's name, which stays.
fn machine() -> Machine {
    let mut machine = Machine::new().unwrap();
    machine.supervisor.configuration = configuration("");
    machine
}

fn configuration(text: &str) -> Configuration {
    wanted("test", text).0
}

fn wanted(name: &str, text: &str) -> Wanted {
    let hostname = nix::unistd::gethostname().unwrap();
    let text = format!("hostname = {hostname:?}\n{text}");
    let loaded = berth_config::load(&[Source::new(name, text)]).unwrap();
    (loaded.configuration, loaded.locations)
}

#[test]
fn another_watchdog_is_in_force_at_once() {
    let mut machine = machine();
    let (mut device, theirs) = std::io::pipe().unwrap();
    machine.facts.watchdog = Some(crate::watchdog::tests::running(OwnedFd::from(theirs).into()));
    // This device is no timer, so it takes no other time.
    let refused =
        machine.put_in_force(configuration("watchdog = { timeout = '30s' }"), Locations::default()).unwrap_err();
    assert!(refused.contains("set a time-out of 30 s"), "{refused}");
    assert_eq!(machine.supervisor.configuration, configuration(""), "all of it or nothing");
    machine.put_in_force(configuration("watchdog = { device = 'off' }"), Locations::default()).unwrap();
    assert!(machine.facts.watchdog.is_none());
    let mut letters = String::new();
    device.read_to_string(&mut letters).unwrap();
    assert_eq!(letters, "V", "the timer is stopped");
}

#[test]
fn what_nobody_confirms_leaves_the_kernel_as_it_was() {
    let mut machine = machine();
    let parameter = tempfile::NamedTempFile::new().unwrap();
    let kernel = vec![(parameter.path().to_owned(), "60\n".to_owned())];
    let previous = Box::new(configuration(""));
    let (locations, sources) = (Locations::default(), Vec::new());
    machine.facts.unconfirmed = Some(Unconfirmed { deadline: Duration::ZERO, previous, locations, sources, kernel });
    machine.take_back();
    assert!(machine.facts.unconfirmed.is_none());
    assert_eq!(std::fs::read_to_string(parameter.path()).unwrap(), "60\n");
}

#[test]
fn what_is_in_force_again_stands_where_it_stood() {
    let mut machine = machine();
    let (configuration, locations) = wanted("berth.toml", "[containers.web]\nimage = 'a'\n");
    let report = configuration::Report { sources: vec!["berth.toml".into()], ..configuration::Report::default() };
    (machine.supervisor.configuration, machine.supervisor.locations) = (configuration, locations);
    machine.configuration = Some(report);
    let applicant = machine.supervisor.applicant(0, 1);
    let other = wanted("other.toml", "\n[containers.web]\nimage = 'b'\n");
    machine.looked_at(applicant, Purpose::Try(Duration::from_secs(60)), Ok(Box::new(other)));
    let stands = |machine: &Machine| {
        (machine.supervisor.locations.find("web", "image").unwrap(), machine.describe().configuration_sources)
    };
    assert_eq!(stands(&machine), ("other.toml:4".to_owned(), vec!["berth apply".to_owned()]));
    machine.facts.unconfirmed.as_mut().unwrap().deadline = Duration::ZERO;
    machine.take_back();
    assert_eq!(stands(&machine), ("berth.toml:3".to_owned(), vec!["berth.toml".to_owned()]));
    assert_eq!(machine.configuration.unwrap().locations, machine.supervisor.locations, "and for the next program");
}

#[test]
fn a_sheet_with_files_comes_back_with_the_plan() {
    let mut sheet = tempfile::tempfile().unwrap();
    let files = [("a.toml", "[containers.web]\nimage = \"web\"\n"), ("b.toml", "hostname = \"b\"\n")];
    sheet.write_all(&serde_json::to_vec(&files).unwrap()).unwrap();
    sheet.rewind().unwrap();
    let wanted = plan(sheet.try_clone().unwrap(), &Configuration::default(), &Instances::new()).unwrap();
    assert_eq!(wanted.0.containers.len(), 1);
    assert_eq!(wanted.1.find("web", "image").unwrap(), "a.toml:2");
    sheet.rewind().unwrap();
    let plan: Plan = serde_json::from_reader(sheet).unwrap();
    assert_eq!((plan.containers[0].name.as_str(), plan.settings[0].key.as_str()), ("web", "hostname"));
}

#[test]
fn mistakes_are_told_with_their_file_and_line() {
    let mut sheet = tempfile::tempfile().unwrap();
    sheet.write_all(br#"[["web.toml", "\n[containers.web]\nimag = \"web\"\n"]]"#).unwrap();
    sheet.rewind().unwrap();
    let reason = plan(sheet, &Configuration::default(), &Instances::new()).unwrap_err();
    assert!(reason.contains("web.toml:3:1"), "{reason}");
}
