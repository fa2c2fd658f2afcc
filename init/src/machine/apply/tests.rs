use std::os::unix::net::UnixStream;

use super::*;
use crate::reactor::Token;
use crate::supervisor::world::{self, service};
use berth_control::channel::Channel;
use berth_control::message::{ContainerState, Creation, Ending, FromInit, Notice, Request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The answers to these requests of a machine that can open nothing more, so that no task starts.
fn without_tasks(ask: impl FnOnce(&mut Machine, Applicant)) -> Vec<String> {
    let task = Task::start(move || {
        let mut machine = machine();
        let (id, channel): (u32, Channel) = service(&mut machine.supervisor, "control");
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, most).unwrap();
        let applicant = machine.supervisor.applicant(id, 1);
        ask(&mut machine, applicant);
        assert_eq!(machine.facts.problems, [""; 0]);
        let replies = std::iter::from_fn(|| channel.receive::<FromInit>().ok());
        let refusal = |(message, _)| match message {
            FromInit::Reply { reply: Reply::Refused { reason }, .. } => reason,
            other => format!("{other:?}"),
        };
        replies.map(refusal).collect()
    });
    crate::task::tests::outcome(task.unwrap()).unwrap()
}

#[test]
fn whoever_waits_for_a_task_that_cannot_start_is_told() {
    let sheet = tempfile::tempfile().unwrap();
    let answers = without_tasks(|machine, applicant| {
        machine.look_at(applicant, sheet.into(), Purpose::Plan);
        machine.read_boots(applicant);
    });
    let [plan, boots] = &answers[..] else { panic!("{answers:?}") };
    assert!(plan.starts_with("look at the configuration: start the task: EMFILE"), "{plan}");
    assert!(boots.starts_with("read the list of boots: start the task: EMFILE"), "{boots}");
}

#[test]
fn nothing_is_applied_before_the_configuration_has_been_read() {
    let mut machine = machine();
    machine.configuration = None;
    let (id, channel) = service(&mut machine.supervisor, "control");
    let applicant = machine.supervisor.applicant(id, 1);
    for purpose in [Purpose::Plan, Purpose::Apply, Purpose::Try(Duration::from_secs(60))] {
        machine.look_at(applicant, tempfile::tempfile().unwrap().into(), purpose);
        let (message, _) = channel.receive().unwrap();
        let FromInit::Reply { reply: Reply::Refused { reason }, .. } = message else { panic!("{message:?}") };
        assert!(reason.contains("not been read yet") && reason.contains("`berth why boot`"), "{reason}");
    }
}

#[test]
fn what_could_not_be_recorded_can_be_confirmed_again() {
    let answers = without_tasks(|machine, applicant| {
        machine.confirm(applicant);
        machine.facts.unconfirmed = Some(unconfirmed());
        machine.confirm(applicant);
        machine.confirm(applicant);
    });
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert_eq!(answers[0], "there is nothing to confirm");
    assert!(answers[1].starts_with("record the configuration: start the task"), "{answers:?}");
    assert_eq!(answers[1], answers[2]);
}

fn unconfirmed() -> Unconfirmed {
    Unconfirmed {
        deadline: Duration::ZERO,
        previous: Box::new(configuration("")),
        locations: Locations::default(),
        sources: Vec::new(),
        kernel: KernelParameters::default(),
    }
}

#[test]
fn clients_have_so_many_tasks_and_no_more() {
    let mut machine = machine();
    let (id, channel) = service(&mut machine.supervisor, "control");
    let sheets: Vec<_> = (0..=16).map(|_| UnixStream::pair().unwrap()).collect();
    for (number, (sheet, _)) in (0..).zip(&sheets) {
        let applicant = machine.supervisor.applicant(id, number);
        // Nobody writes: the task reads until the end of the test.
        machine.look_at(applicant, OwnedFd::from(sheet.try_clone().unwrap()), Purpose::Plan);
    }
    let (message, _) = channel.receive().unwrap();
    let FromInit::Reply { id: 16, reply: Reply::Refused { reason } } = message else { panic!("{message:?}") };
    assert!(reason.contains("try again in a moment"), "{reason}");
    // Not by closing it, as the tasks have copies of each other's.
    sheets.iter().for_each(|(sheet, _)| sheet.shutdown(std::net::Shutdown::Both).unwrap());
}

