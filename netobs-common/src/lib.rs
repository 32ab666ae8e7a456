//! The contract between netobs's kernel side and its agent.
#![no_std]
