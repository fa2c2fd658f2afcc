//! Keeps what every container prints
