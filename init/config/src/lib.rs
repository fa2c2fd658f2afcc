//! The configuration: schema, merging, validation, diagnostics
