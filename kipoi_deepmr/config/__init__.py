"""The YAML file as typed sections: load, validate, explain what is wrong, dump canonically."""

from kipoi_deepmr.config.reading import load_config, parse_config
from kipoi_deepmr.config.sections import (
    Config,
    DataloaderSection,
    EffectsSection,
    Exposure,
    MetaSection,
    ModelSection,
    MRSection,
    MutagenesisSection,
    SequencesSection,
    Task,
    UncertaintySection,
)

__all__ = [
    "Config",
    "DataloaderSection",
    "EffectsSection",
    "Exposure",
    "MRSection",
    "MetaSection",
    "ModelSection",
    "MutagenesisSection",
    "SequencesSection",
    "Task",
    "UncertaintySection",
    "load_config",
    "parse_config",
]