/// One whose configuration is in force; it has the host's name, which stays.
fn machine() -> Machine {
    let mut machine = Machine::new().unwrap();
    machine.supervisor.configuration = configuration("");
    machine.configuration = Some(configuration::Report::default());
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
    machine.facts.unconfirmed = Some(Unconfirmed { kernel, ..unconfirmed() });
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
fn a_trial_that_would_destroy_what_was_made_by_hand_is_refused() {
    let mut machine = machine();
    machine.supervisor.restore_made(Vec::new());
    let control = service(&mut machine.supervisor, "control");
    let declared = wanted("a", "[containers.web]\nimage = 'a'\n").0;
    let creation = Box::new(Creation::plain("web".into(), declared.containers.into_values().next().unwrap()));
    assert_eq!(world::ask(&mut machine.supervisor, &control, Request::Create { creation, session: None }), Reply::Done);
    let other = || wanted("b", "[containers.web]\nimage = 'b'\n");
    let answer = |machine: &mut Machine, purpose: Purpose| {
        let applicant = machine.supervisor.applicant(control.0, 1);
        machine.looked_at(applicant, purpose, Ok(other().into()));
        let replies = std::iter::from_fn(|| control.1.receive::<FromInit>().ok());
        replies
            .filter_map(|(message, _)| match message {
                FromInit::Reply { reply, .. } => Some(reply),
                FromInit::Notice(_) => None,
            })
            .next()
    };
    let is_there = |machine: &Machine| !machine.supervisor.present().made.is_empty();
    let Some(Reply::Refused { reason }) = answer(&mut machine, Purpose::Try(Duration::from_secs(60))) else { panic!() };
    assert!(reason.contains("`berth rm web` first"), "{reason}");
    assert!(is_there(&machine) && machine.facts.unconfirmed.is_none());
    assert_eq!(machine.supervisor.configuration, configuration(""));
    assert_eq!(answer(&mut machine, Purpose::Plan), Some(Reply::Done));
    answer(&mut machine, Purpose::Apply);
    assert!(!is_there(&machine), "it gives way to what stays");
}

#[test]
fn what_nobody_confirms_leaves_who_was_stopped_by_hand_stopped() {
    let mut machine = machine();
    let web = |image: &str| wanted("a", &format!("[containers.web]\nimage = '{image}'\nrestart = 'unless-stopped'\n"));
    let (before, locations) = web("a");
    machine.put_in_force(before, locations).unwrap();
    let control = world::service(&mut machine.supervisor, "control");
    let stop = Request::Stop { name: "web".into(), ending: Ending::default() };
    assert_eq!(world::ask(&mut machine.supervisor, &control, stop), Reply::Done);
    let applicant = machine.supervisor.applicant(0, 1);
    machine.looked_at(applicant, Purpose::Try(Duration::from_secs(60)), Ok(Box::new(web("b"))));
    let state = |machine: &Machine| machine.supervisor.find("web").unwrap().describe().state;
    assert_eq!(state(&machine), ContainerState::Declared);
    machine.facts.unconfirmed.as_mut().unwrap().deadline = Duration::ZERO;
    machine.take_back();
    assert_eq!(state(&machine), ContainerState::Stopped);
    assert!(machine.supervisor.facts.stopped.contains("web"), "and the next boot leaves it so");
}

#[test]
fn the_engine_keeps_what_was_before_a_trial_until_the_next_boot_has_the_trial_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = machine();
    machine.folder = folder.path().to_owned();
    let engine = service(&mut machine.supervisor, "engine");
    assert_eq!(world::ask(&mut machine.supervisor, &engine, Request::Ready), Reply::Done);
    let on_trial = |machine: &mut Machine| {
        let reply = world::ask(&mut machine.supervisor, &engine, Request::Declared { after: String::new() });
        let Reply::Declared { declarations, .. } = reply else { panic!("{reply:?}") };
        declarations[0].trial
    };
    let web = |image: &str| wanted("a", &format!("[containers.web]\nimage = '{image}'\n"));
    let (before, locations) = web("a");
    machine.put_in_force(before, locations).unwrap();
    assert!(!on_trial(&mut machine));
    let (control, _channel): (u32, Channel) = service(&mut machine.supervisor, "control");
    let applicant = machine.supervisor.applicant(control, 1);
    let try_another = |machine: &mut Machine| {
        machine.looked_at(applicant, Purpose::Try(Duration::from_secs(60)), Ok(web("b").into()))
    };
    try_another(&mut machine);
    assert!(on_trial(&mut machine));
    machine.facts.unconfirmed.as_mut().unwrap().deadline = Duration::ZERO;
    machine.take_back();
    assert!(!on_trial(&mut machine));

    try_another(&mut machine);
    // Of something that was applied before.
    machine.recorded(&[], None);
    assert!(on_trial(&mut machine));
    machine.confirm(applicant);
    assert!(on_trial(&mut machine), "a reset finds the one before");
    end_records(&mut machine);
    let notice = engine.1.receive::<FromInit>().unwrap().0;
    assert!(matches!(notice, FromInit::Notice(Notice::DeclaredChanged)), "{notice:?}");
    assert!(!on_trial(&mut machine));
}

