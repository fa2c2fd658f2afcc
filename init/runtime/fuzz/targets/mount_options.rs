//! Mount options: words that are known never reach the file system, and what is set is not cleared as well.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|choices: Vec<(u16, String)>| {
    let known = berth_runtime::known_mount_options();
    // Mostly words that mean something, sometimes any.
    let words: Vec<String> = choices
        .into_iter()
        .map(|(number, text)| known.get(usize::from(number) % (known.len() + 8)).cloned().unwrap_or(text))
        .collect();
    berth_runtime::fuzzing::mount_options(&words);
});
