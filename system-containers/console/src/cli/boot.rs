//! `berth boot`: the steps of the boot with their times; `--list`: the boots and what they ended by.

use berth_control::message::{Boot, Step};
use clap::Args;

use super::api::Api;
use super::error::Error;
use super::{format, json_text, table};

/// `berth boot`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show the boots that are remembered and what each ended by, the newest last
    #[arg(long, short)]
    list: bool,
}

/// The text to print.
pub async fn run(api: &Api, arguments: &Arguments, json: bool) -> Result<String, Error> {
    if arguments.list {
        let boots: Vec<Boot> = api.machine.boots().await?.into_iter().map(Into::into).collect();
        return if json { json_text(&boots) } else { Ok(render_boots(&boots, table::terminal_width())) };
    }
    let steps: Vec<Step> = api.machine.timeline().await?.into_iter().map(Into::into).collect();
    if json { json_text(&steps) } else { Ok(render(&steps, table::terminal_width())) }
}

fn render(steps: &[Step], width: Option<usize>) -> String {
    let row = |step: &Step| {
        let outcome = match (step.failed, step.outcome.as_str()) {
            (false, outcome) => outcome.to_owned(),
            (true, "") => "FAILED".to_owned(),
            (true, outcome) => format!("FAILED: {outcome}"),
        };
        vec![
            format!("{:>9}", format::milliseconds(step.start_us)),
            format!("{:>9}", format::milliseconds(step.duration_us)),
            step.name.clone(),
            outcome,
        ]
    };
    let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
    table::render(&["  STARTED", "     TOOK", "STEP", "OUTCOME"], &rows, width)
}

/// 0 is this boot, -1 the one before.
fn render_boots(boots: &[Boot], width: Option<usize>) -> String {
    let time =
        |seconds: u64| format::moment(seconds.saturating_mul(1_000_000)).get(..19).unwrap_or_default().to_owned();
    let row = |(age, boot): (usize, &Boot)| {
        let number = if age == 0 { "0".to_owned() } else { format!("-{age}") };
        let ended = match (boot.ended, age) {
            (Some(seconds), _) => time(seconds),
            (None, 0) => "runs".to_owned(),
            (None, _) => "?".to_owned(),
        };
        vec![
            format!("{number:>3}"),
            time(boot.began),
            ended,
            boot.version.clone(),
            boot.slot.clone(),
            boot.reason.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = (0..boots.len()).rev().zip(boots).map(row).collect();
    table::render(&["  #", "BEGAN (UTC)", "ENDED", "VERSION", "SLOT", "ENDED BY"], &rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boots_are_a_table_with_the_newest_at_its_end() {
        let boot = |began, ended, reason: &str| Boot {
            id: String::new(),
            version: "0.1.0".into(),
            kernel: "6.12.1".into(),
            slot: "a".into(),
            began,
            ended,
            reason: reason.into(),
        };
        let boots = [
            boot(1_795_000_000, Some(1_795_000_060), "reboot, by the power button"),
            boot(1_795_000_100, None, "it was cut off"),
            boot(1_795_000_200, None, ""),
        ];
        let expected = "  #  BEGAN (UTC)          ENDED                VERSION  SLOT  ENDED BY
 -2  2026-11-18T11:06:40  2026-11-18T11:07:40  0.1.0    a     reboot, by the power button
 -1  2026-11-18T11:08:20  ?                    0.1.0    a     it was cut off
  0  2026-11-18T11:10:00  runs                 0.1.0    a
";
        assert_eq!(render_boots(&boots, None), expected);
    }

    #[test]
    fn steps_are_a_table_with_times_to_the_right() {
        let step = |name: &str, start_us, duration_us, outcome: &str, failed| Step {
            name: name.into(),
            start_us,
            duration_us,
            outcome: outcome.into(),
            failed,
        };
        let steps = [
            step("early mounts", 412_345, 1_512, "", false),
            step("state partition", 420_000, 38_000, "/dev/vda4, grown to 2 GiB", false),
            step("user data", 458_000, 12, "no disk labelled BERTH-DATA", true),
        ];
        let expected = "  STARTED       TOOK  STEP             OUTCOME
   412 ms    1.51 ms  early mounts
   420 ms    38.0 ms  state partition  /dev/vda4, grown to 2 GiB
   458 ms    0.01 ms  user data        FAILED: no disk labelled BERTH-DATA
";
        assert_eq!(render(&steps, None), expected);
    }
}