#[test]
fn what_is_recorded_forgets_who_was_stopped_of_those_that_are_gone() {
    let mut machine = machine();
    let (web, without) = (wanted("a", "[containers.web]\nimage = 'a'\nrestart = 'unless-stopped'\n"), wanted("b", ""));
    machine.put_in_force(web.0, web.1).unwrap();
    machine.supervisor.facts.stopped.insert("web".to_owned());
    let applicant = machine.supervisor.applicant(0, 1);
    machine.recorded(&[applicant], None);
    assert_eq!(machine.supervisor.facts.stopped.len(), 1);
    machine.put_in_force(without.0, without.1).unwrap();
    machine.recorded(&[applicant], Some("the disk is full".to_owned()));
    assert_eq!(machine.supervisor.facts.stopped.len(), 1, "the next boot has it again");
    machine.recorded(&[applicant], None);
    assert!(machine.supervisor.facts.stopped.is_empty());
}

/// Everything is recorded, or has failed.
fn end_records(machine: &mut Machine) {
    while machine.is_recording() {
        for token in machine.reactor.wait(Some(Duration::from_secs(60))).unwrap() {
            if let Token::Task(number) = token {
                machine.handle_task(number);
            }
        }
    }
}

#[test]
fn what_is_applied_while_another_is_recorded_is_recorded_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = machine();
    machine.folder = folder.path().to_owned();
    let (id, channel): (u32, Channel) = service(&mut machine.supervisor, "control");
    // One whose disk does not answer.
    let (disk, theirs) = UnixStream::pair().unwrap();
    let work = move || (&theirs).read_to_end(&mut Vec::new()).err().map(|error| error.to_string());
    let applicants = vec![machine.supervisor.applicant(id, 1)];
    machine.start_task(|| Task::start(work).map(|task| Work::Record { task, applicants })).unwrap();
    let apply = |machine: &mut Machine, request: u64, purpose: Purpose, name: &str| {
        let applicant = machine.supervisor.applicant(id, request);
        let wanted = wanted(name, &format!("[containers.{name}]\nimage = 'a'\n"));
        machine.looked_at(applicant, purpose, Ok(Box::new(wanted)));
        assert_eq!(machine.tasks.values().filter(|work| matches!(work, Work::Record { .. })).count(), 1);
    };
    apply(&mut machine, 2, Purpose::Apply, "second");
    apply(&mut machine, 3, Purpose::Apply, "third");
    apply(&mut machine, 4, Purpose::Apply, "third");
    apply(&mut machine, 5, Purpose::Try(Duration::from_secs(60)), "tried");
    let answered = || -> Vec<u64> {
        let received = std::iter::from_fn(|| channel.receive::<FromInit>().ok());
        let done = received.filter_map(|(message, _)| match message {
            FromInit::Reply { id, reply: Reply::Done } => Some(id),
            _ => None,
        });
        done.collect()
    };
    assert_eq!(answered(), [5], "the others are not recorded");
    disk.shutdown(std::net::Shutdown::Both).unwrap();
    end_records(&mut machine);
    assert_eq!(answered(), [1, 2, 3, 4]);
    let recorded = std::fs::read_to_string(folder.path().join(record::NAME)).unwrap();
    let names = ["second", "third", "tried"].map(|name| recorded.contains(&format!("containers.{name}")));
    assert_eq!(names, [false, true, false], "{recorded}");
}

