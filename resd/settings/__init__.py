"""Typed settings, one class a section of the configuration. Layer 0: pydantic only, no Hydra, no torch.

A section is frozen and refuses unknown keys. Types, limits and meanings (the line under a field, which `--help` shows)
stand here, values in `conf/`, so that each has one place. An algorithm adds its own keys by subclassing
`AlgorithmSettings` in its file.
"""

from resd.settings.base import ROOT, Fraction, Placement, Positive, Section, Url
from resd.settings.method import (
    AlgorithmSettings,
    Asked,
    ObjectiveSettings,
    PolicyGradientSettings,
    SuccessWeighting,
    TeacherPromptSettings,
    TeacherSettings,
)
from resd.settings.run import (
    AuthorSettings,
    CheckpointSettings,
    EngineSettings,
    EvaluationSettings,
    ForgettingSettings,
    HardwareSettings,
    JudgeSettings,
    LibrarySettings,
    LoraSettings,
    LossSettings,
    ModelSettings,
    OptimizerSettings,
    RemoteSettings,
    RolloutSettings,
    SamplingSettings,
    TaskSettings,
    TransformersSettings,
    VerifySettings,
    VllmSettings,
)
from resd.settings.watch import AlarmSettings, StyleSettings

__all__ = [
    "ROOT",
    "AlarmSettings",
    "AlgorithmSettings",
    "Asked",
    "AuthorSettings",
    "CheckpointSettings",
    "EngineSettings",
    "EvaluationSettings",
    "ForgettingSettings",
    "Fraction",
    "HardwareSettings",
    "JudgeSettings",
    "LibrarySettings",
    "LoraSettings",
    "LossSettings",
    "ModelSettings",
    "ObjectiveSettings",
    "OptimizerSettings",
    "Placement",
    "PolicyGradientSettings",
    "Positive",
    "RemoteSettings",
    "RolloutSettings",
    "SamplingSettings",
    "Section",
    "StyleSettings",
    "SuccessWeighting",
    "TaskSettings",
    "TeacherPromptSettings",
    "TeacherSettings",
    "TransformersSettings",
    "Url",
    "VerifySettings",
    "VllmSettings",
]  # fmt: skip
