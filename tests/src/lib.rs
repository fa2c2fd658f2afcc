//! The QEMU harness and the cases that boot the real image
