//! Plays everyone else: clients, media nodes, bad networks.
