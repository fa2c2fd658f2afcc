//! `berth boot`: the steps of the boot with their times.

use berth_control::message::Step;

use super::api::Api;
use super::error::Error;
use super::{format, json_text, table};

/// The text to print.
pub async fn run(api: &Api, json: bool) -> Result<String, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
