//! The berth command line and the shells on the consoles
