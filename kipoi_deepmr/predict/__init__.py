"""From a configuration to effects in the store."""
