//! The one binary of the image.
fn main() {}
