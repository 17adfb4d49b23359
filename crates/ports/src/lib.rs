//! The traits through which the kernel meets the world. Knows every adapter's duty and no
//! adapter.

pub mod executor;
