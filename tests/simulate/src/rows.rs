//! Long runs by name, each with its figures.
