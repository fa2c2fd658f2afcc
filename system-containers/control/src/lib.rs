//! The control API: D-Bus to clients, typed messages to PID 1
