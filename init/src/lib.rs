//! PID 1: boot plan, supervisor, shutdown
