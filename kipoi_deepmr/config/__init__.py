"""The YAML file as typed sections: load, validate, explain what is wrong, dump canonically."""

from kipoi_deepmr.config.estimation import ControlsSection, MetaSection, Method, MRSection
from kipoi_deepmr.config.sections import (
    Config,
    DataloaderSection,
    EffectsSection,
    Exposure,
    ModelSection,
    MutagenesisSection,
    NamedMember,
    SequencesSection,
    Task,
    UncertaintySection,
)
from kipoi_deepmr.config.yaml_file import load_config, parse_config

__all__ = [
    "Config",
    "ControlsSection",
    "DataloaderSection",
    "EffectsSection",
    "Exposure",
    "MRSection",
    "MetaSection",
    "Method",
    "ModelSection",
    "MutagenesisSection",
    "NamedMember",
    "SequencesSection",
    "Task",
    "UncertaintySection",
    "load_config",
    "parse_config",
]