#[test]
fn what_could_not_be_kept_is_what_was_read_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = machine();
    machine.folder = folder.path().to_owned();
    let read = "hostname = \"read\"\n".to_owned();
    machine.configuration.as_mut().unwrap().not_kept = Some(read.clone());
    let applicant = machine.supervisor.applicant(0, 1);
    let applied = wanted("applied", "[containers.web]\nimage = 'a'\n");
    machine.looked_at(applicant, Purpose::Apply, Ok(Box::new(applied)));
    end_records(&mut machine);
    let recorded = std::fs::read(folder.path().join(record::NAME)).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&recorded).unwrap()["over"], read);
}

#[test]
fn what_is_read_during_a_trial_ends_it_unless_it_is_what_was_there_before() {
    const OFF: &str = "watchdog = { device = 'off' }\n";
    let with = |name: &str| wanted("berth.toml", &format!("{OFF}[containers.{name}]\nimage = 'a'\n"));
    let read = |(configuration, locations): Wanted| configuration::Report {
        configuration: Some(configuration),
        locations,
        sources: vec!["berth.toml".to_owned()],
        ..configuration::Report::default()
    };
    let tried = || {
        let mut machine = machine();
        machine.configure(read(with("before")));
        let applicant = machine.supervisor.applicant(0, 1);
        machine.looked_at(applicant, Purpose::Try(Duration::from_secs(60)), Ok(Box::new(with("tried"))));
        machine
    };
    let in_force = |machine: &mut Machine| {
        machine.facts.unconfirmed.iter_mut().for_each(|trial| trial.deadline = Duration::ZERO);
        let names = |machine: &Machine| {
            let names = machine.supervisor.configuration.containers.keys().map(ToString::to_string);
            (names.collect::<Vec<_>>().concat(), machine.describe().configuration_sources.concat())
        };
        let during = names(machine);
        machine.take_back();
        [during, names(machine)]
    };
    let is = |name: &str, source: &str| (name.to_owned(), source.to_owned());
    let mut machine = tried();
    machine.configure(read(with("later")));
    assert!(machine.facts.unconfirmed.is_none(), "there is nothing to confirm");
    assert_eq!(in_force(&mut machine), [is("later", "berth.toml"), is("later", "berth.toml")]);

    for nothing_new in [read(with("before")), configuration::Report::default()] {
        let mut machine = tried();
        machine.configure(nothing_new);
        assert_eq!(in_force(&mut machine), [is("tried", "berth apply"), is("before", "berth.toml")]);
    }
}

#[test]
fn what_the_kernel_was_told_on_trial_is_gone_with_the_trial() {
    let mut machine = machine();
    let parameter = tempfile::NamedTempFile::new().unwrap();
    let kernel = vec![(parameter.path().to_owned(), "60\n".to_owned())];
    machine.facts.unconfirmed = Some(Unconfirmed { kernel, ..unconfirmed() });
    let read = configuration("watchdog = { device = 'off' }");
    machine.configure(configuration::Report { configuration: Some(read), ..configuration::Report::default() });
    assert_eq!(std::fs::read_to_string(parameter.path()).unwrap(), "60\n");
}

#[test]
fn a_sheet_with_files_comes_back_with_the_plan() {
    let mut sheet = tempfile::tempfile().unwrap();
    let files = [("a.toml", "[containers.web]\nimage = \"web\"\n"), ("b.toml", "hostname = \"b\"\n")];
    sheet.write_all(&serde_json::to_vec(&files).unwrap()).unwrap();
    sheet.rewind().unwrap();
    let wanted = plan(sheet.try_clone().unwrap(), &Configuration::default(), &Present::default()).unwrap();
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
    let reason = plan(sheet, &Configuration::default(), &Present::default()).unwrap_err();
    assert!(reason.contains("web.toml:3:1"), "{reason}");
}
