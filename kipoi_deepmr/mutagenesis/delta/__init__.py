"""The delta engine: exact saturation mutagenesis that computes only what a mutation can reach."""
