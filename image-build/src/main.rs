//! Builds the image.
fn main() {}
