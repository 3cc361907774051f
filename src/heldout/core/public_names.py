"""What the package promises: every public name, where it lives, and how firmly it stands.

``heldout`` itself gives jobs, the types that they take and return, and the classes of the catalog;
``heldout.functions`` gives plain functions of arrays and tensors. Both are read here when a name is
first used, so that ``import heldout`` imports nothing of torch. The stubs beside them
(``__init__.pyi``, ``functions.pyi``) say the same to type checkers and editors; they are written by
``python docs/stubs.py``, and a test fails where they lag behind.

Stable names keep their meaning; one that goes away warns for one minor version before. Experimental
names may change in any version, with a line in the changelog.
"""

import ast
from functools import cache
from importlib import resources
from pathlib import Path

# Module below ``heldout`` -> what it gives to users.
STABLE: dict[str, tuple[str, ...]] = {
    "cli.progress": ("console_progress",),
    "core.augmentation": ("Augmentation", "Supplies"),
    "core.discovery": ("Entry", "list_entries"),
    "core.errors": ("Interrupted", "TrainingDiverged", "UserError"),
    "core.facts": ("Facts", "HistoryPoint", "SetupFault"),
    "core.harness": ("HarnessScores",),
    "core.job_time": ("Estimate", "JobPart"),
    "core.landscape": ("LossLandscape",),
    "core.losses": ("DocumentLosses",),
    "core.measurement": ("Contrast", "Interval", "Measurement", "NotMeasured"),
    "core.parameters": ("CheckedParameters",),
    "core.part_texts": ("PartTexts",),
    "core.pass_statistics": (
        "CanaryLosses",
        "Generations",
        "PassStatistics",
        "PersonalData",
        "Suffixes",
    ),
    "core.probe": ("Evidence", "Probe", "TaskScores", "VerbatimMemorization"),
    "core.progress": ("Progress",),
    "core.prompt_pairs": ("PromptPairs",),
    "core.recipe": (
        "ControlSection",
        "DataSection",
        "EvalSection",
        "HyperfitSection",
        "ModelSection",
        "Recipe",
        "SearchSection",
        "TrainSection",
        "load_recipe",
    ),
    "core.regularizer": (
        "Continue",
        "Cost",
        "Evaluation",
        "Gradient",
        "PerStep",
        "Regularizer",
        "RollBack",
        "Stop",
        "TokenSum",
    ),
    "core.results.advice": (
        "Advice",
        "AdvisedSetting",
        "Doubling",
        "Fact",
        "Guess",
        "LawUsed",
        "PredictedTraining",
        "RecipeAdvice",
        "RecipeChoice",
        "Serving",
    ),
    "core.results.check": (
        "BoilerplateText",
        "CheckResult",
        "Excerpt",
        "GroupLeak",
        "Lengths",
        "Pair",
        "PersonalDataFound",
        "Problem",
        "Suspect",
    ),
    "core.results.diagnosis": ("Diagnosis", "MemorizedRow", "Remedy", "SideBySide"),
    "core.results.ensemble": (
        "Asymptote",
        "DistillResult",
        "EnsembleResult",
        "FittedLoss",
        "Member",
        "ServingCost",
        "SizeLoss",
    ),
    "core.results.label_noise": ("DoubtfulAnswer", "LabelNoise"),
    "core.results.learning_curve": ("CurvePoint", "Forecast", "LearningCurve"),
    "core.row": ("Row",),
    "core.run": ("Run",),
    "core.run_files": ("PreflightCheck",),
    "core.search_space": ("Between",),
    "core.shown": ("Shown",),
    "core.stats": ("RatioEstimate",),
    "core.token_size": ("TokenSize",),
    "core.verbatim": ("Corpora", "VerbatimIndex"),
    "core.verdict": ("Cause", "Verdict", "Verdicts"),
    "data.columns": ("ReadRows", "read_rows"),
    "jobs.augmented": ("augmented", "write_rows"),
    "jobs.checking.check": ("check",),
    "jobs.checking.trained_alone": ("label_noise", "learning_curve"),
    "jobs.diagnosing.diagnose": ("diagnose",),
    "jobs.diagnosing.watch": ("Watched", "watch"),
    "jobs.ensembles.distill": ("distill", "dry_run_distill"),
    "jobs.ensembles.ensemble": ("dry_run_ensemble", "ensemble"),
    "jobs.evidence.gatherer": ("Asked", "Gatherer", "Given"),
    "jobs.evidence.kept": ("Kept", "Keys"),
    "jobs.evidence.texts": ("DiagnosedTexts",),
    "jobs.exporting.export_recipe": ("export_recipe",),
    "jobs.fitting.fit": ("FitResult", "dry_run", "fit", "resume"),
    "jobs.kit.dry_run": ("DryRun",),
    "jobs.kit.given_data": ("DataSource", "DataSources", "TableOfRows"),
    "jobs.kit.given_model": ("ModelSource",),
    "jobs.kit.places": ("Needs", "Places"),
    "jobs.planning.advise": ("advise",),
    "jobs.planning.fitted_law": ("OwnRuns",),
    "jobs.planning.laws": ("laws",),
    "jobs.planning.laws_result": ("LawsResult",),
    "jobs.planning.question": ("AskedData", "AskedModel", "Budget", "Question"),
    "jobs.report": ("write_report",),
    "lm.citation_blocker": ("CitationBlocker",),
    "lm.load": ("LoadedModel",),
    "lm.passes": ("DivergenceLoss", "Passes", "ScoredPass"),
    "scaling.fit": ("Certificate", "Fit"),
    "scaling.intervals": ("Range",),
    "scaling.law": ("Law", "Parameter"),
    "scaling.rollout": ("Choice", "Rollout"),
    "scaling.runs": ("Runs",),
    "scaling.saturating": ("SaturatingLaw",),
    "scaling.table": ("RunTable",),
    "training.attach": ("attach",),
    "training.diagnose_callback": ("DiagnoseCallback",),
    "training.steps": ("Steps",),
}

