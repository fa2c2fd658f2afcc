//! The control API over its real socket, with a PID 1 that answers from memory.

mod alive;
mod clients;
mod hostile;
mod machine;
mod parts;
mod round_trip;
