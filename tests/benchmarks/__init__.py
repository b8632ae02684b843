"""Figures against the alternatives: ratios measured side by side in one process. Opt-in by ``-m bench``."""
