//! What PID 1 and its clients share: message types, the channel, the D-Bus interfaces
