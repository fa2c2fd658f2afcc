//! `docs/berth.schema.json` is what the types say.

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/berth.schema.json");

/// `BERTH_BLESS=1 cargo test -p berth-config --test schema` writes the file.
#[test]
fn the_schema_in_the_documentation_is_up_to_date() {
    let wanted = serde_json::to_string_pretty(&berth_config::schema()).expect("it is JSON") + "\n";
    if std::env::var_os("BERTH_BLESS").is_some() {
        std::fs::write(PATH, &wanted).expect("it can be written");
    }
    let present = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(present == wanted, "docs/berth.schema.json is out of date: run this test with BERTH_BLESS=1");
}

#[test]
fn nothing_can_be_null() {
    assert!(!berth_config::schema().to_string().contains("\"null\""));
}
