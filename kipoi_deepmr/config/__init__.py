"""The YAML file as typed sections: load, validate, explain what is wrong, dump canonically."""

from kipoi_deepmr.config.estimation import ControlsSection, MetaSection, Method, MRSection
from kipoi_deepmr.config.reading import load_config, parse_config
from kipoi_deepmr.config.sections import (
    Config,
    DataloaderSection,
    EffectsSection,
    Exposure,
    Member,
    ModelSection,
    MutagenesisSection,
    SequencesSection,
    Task,
    UncertaintySection,
)

__all__ = [
    "Config",
    "ControlsSection",
    "DataloaderSection",
    "EffectsSection",
    "Exposure",
    "MRSection",
    "Member",
    "MetaSection",
    "Method",
    "ModelSection",
    "MutagenesisSection",
    "SequencesSection",
    "Task",
    "UncertaintySection",
    "load_config",
    "parse_config",
]