EXPERIMENTAL: dict[str, tuple[str, ...]] = {
    "core.results.answers": ("Answer", "CopiedText", "Written"),
    "core.results.capacity": ("CapacityResult", "Filled", "Plateau"),
    "core.results.compression": ("Block", "CompressResult", "TwoPart"),
    "core.results.counterfactual": ("Counterfactual", "CounterfactualRow", "Influence"),
    "core.results.push": ("Pushed", "PushedFile"),
    "jobs.answering.answers": ("answers",),
    "core.results.merge": ("GgufFile", "LogitAgreement", "MergePlan", "MergeResult"),
    "jobs.compressing.compress": ("compress",),
    "jobs.counterfactual.counterfactual": ("counterfactual",),
    "jobs.exporting.push": ("dry_run_push", "push"),
    "jobs.hyperfitting.hyperfit": ("dry_run_hyperfit", "hyperfit", "resume_hyperfit"),
    "jobs.hyperfitting.judgements": ("JudgedPair", "export_judgements", "import_judgements"),
    "jobs.hyperfitting.result": ("HyperfitResult",),
    "jobs.merging.merge": ("dry_run_merge", "merge"),
    "jobs.planning.capacity": ("capacity",),
    "lm.adapters": ("AdapterProduct",),
    "lm.measuring.sharpness": ("Sharpness",),
    "lm.tokenize": ("TokenizedRow", "Window"),
    "scaling.ensemble": ("EnsembleLosses",),
}

# Beside the functions of the catalog's own files, all of which belong to ``heldout.functions``.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "core.segments": ("WORD",),
    "core.shares": ("difference_of_shares", "share_estimate"),
    "core.stats": ("paired_difference", "ratio_estimate"),
    "jobs.evidence.model_on_part": ("max_length_of",),
    "lm.linear_cross_entropy": ("linear_cross_entropy",),
    "lm.measuring.sharpness": ("sharpness",),
    "lm.nll": ("document_losses",),
    "lm.sequences": ("sequence_noise",),
    "lm.tokenize": ("tokenize_row",),
    "lm.weights": ("random_like", "seed_of"),
    "scaling.ensemble": ("asymptote", "ensemble_losses", "mixture_nats"),
    "scaling.law": ("coefficient", "exponent", "power", "unpack"),
    "scaling.runs": ("Numbers", "points"),
    "scaling.saturating": ("saturated",),
}

_CATALOG = ("regularizer", "augmentation", "probe", "law")


def _module_of(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: f"heldout.{module}" for module, names in table.items() for name in names}


HOMES = _module_of(STABLE) | _module_of(EXPERIMENTAL)


@cache
def homes() -> dict[str, str]:
    """Name of the package -> module; regularizers and augmentations are read from their files."""
    from heldout.core.discovery import entries_of

    found = [*entries_of("regularizer"), *entries_of("augmentation")]
    return {e.class_name: e.module for e in found if _is_ours(e.module)} | HOMES


@cache
def function_homes() -> dict[str, str]:
    """Name of ``heldout.functions`` -> module; those of the catalog are read from its files."""
    from heldout.core.discovery import entries_of

    found: dict[str, str] = {}
    for entry in (each for kind in _CATALOG for each in entries_of(kind)):
        if _is_ours(entry.module):
            for name in _public_in(entry.module):
                if name != entry.class_name:
                    assert name not in found, f"{entry.module} and {found[name]} have both {name}"
                    found[name] = entry.module
    return found | _module_of(FUNCTIONS)


def is_experimental(name: str) -> bool:
    return any(name in names for names in EXPERIMENTAL.values())


def _is_ours(module: str) -> bool:
    return module.startswith("heldout.")


def _public_in(module: str) -> list[str]:
    root = Path(str(resources.files("heldout")))
    file = root.joinpath(*module.split(".")[1:]).with_suffix(".py")
    defined = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return [
        node.name for node in body if isinstance(node, defined) and not node.name.startswith("_")
    ]
