//! The kernel side of netobs.
#![no_std]
#![no_main]
